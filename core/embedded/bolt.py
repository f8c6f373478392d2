"""The first words of the Bolt protocol: enough to log in to a graph server and learn its version.

The driver has its one door in ``memory``; this only answers "is it there, and does it let us in?".
"""

from __future__ import annotations

import asyncio
import ssl
import struct
from urllib.parse import urlsplit

from core.embedded.asking import conversation
from core.errors import SetupError

_MAGIC = 0x6060B017
_VERSION_4_4 = 0x00020404  # 4.4 and the two before it, spoken by Neo4j 4 and 5, AuraDB and ArcadeDB alike
_HELLO, _SUCCESS = 0x01, 0x70
_TINY_LIMIT = 16
_SIZED = {0xD0: ">B", 0xD1: ">H", 0xD2: ">I", 0xD4: ">B", 0xD5: ">H", 0xD8: ">B", 0xD9: ">H"}
_KINDS = {0xD0: 0x80, 0xD1: 0x80, 0xD2: 0x80, 0xD4: 0x90, 0xD5: 0x90, 0xD8: 0xA0, 0xD9: 0xA0}
_NUMBERS = {0xC8: ">b", 0xC9: ">h", 0xCA: ">i", 0xCB: ">q"}
_CONSTANTS: dict[int, bool | None] = {0xC0: None, 0xC2: False, 0xC3: True}


async def server_version(url: str, user: str, password: str, *, timeout_s: float = 5.0) -> str:
    """What the server calls itself, for example ``Neo4j/5.26.0``.

    ``url`` is ``bolt://`` or ``neo4j://``, with ``+s`` for TLS and ``+ssc`` for TLS with any certificate.
    Raises ``ConnectionError`` when nothing answers and ``SetupError`` when the login is refused.
    """
    parts = urlsplit(url)
    tls = _tls(parts.scheme)
    async with conversation(
        "the graph server", parts.hostname, parts.port or 7687, tls=tls, timeout_s=timeout_s
    ) as streams:
        return await _hello(*streams, user, password)


async def _hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, user: str, password: str) -> str:
    writer.write(struct.pack(">IIIII", _MAGIC, _VERSION_4_4, 0, 0, 0))
    await writer.drain()
    if await reader.readexactly(4) == b"\0\0\0\0":
        raise SetupError("The graph server speaks no version of Bolt that we know (4.2 to 4.4).")
    fields = {"user_agent": "bailiwick/0", "scheme": "basic", "principal": user, "credentials": password}
    message = bytes((0xB1, _HELLO)) + _packed_map(fields)
    writer.write(struct.pack(">H", len(message)) + message + b"\0\0")
    await writer.drain()
    answer = await _message(reader)
    facts = _Unpacker(answer[2:]).value()
    if not isinstance(facts, dict):
        raise ConnectionError("the graph server gives an answer that is not Bolt")
    if answer[1] != _SUCCESS:
        raise SetupError(f"The graph server refuses the login: {facts.get('message', 'no reason given')}")
    return str(facts.get("server", "unknown"))


async def _message(reader: asyncio.StreamReader) -> bytes:
    chunks = b""
    while size := struct.unpack(">H", await reader.readexactly(2))[0]:
        chunks += await reader.readexactly(size)
    return chunks


def _packed_map(fields: dict[str, str]) -> bytes:
    return bytes((0xA0 | len(fields),)) + b"".join(_packed(word) for item in fields.items() for word in item)


def _packed(text: str) -> bytes:
    raw = text.encode()
    return (bytes((0x80 | len(raw),)) if len(raw) < _TINY_LIMIT else struct.pack(">BH", 0xD1, len(raw))) + raw


class _Unpacker:
    """Reads the values that a HELLO is answered with: texts, numbers, booleans, lists and maps."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0

    def value(self) -> object:
        marker = self._take(">B")
        if marker in _CONSTANTS:
            return _CONSTANTS[marker]
        if marker in _NUMBERS:
            return self._take(_NUMBERS[marker])
        if marker < 0x80 or marker >= 0xF0:
            return marker if marker < 0x80 else marker - 256
        size = self._take(_SIZED[marker]) if marker in _SIZED else marker & 0x0F
        kind = _KINDS.get(marker, marker & 0xF0)
        if kind == 0x80:
            self._at += size
            return self._raw[self._at - size : self._at].decode()
        if kind == 0x90:
            return [self.value() for _ in range(size)]
        if kind == 0xA0:
            return {str(self.value()): self.value() for _ in range(size)}
        raise ConnectionError(f"the graph server sends a value of unknown kind {marker:#x}")

    def _take(self, layout: str) -> int:
        taken = struct.unpack_from(layout, self._raw, self._at)[0]
        self._at += struct.calcsize(layout)
        return int(taken)


def _tls(scheme: str) -> ssl.SSLContext | None:
    if scheme.endswith("+ssc"):
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    return ssl.create_default_context() if scheme.endswith("+s") else None

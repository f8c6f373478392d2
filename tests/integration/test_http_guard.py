"""core.http against real servers: what is refused, what is allowed, and where a connection really goes."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from core.errors import PayloadTooLarge, Unavailable
from core.http import AddressRefused, Fetched, check_url, fetch, guarded_client, is_public

Answer = Callable[[str], Awaitable[bytes]]


@asynccontextmanager
async def server(answer: Answer, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """A server on a free port; ``answer`` gets the request's head and gives the whole response."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            writer.write(await answer((await reader.readuntil(b"\r\n\r\n")).decode()))
            await writer.drain()
        writer.close()

    listening = await asyncio.start_server(serve, host, 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()


def ok(body: bytes, *headers: str) -> bytes:
    head = "".join(f"{header}\r\n" for header in ("HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers))
    return f"{head}Connection: close\r\n\r\n".encode() + body


async def hello(head: str) -> bytes:
    return ok(head.encode(), "Set-Cookie: who=tenant-a")


async def get(url: str, *allowed: str, max_bytes: int = 10_000, deadline_s: float = 5.0) -> Fetched:
    async with guarded_client(allowed) as client:
        return await fetch(client, url, headers={}, max_bytes=max_bytes, deadline_s=deadline_s)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0.0.0.0"])
async def test_no_way_of_writing_this_machine_reaches_it(name: str) -> None:
    async with server(hello) as port:
        with pytest.raises(AddressRefused):
            await get(f"http://{name}:{port}/")
        assert (await get(f"http://127.0.0.1:{port}/", f"127.0.0.1:{port}")).status == 200
        with pytest.raises(AddressRefused):
            await get(f"http://127.0.0.1:{port}/", f"127.0.0.1:{port + 1}", f"127.0.0.2:{port}")


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "http://[::ffff:10.0.0.1]/",
        "http://[fd00::1]/",
        "http://[64:ff9b::a00:1]/",
        "http://100.64.0.1/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
    ],
)
async def test_private_addresses_are_refused_before_and_at_the_connection(url: str) -> None:
    with pytest.raises(AddressRefused):
        check_url(url)
    with pytest.raises(AddressRefused):
        await get(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://example.org/",
        "file:///etc/passwd",
        "http:///x",
        "http://a:b@example.org/",
        "http://e x/",
        "http://example.org/" + "x" * 2_000,
        "http://example.org:0/",
        "http://example.org:99999/",
        "http://[::1/",
        "http://example.org/\r\nHost: evil",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(AddressRefused):
        check_url(url)


def test_an_address_is_taken_as_it_is_written() -> None:
    assert check_url(" https://example.org:8443/feed?a=b ") == "https://example.org:8443/feed?a=b"
    assert check_url("http://127.0.0.1:8105/feed", ("127.0.0.1:8105",)) == "http://127.0.0.1:8105/feed"


def test_public_is_public() -> None:
    for address in ("93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "64:ff9b::5db8:d822"):
        assert is_public(ipaddress.ip_address(address)), address


async def test_a_name_is_resolved_once_and_the_connection_goes_where_it_was_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name server of an attacker answers another address at the second question: there is no second question."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def answers(host: str, *args: object, **kwargs: object) -> object:
        if host in {"feed.example", b"feed.example"}:
            asked.append("feed.example")
            addresses = {1: ["127.0.0.1"], 2: ["93.184.216.34", "10.0.0.1"]}[len(asked)]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, args[0])) for address in addresses]
        return real(host, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    async with server(hello) as port:
        fetched = await get(f"http://feed.example:{port}/", f"feed.example:{port}")
        assert f"host: feed.example:{port}" in fetched.body.decode().lower()
        assert len(asked) == 1
        with pytest.raises(AddressRefused):
            await get(f"http://feed.example:{port + 1}/")
        assert len(asked) == 2, "one private address among several is enough to refuse"


async def test_a_redirect_to_a_private_address_is_refused_and_another_is_followed() -> None:
    async with server(hello) as hidden:

        async def redirect(head: str) -> bytes:
            to = hidden if "GET /hidden" in head else 0
            place = f"http://127.0.0.1:{to}/" if to else "/there"
            if "GET /there" in head:
                return ok(b"there")
            return f"HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()

        async with server(redirect) as port:
            allowed = f"127.0.0.1:{port}"
            assert (await get(f"http://{allowed}/", allowed)).body == b"there"
            with pytest.raises(AddressRefused):
                await get(f"http://{allowed}/hidden", allowed)


async def test_an_answer_is_bounded_in_size_and_time() -> None:
    never = asyncio.Event()

    async def large(head: str) -> bytes:
        return ok(b"x" * 20_000)

    async def silent(head: str) -> bytes:
        await never.wait()
        return b""

    async with server(large) as port, server(silent) as quiet:
        with pytest.raises(PayloadTooLarge):
            await get(f"http://127.0.0.1:{port}/", f"127.0.0.1:{port}")
        with pytest.raises(Unavailable, match=r"within 0\.2 s"):
            await get(f"http://127.0.0.1:{quiet}/", f"127.0.0.1:{quiet}", deadline_s=0.2)
        never.set()
    with pytest.raises(Unavailable):
        await get(f"http://127.0.0.1:{port}/", f"127.0.0.1:{port}")


async def test_what_a_server_sets_for_one_caller_is_not_sent_for_the_next() -> None:
    async with server(hello) as port, guarded_client((f"127.0.0.1:{port}",)) as client:
        for _ in range(2):
            answer = await fetch(
                client, f"http://127.0.0.1:{port}/", headers={"X-Mine": "1"}, max_bytes=10_000, deadline_s=5
            )
            assert answer.headers["set-cookie"] == "who=tenant-a"
            assert b"cookie" not in answer.body.lower()
            assert b"x-mine: 1" in answer.body.lower()

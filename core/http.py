"""Calls to addresses that people wrote: never to a private address, never more than asked for.

A name is resolved, every address it has is checked, and the connection is made to an address that was
checked, so a name that changes its mind between check and connection gains nothing. A redirect is a
connection like any other. Private, loopback, link-local, multicast and reserved addresses are refused, also
when they hide inside an IPv6 address; exceptions are ``host:port`` pairs of ``allowed_private_hosts``.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import SplitResult, urlsplit

import httpcore
import httpx

from core.errors import InvalidInput, PayloadTooLarge, Unavailable

MAX_URL = 2_000
_MAX_REDIRECTS = 5
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class AddressRefused(InvalidInput):
    """The address is private, or not one that can be called."""

    code = "address_refused"


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def check_url(url: str, allowed_private_hosts: Iterable[str] = ()) -> str:
    """The address as it will be called. Raises ``AddressRefused`` for what can be told without resolving names."""
    url = url.strip()
    parts = _split(url)
    if (
        len(url) > MAX_URL
        or parts is None
        or parts.scheme not in _DEFAULT_PORTS
        or not parts.hostname
        or any(character <= " " for character in url)
    ):
        raise AddressRefused("An address is like https://host/path, at most 2,000 characters.", field="url")
    if parts.username is not None or parts.password is not None:
        raise AddressRefused("An address must not contain a user name or password.", field="url")
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    if (parts.hostname, port) not in _pairs(allowed_private_hosts):
        literal = _literal(parts.hostname)
        if parts.hostname == "localhost" or (literal is not None and not is_public(literal)):
            raise AddressRefused(f"{parts.hostname} is not a public address.", field="url")
    return url


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address belongs to the public Internet, IPv4 addresses inside IPv6 ones included."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.teredo is not None or address.is_site_local:
            return False
    return address.is_global and not address.is_multicast


def guarded_client(allowed_private_hosts: Iterable[str] = (), *, timeout_s: float = 10.0) -> httpx.AsyncClient:
    """An HTTP client for such addresses. ``timeout_s`` bounds each connect, read and write. Close it.

    A call raises ``AddressRefused``, or httpx's errors. Proxies of the environment are not used: they would
    resolve names themselves.
    """
    return httpx.AsyncClient(
        transport=_GuardedTransport(_pairs(allowed_private_hosts)),
        timeout=timeout_s,
        follow_redirects=True,
        max_redirects=_MAX_REDIRECTS,
        trust_env=False,
        # One client serves many tenants: what a server sets for one must not be sent for another.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        headers={"User-Agent": "Bailiwick"},
    )


async def fetch(
    client: httpx.AsyncClient, url: str, *, headers: Mapping[str, str], max_bytes: int, deadline_s: float
) -> Fetched:
    """GET an address, everything within ``deadline_s`` and ``max_bytes``.

    Raises ``AddressRefused``, ``PayloadTooLarge``, or ``Unavailable`` when it does not answer in time. The
    caller looks at the status.
    """
    try:
        async with asyncio.timeout(deadline_s), client.stream("GET", url, headers=dict(headers)) as response:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > max_bytes:
                    raise PayloadTooLarge(f"The answer has more than {max_bytes} bytes.", limit=max_bytes)
            return Fetched(response.status_code, response.headers, bytes(body))
    except TimeoutError as error:
        raise Unavailable(f"The server did not answer within {deadline_s:g} s.") from error
    except httpx.HTTPError as error:
        raise Unavailable(f"The server does not answer: {str(error) or type(error).__name__}") from error


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """What a Retry-After header asks for, in seconds from now, perhaps a part of one; None without a valid one."""
    value = headers.get("retry-after", "").strip()
    if len(value) < 10 and value.replace(".", "", 1).isdecimal():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max(0.0, (at - now).total_seconds())


class _GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to checked addresses only. TLS is verified against the name, as httpcore does by itself."""

    def __init__(self, allowed: frozenset[tuple[str, int]]) -> None:
        self._allowed = allowed
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self._resolve(host, port, timeout)
        if (host.lower(), port) not in self._allowed:
            for address in addresses:
                if not is_public(address):
                    raise AddressRefused(f"{host} is not a public address.")
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return await self._inner.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def _resolve(
        self, host: str, port: int, timeout: float | None
    ) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"{host} was not resolved in time") from error
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} is not known") from error
        return list(dict.fromkeys(ipaddress.ip_address(str(address[4][0]).partition("%")[0]) for address in found))


class _GuardedTransport(httpx.AsyncHTTPTransport):
    def __init__(self, allowed: frozenset[tuple[str, int]]) -> None:
        super().__init__(trust_env=False)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(trust_env=False),
            max_connections=100,
            max_keepalive_connections=20,
            keepalive_expiry=5.0,
            network_backend=_GuardedBackend(allowed),
        )


def _split(url: str) -> SplitResult | None:
    try:
        httpx.URL(url)
        parts = urlsplit(url)
        return parts if parts.port is None or parts.port > 0 else None
    except (ValueError, httpx.InvalidURL):
        return None


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _pairs(hosts: Iterable[str]) -> frozenset[tuple[str, int]]:
    pairs = set()
    for entry in hosts:
        name, _, port = entry.lower().rpartition(":")
        if not name or not port.isdigit():
            raise InvalidInput(f"An allowed private host is written as host:port, not {entry!r}.")
        pairs.add((name.strip("[]"), int(port)))
    return frozenset(pairs)

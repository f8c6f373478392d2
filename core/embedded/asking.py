"""Short questions to servers that may not be there. Whatever keeps them from answering is a ``ConnectionError``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus

import httpx

_TIMEOUT_S = 5.0


def reason(error: Exception) -> str:
    """Why a connection failed, in the system's words."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__


@asynccontextmanager
async def conversation(
    name: str, host: str | None, port: int, *, tls: ssl.SSLContext | None, timeout_s: float = _TIMEOUT_S
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection for the block, which must end within ``timeout_s``. ``name``: what the error calls the server."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port, ssl=tls)
            try:
                yield reader, writer
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        raise ConnectionError(f"{name} does not answer: {reason(error)}") from error


async def get(
    url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float = _TIMEOUT_S, proxies: bool = False
) -> httpx.Response:
    """The answer 200 to a GET; any other is a ``ConnectionError`` too. ``proxies``: by way of the environment's."""
    try:
        async with httpx.AsyncClient(timeout=timeout_s, headers=headers, trust_env=proxies) as http:
            response = await http.get(url)
    except httpx.HTTPError as error:
        raise ConnectionError(f"{url} does not answer: {reason(error)}") from error
    if response.status_code != HTTPStatus.OK:
        raise ConnectionError(f"{url} answers {response.status_code}: {response.text[:200]}")
    return response

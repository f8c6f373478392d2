"""A pool of connections to Redis that never makes its callers wait long for a server that is gone.

States: ``up`` → (a call cannot connect or times out) → ``down`` for half a second, in which every call fails
at once → the next call tries again. A connection that broke while idle is replaced within the same call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Self, TypeVar
from urllib.parse import urlsplit

import redis.asyncio as aioredis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from core.errors import Unavailable
from core.redis.keys import Keys

_TIMEOUT_S = 2.0
_DOWN_S = 0.5
_POOL_SIZE = 32

Result = TypeVar("Result")

LOST = (RedisError, OSError, TimeoutError)
"""What redis-py raises when the server is gone or refuses."""


class Connection:
    """The way to one Redis. Opening never fails: the server may come later."""

    def __init__(self, url: str, keys: Keys) -> None:
        self.keys = keys
        # Once more, at once: a pooled connection may have broken while nobody looked.
        self.client = _client(url, Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)))
        # A listening connection that redis-py silently remade would hide that messages were lost.
        self._listening = _client(url, Retry(NoBackoff(), 0))
        self._down_until = 0.0

    @classmethod
    def open(cls, url: str, *, region: str) -> Self:
        """``redis://`` or ``rediss://``; the path names the logical database."""
        path = urlsplit(url).path.strip("/")
        return cls(url, Keys(region, int(path) if path.isdigit() else 0))

    async def close(self) -> None:
        """Close every connection."""
        await self.client.aclose()
        await self._listening.aclose()

    def pubsub(self) -> PubSub:
        """A connection for listening, not connected yet. The caller closes it."""
        return self._listening.pubsub()

    async def call(self, command: Awaitable[Result]) -> Result:
        """Await one command. Raises ``Unavailable``, at once while the server is known to be gone."""
        now = asyncio.get_running_loop().time
        if now() < self._down_until:
            _discard(command)
            raise Unavailable("Redis does not answer.", retry_after_s=_DOWN_S)
        try:
            return await command
        except LOST as error:
            if isinstance(error, RedisConnectionError | RedisTimeoutError | OSError | TimeoutError):
                self._down_until = now() + _DOWN_S
            raise Unavailable(f"Redis does not answer: {error}", retry_after_s=_DOWN_S) from error

    async def answers(self) -> bool:
        """Whether the server answers now, asked within two seconds."""
        try:
            await self.call(self.client.ping())
        except Unavailable:
            return False
        return True


def _client(url: str, retry: Retry) -> aioredis.Redis:
    pool = aioredis.BlockingConnectionPool.from_url(
        url,
        max_connections=_POOL_SIZE,
        timeout=_TIMEOUT_S,
        socket_timeout=_TIMEOUT_S,
        socket_connect_timeout=_TIMEOUT_S,
        socket_keepalive=True,
        protocol=2,
        retry=retry,
    )
    return aioredis.Redis.from_pool(pool)


def _discard(command: Awaitable[object]) -> None:
    # A coroutine that is never awaited warns; this one was made for a server we know is gone.
    close = getattr(command, "close", None)
    if close is not None:
        close()

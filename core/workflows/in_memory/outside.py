"""The outside world in memory: rate limits (see ``core.redis.limits``) and external services."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime, timedelta

import httpx

from core.blobs.model import Blob, BlobRef, reference
from core.errors import InvalidInput, NotFound
from core.tenancy import RateLimit, TenantContext
from core.workflows.step import Rooms

Handler = Callable[[httpx.Request], httpx.Response] | Callable[[httpx.Request], Coroutine[None, None, httpx.Response]]


class WindowsInMemory:
    """Rate limits: the times of the calls that were made, or promised to those who wait."""

    def __init__(self) -> None:
        self._made: dict[str, list[datetime]] = {}
        self._promised: dict[str, dict[str | None, datetime]] = {}

    async def take(
        self,
        ctx: TenantContext,  # noqa: ARG002 - there is one tenant
        name: str,
        rate: RateLimit,
        now: datetime,
        *,
        holder: str | None = None,
    ) -> float:
        """0.0: the call is to be made now, else the seconds after which to ask again."""
        made, promised = self._made.setdefault(name, []), self._promised.setdefault(name, {})
        told = promised.pop(holder, None)
        times = sorted((*made, *promised.values()))
        free = now if len(times) < rate.limit else max(now, times[-rate.limit] + timedelta(seconds=rate.window_s))
        if told is not None and told >= now:
            free = told
        if free <= now:
            made.append(now)
        elif holder is not None:
            promised[holder] = free
        return (free - now).total_seconds()


class BlobsInMemory:
    """Large payloads; see ``core.blobs.service``."""

    def __init__(self) -> None:
        self._kept: dict[str, Blob] = {}

    async def put(self, ctx: TenantContext, content: bytes, media_type: str) -> BlobRef:  # noqa: ARG002 - one tenant
        """Keep content; how to refer to it."""
        ref = reference(content, media_type)
        return self._kept.setdefault(ref.blob_id, Blob(ref, content)).ref

    async def get(self, ctx: TenantContext, blob_id: str) -> Blob:  # noqa: ARG002 - there is one tenant
        """A blob and its content. Raises ``NotFound``."""
        if blob_id not in self._kept:
            raise NotFound("There is no such blob.")
        return self._kept[blob_id]


class ServicesInMemory:
    """External services, each a function from request to response."""

    def __init__(self, handlers: Mapping[str, Handler], rooms: Rooms | None) -> None:
        self._rooms = rooms
        self.blobs = BlobsInMemory()
        self._clients = {
            name: httpx.AsyncClient(transport=httpx.MockTransport(handler), base_url=f"http://{name}.test")
            for name, handler in handlers.items()
        }

    @property
    def rooms(self) -> Rooms:
        """What the test gave as the platform's own rooms. Raises ``InvalidInput`` when it gave none."""
        if self._rooms is None:
            raise InvalidInput("A step uses the platform's own rooms: give them as in_memory(..., rooms=...).")
        return self._rooms

    def client(self, service: str) -> httpx.AsyncClient:
        """The client of a service. Raises ``InvalidInput`` when the test gave none of that name."""
        if service not in self._clients:
            raise InvalidInput(f"A step calls {service}: give it as in_memory(..., services={{{service!r}: ...}}).")
        return self._clients[service]

    async def close(self) -> None:
        """Close every client."""
        for client in self._clients.values():
            await client.aclose()

"""The outside world in memory: rate limits (see ``core.redis.limits``) and external services."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime, timedelta

import httpx

from core.blobs.model import Blob, BlobRef, reference
from core.clock import FakeClock
from core.errors import InvalidInput, NotFound
from core.ids import TenantId
from core.tenancy import RateLimit, TenantContext
from core.workflows.services import Guard, Service
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
        self._clock: FakeClock | None = None
        self._services = {
            name: Service(name, httpx.MockTransport(handler), self._now_s) for name, handler in handlers.items()
        }

    def keep_time(self, clock: FakeClock) -> None:
        """Services recover by this clock."""
        self._clock = clock

    @property
    def rooms(self) -> Rooms:
        """What the test gave as the platform's own rooms. Raises ``InvalidInput`` when it gave none."""
        if self._rooms is None:
            raise InvalidInput("A step uses the platform's own rooms: give them as in_memory(..., rooms=...).")
        return self._rooms

    def client(self, service: str, tenant: TenantId) -> httpx.AsyncClient:
        """The client of a service. Raises ``InvalidInput`` when the test gave none of that name."""
        if service not in self._services:
            raise InvalidInput(f"A step calls {service}: give it as in_memory(..., services={{{service!r}: ...}}).")
        return httpx.AsyncClient(base_url=f"http://{service}.test", transport=Guard(self._services[service], tenant))

    def opens_in_s(self, service: str, tenant: TenantId) -> float:
        """Seconds until a service may be called again."""
        return self._services[service].opens_in_s(tenant) if service in self._services else 0.0

    async def close(self) -> None:
        """Close every service."""
        for service in self._services.values():
            await service.transport.aclose()

    def _now_s(self) -> float:
        return 0.0 if self._clock is None else self._clock.now().timestamp()

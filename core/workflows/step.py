"""What a step function receives besides its argument."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from core.blobs.model import Blob, BlobRef
from core.ids import RunId, TenantId
from core.ports import MemoryPort
from core.reviews.service import ReviewService
from core.runs.service import RunService
from core.tenancy import TenantContext
from core.workflows.meter import StepMeter


@dataclass(frozen=True, slots=True)
class Rooms:
    """What the platform itself lends to steps. Each method takes ``step.tenant`` first, and sees no other tenant."""

    runs: RunService
    reviews: ReviewService
    memory: MemoryPort


class Blobs(Protocol):
    """Large payloads by reference; see ``core.blobs.service.BlobService``."""

    async def put(self, ctx: TenantContext, content: bytes, media_type: str) -> BlobRef:
        """Keep content."""
        ...

    async def get(self, ctx: TenantContext, blob_id: str) -> Blob:
        """A blob and its content."""
        ...


class Lent(Protocol):
    """What a step function may use."""

    @property
    def blobs(self) -> Blobs:
        """Large payloads."""
        ...

    @property
    def rooms(self) -> Rooms:
        """The platform's own rooms."""
        ...

    def client(self, service: str, tenant: TenantId) -> httpx.AsyncClient:
        """A tenant's client of an external service."""
        ...

    def opens_in_s(self, service: str, tenant: TenantId) -> float:
        """Seconds until the tenant may call a service again."""
        ...


def _unheard(step: int, attempt: int, said: Any) -> None:
    """Nobody looks on."""


@dataclass(frozen=True, slots=True)
class Step:
    """One attempt of a step.

    ``idempotency_key`` is the same in every attempt of the step: give it to whatever has an effect, because
    after a crash the step may be executed again. ``degraded``: the budget runs low and a cheaper way is asked for.
    ``redone``: how often it was done before, and people wanted it done again.
    """

    run_id: RunId
    number: int
    attempt: int
    tenant: TenantContext
    services: Lent
    meter: StepMeter
    teller: Callable[[int, int, Any], None] = _unheard
    degraded: bool = False
    redone: int = 0

    def emit(self, said: Any) -> None:
        """Let whoever looks on hear something now: a piece of text, or a JSON value of at most 8 KiB.

        It becomes an event of the run, after at most 50 ms (250 ms in a long talk). Pieces of text are put together;
        of one attempt 256 KiB are kept, for a week. A crash may lose the last moment. Raises ``InvalidInput``.
        """
        self.teller(self.number, self.attempt, said)

    def charge(self, microusd: int) -> None:
        """Say what this attempt spends, besides model calls. A step that says nothing costs its estimate."""
        self.meter.charge(microusd)

    @property
    def idempotency_key(self) -> str:
        """Unique to this step of this run; another one when people want a step that was done to be done again."""
        return f"{self.run_id}/{self.number}" + (f"/{self.redone}" if self.redone else "")

    def http(self, service: str) -> httpx.AsyncClient:
        """The client of an external service: base address and timeouts are set.

        A call raises ``EndpointDown`` while the service does not answer: leave it to the run, which waits.
        """
        return self.services.client(service, self.tenant.tenant_id)

    async def keep(self, content: bytes, media_type: str) -> BlobRef:
        """Keep what is too large for a result (256 KiB), up to 16 MiB; return the reference instead.

        The same content is kept once, however often the step is tried. Raises ``InvalidInput``, ``PayloadTooLarge``
        and ``QuotaExceeded``.
        """
        return await self.services.blobs.put(self.tenant, content, media_type)

    async def read(self, ref: BlobRef) -> bytes:
        """What a reference refers to. Raises ``NotFound`` for a blob that the tenant does not have (any more)."""
        return (await self.services.blobs.get(self.tenant, ref.blob_id)).content

    @property
    def rooms(self) -> Rooms:
        """Runs and reviews of the step's tenant."""
        return self.services.rooms

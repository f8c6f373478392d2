"""Who pays for a model call: asked before it, told after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from core.tenancy import TenantContext
from core.usage.service import UsageService


@dataclass(frozen=True, slots=True)
class ModelCall:
    """A finished model call: what it cost and where it was answered."""

    model: str
    tokens_in: int
    tokens_out: int
    cost_microusd: int
    endpoint: str
    region: str
    fingerprint: str | None
    latency_s: float


class Meter(Protocol):
    """Pays for the model calls of one purpose. Calls of one meter may overlap."""

    async def before(self, estimate_microusd: int) -> None:
        """Promise the estimate. Raises ``BudgetExceeded``: then the call must not be made."""
        ...

    async def after(self, call: ModelCall) -> None:
        """The call was answered: replace the promise by its cost."""
        ...

    async def failed(self) -> None:
        """The call failed: give the promise back."""
        ...


class LedgerMeter:
    """Reserves and settles every call on its own under ``prefix/1``, ``prefix/2`` …, in order of its calls.

    For callers that make one call at a time (a chat turn, an extraction). ``prefix`` must be unique to the
    turn: a prefix used before is taken for paid.
    """

    def __init__(self, usage: UsageService, ctx: TenantContext, prefix: str, run_id: str | None = None) -> None:
        self._usage = usage
        self._ctx = ctx
        self._prefix = prefix
        self._run_id = run_id
        self._count = 0

    async def before(self, estimate_microusd: int) -> None:
        """Promise the estimate. Raises ``BudgetExceeded``."""
        self._count += 1
        await self._usage.reserve(self._ctx, self._key(), estimate_microusd, run_id=self._run_id)

    async def after(self, call: ModelCall) -> None:
        """Settle what the call cost."""
        await self._usage.settle(self._ctx, self._key(), call.cost_microusd, call.model)

    async def failed(self) -> None:
        """Settle at nothing."""
        await self._usage.settle(self._ctx, self._key(), 0)

    def _key(self) -> str:
        return f"{self._prefix}/{self._count}"

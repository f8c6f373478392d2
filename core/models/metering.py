"""What one tenant's model calls may spend, did spend, and leave in the audit.

A call goes: ``open`` (money reserved) → ``charge`` (counted here, at once) → ``write`` (settled in the ledger
and written to the audit, one transaction), or ``open`` → ``fail`` (reservation given back, audited). A refusal
is audited, too. If the process dies in between, the reservation stands until it is abandoned.

Two ways to pay. Without ``covered_microusd`` each call reserves in the ledger for itself. With it the caller
(a step of a run) already holds a reservation of that size: calls are kept inside it, or ``cover_more`` reserves what
is lacking, and ``spent_microusd`` tells what the step has to settle.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from core.audit.service import AuditService
from core.clock import Clock
from core.db.pool import Database
from core.errors import BailiwickError, BudgetExceeded
from core.ids import RunId, TenantId, new_id
from core.models.metrics import ModelMetrics
from core.models.model import Endpoint, Tokens, price_of
from core.models.observation import Observed
from core.tenancy import TenantContext
from core.usage.model import format_usd
from core.usage.service import UsageService


@dataclass(frozen=True, slots=True)
class Books:
    """Where calls are written down; one per process."""

    db: Database
    usage: UsageService
    audit: AuditService
    clock: Clock
    metrics: ModelMetrics


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A call for which money is reserved."""

    key: str
    model: str
    prompt_sha256: str
    estimate_microusd: int
    started_s: float


@dataclass(frozen=True, slots=True)
class Charged:
    """A call that is over and counted, to be written down."""

    call: OpenCall
    cost_microusd: int
    facts: dict[str, Any]


class Meter:
    """The calls of one tenant for one purpose."""

    def __init__(
        self,
        books: Books,
        ctx: TenantContext,
        purpose: str,
        run_id: RunId | None,
        covered_microusd: int | None,
        cover_more: Callable[[int], Awaitable[None]] | None,
        step: tuple[int, int] | None,
    ) -> None:
        self._books = books
        self._ctx = ctx
        self._purpose = purpose
        self._run_id = run_id
        self._covered = covered_microusd
        self._cover_more = cover_more
        self._of = {"run_id": run_id} | ({} if step is None else {"step": step[0], "attempt": step[1]})
        self._covering = asyncio.Lock()
        self._open_microusd = 0
        self.spent_microusd = 0
        """Cost of all calls so far, aborted ones included."""

    @property
    def tenant_id(self) -> TenantId:
        """Whose calls these are."""
        return self._ctx.tenant_id

    async def open(self, model: str, prompt_sha256: str, estimate_microusd: int) -> OpenCall:
        """Reserve money for a call. Raises ``BudgetExceeded``; nothing was sent then."""
        key = new_id("model", self._books.clock.now())
        try:
            if self._covered is None:
                await self._books.usage.reserve(self._ctx, key, estimate_microusd, run_id=self._run_id)
                self._open_microusd += estimate_microusd
            else:
                async with self._covering:  # one call after the other, or two would be covered by the same money
                    self._covered = await self._covering_also(self._covered, estimate_microusd)
                    self._open_microusd += estimate_microusd
        except BudgetExceeded as refused:
            await self.refuse(refused, model, prompt_sha256)
            raise
        return OpenCall(key, model, prompt_sha256, estimate_microusd, time.monotonic())

    def charge(
        self, call: OpenCall, endpoint: Endpoint, seen: Observed, tokens: Tokens, outcome: str, output_sha256: str
    ) -> Charged:
        """Count what a call used, so that ``spent_microusd`` is right from here on."""
        price = price_of(call.model, tokens, self._books.clock.now())
        self._open_microusd -= call.estimate_microusd
        self.spent_microusd += price.microusd
        self._count(call, endpoint, tokens, price.microusd, outcome)
        facts = {
            "model": seen.model or call.model,
            "fingerprint": seen.fingerprint,
            "endpoint": endpoint.name,
            "region": endpoint.region,
            "input_tokens": tokens.input,
            "output_tokens": tokens.output,
            "cost_microusd": price.microusd,
            "price_known": price.known,
            "outcome": outcome,
            "output_sha256": output_sha256,
            "duration_ms": round((time.monotonic() - call.started_s) * 1000),
        }
        return Charged(call, price.microusd, facts)

    async def write(self, charged: Charged) -> None:
        """Settle a call in the ledger, and write to the audit who answered what to whom, the content by hash."""
        await self._write("model.call", charged.call, charged.facts, charged.cost_microusd)

    async def fail(self, call: OpenCall, problem: str) -> None:
        """Give a reservation back: no endpoint answered."""
        self._open_microusd -= call.estimate_microusd
        self._books.metrics.calls.labels(self._ctx.tenant_id, self._purpose, call.model, "none", problem).inc()
        await self._write("model.failed", call, {"problem": problem}, 0)

    async def refuse(self, refused: BailiwickError, model: str, prompt_sha256: str) -> None:
        """Record that a call was refused before anything was sent or reserved."""
        self._books.metrics.calls.labels(self._ctx.tenant_id, self._purpose, model, "none", refused.code).inc()
        details = self._facts(prompt_sha256) | {"code": refused.code, "message": refused.message}
        await self._books.audit.append(self._ctx, "model.refused", f"model:{model}", after=details)

    def count_cache(self, result: str) -> None:
        """A look-up in the cache: hit or miss."""
        self._books.metrics.cache.labels(self._ctx.tenant_id, result).inc()

    async def remembered(self, model: str, prompt_sha256: str, output_sha256: str) -> None:
        """Record that an earlier answer was given again."""
        facts = self._facts(prompt_sha256) | {"output_sha256": output_sha256}
        await self._books.audit.append(self._ctx, "model.cached", f"model:{model}", after=facts)

    async def _covering_also(self, covered_microusd: int, estimate_microusd: int) -> int:
        """What the step has reserved, with one more call. Raises ``BudgetExceeded``."""
        left = covered_microusd - self.spent_microusd - self._open_microusd
        if estimate_microusd <= left:
            return covered_microusd
        if self._cover_more is None:
            raise BudgetExceeded(
                f"The step's estimate leaves {format_usd(max(0, left))}; the next model call may need "
                f"{format_usd(estimate_microusd)}.",
                account="step",
                needed_microusd=estimate_microusd,
                limit_microusd=covered_microusd,
            )
        await self._cover_more(estimate_microusd - left)
        return covered_microusd + estimate_microusd - left

    async def _write(self, act: str, call: OpenCall, told: dict[str, Any], cost_microusd: int) -> None:
        facts = self._facts(call.prompt_sha256) | told
        async with self._books.db.tenant_transaction(self._ctx) as tx:
            if self._covered is None:
                await self._books.usage.settle_in(tx, call.key, cost_microusd, call.model)
            await self._books.audit.record(tx, self._ctx, act, f"model:{call.model}", after=facts)

    def _facts(self, prompt_sha256: str) -> dict[str, Any]:
        return {"purpose": self._purpose, **self._of, "prompt_sha256": prompt_sha256}

    def _count(self, call: OpenCall, endpoint: Endpoint, tokens: Tokens, cost_microusd: int, outcome: str) -> None:
        metrics, labels = self._books.metrics, (self._ctx.tenant_id, self._purpose, call.model, endpoint.name)
        metrics.calls.labels(*labels, outcome).inc()
        metrics.tokens.labels(*labels, "in").inc(tokens.input)
        metrics.tokens.labels(*labels, "out").inc(tokens.output)
        metrics.cost.labels(*labels).inc(cost_microusd)
        metrics.seconds.labels(call.model, endpoint.name).observe(time.monotonic() - call.started_s)

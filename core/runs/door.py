"""The door of the queue: asks what ``core.runs.admission`` needs to know, and refuses what it says to refuse."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from core.db.pool import Transaction
from core.errors import BudgetExceeded
from core.queue.service import RATE_OVER, QueueService
from core.runs import store
from core.runs.admission import Limit, Load, Refusal, judge, refused
from core.runs.model import Lane
from core.tenancy import TenantContext
from core.usage.model import next_month
from core.usage.service import UsageService


class Door:
    """Admission of one process. ``platform_limit``: runs that may be queued on the whole platform."""

    def __init__(self, queue: QueueService, usage: UsageService, platform_limit: int) -> None:
        self._queue = queue
        self._usage = usage
        self._platform_limit = platform_limit

    async def admit_in(
        self, tx: Transaction, ctx: TenantContext, lane: Lane, count: int, now: datetime, *, of_a_run: bool = False
    ) -> store.QueueRow:
        """Count ``count`` more runs to the tenant's day, in the caller's transaction; the lowest is in ``lane``.

        ``of_a_run``: they are children of a run that executes, without which it cannot end, so draining lets them in.

        Returns how the tenant stands in the queue.

        Raises ``BudgetExceeded``, ``QuotaExceeded``, ``Draining`` or ``Overloaded``: the transaction must end without
        a commit then.
        """
        balance = await self._usage.balance_in(tx, ctx)
        if balance.left_microusd <= 0:
            # What is only promised to steps may come back any moment; what is spent does not.
            spent = balance.spent_microusd >= balance.limit_microusd
            begins = next_month(now, ctx.policy.timezone)
            raise BudgetExceeded(
                "The month's budget is used up. Ask the operator to raise it, or wait for the next month.",
                retry_after_s=(begins - now).total_seconds() if spent else None,
                account="month",
                limit_microusd=balance.limit_microusd,
            )
        today = now.astimezone(ZoneInfo(ctx.policy.timezone)).date()
        admitted, tenant = await store.admitted(tx, today, count)
        load = Load(
            admitted_today=admitted,
            tenant_queued=tenant.queued,
            platform_queued=await self._queue.depth_in(tx),
            platform_limit=self._platform_limit,
            draining=tenant.draining and not of_a_run,
            open_runs=0 if ctx.policy.open_runs is None else await store.open_runs(tx, ctx.policy.open_runs),
        )
        refusal = judge(ctx.policy, lane, count, load)
        if refusal is not None:
            left_per_s = await self._left_per_s(tx, refusal, now) if refusal.by_rate else 0.0
            raise refused(refusal, ctx.policy, lane, count, load, now, left_per_s)
        self._queue.admitted(count)
        return tenant

    async def _left_per_s(self, tx: Transaction, refusal: Refusal, now: datetime) -> float:
        """Runs that left what is full per second, lately."""
        if refusal.of_platform:
            return await self._queue.platform_starts_per_s_in(tx)
        if refusal.limit is Limit.OPEN_RUNS:
            return await store.ended_since(tx, now - RATE_OVER) / RATE_OVER.total_seconds()
        return await self._queue.starts_per_s_in(tx)

"""Money before work: reserve an estimate, work, settle once.

A key goes ``(none)`` → ``reserved`` → ``settled``. Reserving the same key again does nothing, settling it
again does nothing, so a retried step neither double-charges nor pays twice. A crash between the two leaves
the reservation standing: the next attempt abandons it (settles it at 0) before it reserves its own; one that
has no next attempt is released after a while.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from core.clock import Clock
from core.db.pool import Database, Transaction
from core.tenancy import Scope, TenantContext
from core.usage import store
from core.usage.ladder import Accounts
from core.usage.model import (
    ENOUGH,
    PARENT,
    Balance,
    NewLimit,
    Overrun,
    StepCost,
    check_limit,
    check_limits,
    estimate_of,
    month_of,
    not_covered,
)

_BATCH = 500


class UsageService:
    """The ledger of one installation."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def reserve(
        self,
        ctx: TenantContext,
        key: str,
        amount_microusd: int,
        *,
        run_id: str | None = None,
        run_limit_microusd: int | None = None,
    ) -> None:
        """Promise ``amount_microusd`` under ``key``, in a transaction of its own; see ``reserve_in``."""
        async with self._db.tenant_transaction(ctx) as tx:
            await self.reserve_in(tx, ctx, key, amount_microusd, run_id=run_id, run_limit_microusd=run_limit_microusd)

    async def reserve_in(
        self,
        tx: Transaction,
        ctx: TenantContext,
        key: str,
        amount_microusd: int,
        *,
        run_id: str | None = None,
        run_limit_microusd: int | None = None,
        beyond: bool = False,
    ) -> None:
        """Promise money in the caller's transaction.

        The limit of a run is its own budget, fixed at its first reservation; ``run_limit_microusd`` (default: the
        policy's) is that of a run that does not exist. What a child run promises is promised by the runs above it,
        too. The limit of the month is the policy's. Raises ``BudgetExceeded`` with ``account`` = ``run``, ``parent``
        (a run above it) or ``month`` and promises nothing; never with ``beyond``, for what must be paid in any case.
        """
        _check(amount_microusd)
        now = self._clock.now()
        policy = ctx.policy
        limit = policy.budget_run_microusd if run_limit_microusd is None else run_limit_microusd
        lacking = await store.reserve(
            tx,
            key,
            run_id,
            month_of(now, policy.timezone),
            amount_microusd,
            limit,
            policy.budget_month_microusd,
            now,
            beyond=beyond,
        )
        if lacking != "ok":
            whole = policy.budget_month_microusd if lacking == "month" else limit
            above = await store.tightest_above(tx, run_id) if lacking == PARENT else None
            raise not_covered(lacking, whole if above is None else above.limit_microusd, amount_microusd)

    async def overrun_in(self, tx: Transaction, ctx: TenantContext, run_id: str) -> Overrun | None:
        """By how much the run's account is overrun, else that of a run above it, else the month's; None: none is."""
        return await store.overrun(tx, run_id, month_of(self._clock.now(), ctx.policy.timezone))

    async def settle(self, ctx: TenantContext, key: str, amount_microusd: int, model: str | None = None) -> bool:
        """Replace the promise under ``key`` by what was spent; False when it was settled before."""
        async with self._db.tenant_transaction(ctx) as tx:
            return await self.settle_in(tx, key, amount_microusd, model)

    async def settle_in(self, tx: Transaction, key: str, amount_microusd: int, model: str | None = None) -> bool:
        """Settle in the caller's transaction, so that a result and its cost are recorded together."""
        _check(amount_microusd)
        return await store.settle(tx, key, amount_microusd, model, self._clock.now())

    async def settle_step_in(
        self,
        tx: Transaction,
        key: str,
        amount_microusd: int,
        model: str | None,
        *,
        run_id: str,
        step: int,
        attempt: int,
        learn: bool,
    ) -> None:
        """Settle an attempt of a step, once, in the caller's transaction: ``key``, and what was reserved later under
        keys that begin with it and a stroke. ``learn``: estimates go by what it cost."""
        _check(amount_microusd)
        now = self._clock.now()
        await store.settle_step(
            tx, key, amount_microusd, model, now, run_id=run_id, step=step, attempt=attempt, learn=learn
        )

    async def estimate(self, ctx: TenantContext, workflow: str, step: str) -> int:
        """What a step will probably not exceed: the 95th percentile of what it has cost this tenant, else anybody, else
        a declared amount."""
        async with self._db.tenant_transaction(ctx) as tx:
            return estimate_of(await store.estimate(tx, workflow, step, ENOUGH))

    async def step_costs(self, ctx: TenantContext, tenant_id: str | None = None, limit: int = 200) -> list[StepCost]:
        """What steps have cost and how good their estimates were, those that ended most often first, at most 1,000.

        A tenant's own; for operators those of one tenant, or of all. Needs ``tenant:read`` or ``platform:operate``.
        """
        everybody = Scope.PLATFORM_OPERATE in ctx.scopes
        if not everybody:
            ctx.require(Scope.TENANT_READ)
        async with self._db.tenant_transaction(ctx) as tx:
            return await store.step_costs(tx, tenant_id, max(1, min(limit, 1_000)), everybody=everybody)

    async def abandon(self, ctx: TenantContext, prefix: str) -> int:
        """Give back what was promised under keys beginning with ``prefix`` and never settled."""
        async with self._db.tenant_transaction(ctx) as tx:
            return await store.abandon(tx, prefix, self._clock.now())

    async def release_forsaken(self, older_than_s: float) -> int:
        """Give back what was promised longer ago than this and will not be settled; how many promises, of all tenants.

        Such is what a process that died had promised outside of any run, or in a run that has ended. A promise
        that is settled later all the same is not charged, so ``older_than_s`` is longer than any call takes.
        """
        now = self._clock.now()
        before = now - timedelta(seconds=older_than_s)
        return await self._db.in_batches(lambda tx: store.release_forsaken(tx, before, _BATCH, now), _BATCH)

    async def cover(self, ctx: TenantContext, run_id: str, limit_microusd: int, amount_microusd: int) -> None:
        """Somebody agreed to pay: the run's limit (at first ``limit_microusd``) now covers this amount more."""
        async with self._db.tenant_transaction(ctx) as tx:
            await store.cover(tx, run_id, limit_microusd, amount_microusd)

    async def set_limit_in(
        self, tx: Transaction, ctx: TenantContext, run_id: str, limit_microusd: int
    ) -> list[NewLimit]:
        """Somebody says what a run may spend in all; the runs above it cover what it may spend more.

        What that changed, from the root of the family down; empty: there is no such run. Raises ``InvalidInput`` for
        less than is spent or promised, and for more than the policy allows: the transaction must end without a commit.
        """
        check_limit(limit_microusd)
        changed = await store.set_limit(tx, run_id, limit_microusd)
        check_limits(changed, ctx.policy.budget_run_microusd)
        return changed

    async def balance(self, ctx: TenantContext, run_id: str | None = None) -> Balance:
        """The account of a run, or of the current month."""
        async with self._db.tenant_transaction(ctx) as tx:
            return await self.balance_in(tx, ctx, run_id)

    async def accounts(self, ctx: TenantContext, run_id: str, limit_microusd: int) -> Accounts:
        """What a run may spend from: its own account (at first ``limit_microusd``), or that of a run above it which has
        less left, and the month's."""
        async with self._db.tenant_transaction(ctx) as tx:
            own = await self.balance_in(tx, ctx, run_id, run_limit_microusd=limit_microusd)
            above = await store.tightest_above(tx, run_id) or own
            tightest = min(own, above, key=lambda balance: balance.left_microusd)
            return Accounts(tightest, await self.balance_in(tx, ctx))

    async def balance_in(
        self, tx: Transaction, ctx: TenantContext, run_id: str | None = None, *, run_limit_microusd: int | None = None
    ) -> Balance:
        """The same, in the caller's transaction. ``run_limit_microusd``: of a run that never reserved anything."""
        policy = ctx.policy
        account = f"run:{run_id}" if run_id else f"month:{month_of(self._clock.now(), policy.timezone)}"
        found = await store.balance(tx, account)
        if run_id:
            limit = policy.budget_run_microusd if run_limit_microusd is None else run_limit_microusd
            return found or Balance(limit, 0, 0)
        # The account has the limit of the last reservation; the policy may have changed since.
        return replace(found or Balance(0, 0, 0), limit_microusd=policy.budget_month_microusd)

    async def abandon_in(self, tx: Transaction, prefix: str) -> int:
        """Give back, in the caller's transaction, what was promised under these keys and never settled."""
        return await store.abandon(tx, prefix, self._clock.now())


def _check(amount_microusd: int) -> None:
    if amount_microusd < 0:
        raise ValueError("An amount cannot be negative.")

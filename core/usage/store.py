"""Rows of the ledger and of the budget accounts."""

from __future__ import annotations

from datetime import datetime

from core.db.pool import Transaction
from core.db.queries import load_queries
from core.usage.model import Balance, NewLimit, Overrun, StepCost

SQL = load_queries(__file__)


async def reserve(
    tx: Transaction,
    key: str,
    run_id: str | None,
    month: str,
    amount_microusd: int,
    run_limit_microusd: int,
    month_limit_microusd: int,
    now: datetime,
    *,
    beyond: bool,
) -> str:
    """Promise money, ``beyond`` limits if need be; ``ok``, or who lacks it: ``run``, ``parent``, ``month``."""
    answer: str = await tx.fetchval(
        SQL["reserve"], key, run_id, month, amount_microusd, run_limit_microusd, month_limit_microusd, beyond, now
    )
    return answer


async def overrun(tx: Transaction, run_id: str, month: str) -> Overrun | None:
    """By how much an account of a run is beyond its limit; None: none is."""
    row = await tx.fetchrow(SQL["overrun"], run_id, month)
    return None if row is None else Overrun(**row)


async def tightest_above(tx: Transaction, run_id: str | None) -> Balance | None:
    """The account that has the least left of the runs above this one; None: there are none, or none was opened."""
    row = await tx.fetchrow(SQL["tightest_above"], run_id)
    return None if row is None else Balance(row["limit_microusd"], row["reserved_microusd"], row["spent_microusd"])


async def settle(tx: Transaction, key: str, amount_microusd: int, model: str | None, now: datetime) -> bool:
    """Replace a promise by the real amount, once."""
    return bool(await tx.fetchval(SQL["settle"], key, amount_microusd, model, now))


async def abandon(tx: Transaction, prefix: str, now: datetime) -> int:
    """Settle at 0 every open promise whose key begins with ``prefix``."""
    return int(await tx.fetchval(SQL["abandon"], prefix, now))


async def release_forsaken(tx: Transaction, before: datetime, limit: int, now: datetime) -> int:
    """Settle at 0 promises of all tenants that are older and whose run, if any, has ended; at most ``limit``."""
    return int(await tx.fetchval(SQL["release_forsaken"], before, limit, now))


async def balance(tx: Transaction, account: str) -> Balance | None:
    """One account, None when nothing was ever reserved on it."""
    row = await tx.fetchrow(SQL["balance"], account)
    return None if row is None else Balance(row["limit_microusd"], row["reserved_microusd"], row["spent_microusd"])


async def cover(tx: Transaction, run_id: str, limit_microusd: int, amount_microusd: int) -> None:
    """Make a run's account cover an amount more."""
    await tx.execute(SQL["cover"], run_id, limit_microusd, amount_microusd)


async def set_limit(tx: Transaction, run_id: str, limit_microusd: int) -> list[NewLimit]:
    """Say what a run may spend in all; what that changed, from the root of its family down."""
    return [NewLimit(**row) for row in await tx.fetch(SQL["set_limit"], run_id, limit_microusd)]


async def settle_step(
    tx: Transaction,
    key: str,
    amount_microusd: int,
    model: str | None,
    now: datetime,
    *,
    run_id: str,
    step: int,
    attempt: int,
    learn: bool,
) -> None:
    """Settle all that an attempt of a step reserved, once, and keep what it cost."""
    await tx.execute(SQL["settle_step"], key, amount_microusd, model, now, run_id, step, attempt, learn)


async def estimate(tx: Transaction, workflow: str, step: str, enough: int) -> int | None:
    """The 95th percentile of what a step has cost; None while fewer than ``enough`` of its ends are known."""
    found: int | None = await tx.fetchval(SQL["estimate"], workflow, step, enough)
    return found


async def step_costs(tx: Transaction, tenant_id: str | None, limit: int, *, everybody: bool) -> list[StepCost]:
    """What steps have cost, those that ended most often first."""
    name = "op_step_costs" if everybody else "step_costs"
    return [StepCost(**row) for row in await tx.fetch(SQL[name], tenant_id, limit)]

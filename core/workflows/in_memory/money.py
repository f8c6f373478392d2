"""Accounts in memory; see ``core.usage.service``."""

from __future__ import annotations

import math
from dataclasses import replace

from core.clock import FakeClock
from core.runs.execution import Executing
from core.tenancy import TenantContext
from core.usage.ladder import Accounts
from core.usage.model import ENOUGH, Balance, estimate_of, month_of, not_covered

_REMEMBERED = 64


class MoneyInMemory:
    """The accounts of the runs and of the months."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._accounts: dict[str, Balance] = {}
        self._costs: dict[str, list[int]] = {}
        self._reserved: dict[str, tuple[tuple[str, ...], int]] = {}
        self._above: dict[str, tuple[tuple[str, int], ...]] = {}

    def above(self, run_id: str) -> tuple[tuple[str, int], ...]:
        """The runs above a run, from the root of the family down, and the budget of each."""
        return self._above.get(run_id, ())

    def hang(self, run_id: str, under: Executing) -> None:
        """A run was spawned by another."""
        self._above[run_id] = (*self.above(under.run_id), (under.run_id, under.budget_microusd))

    def reserve(self, on: Executing, key: str, amount: int, *, beyond: bool = False) -> None:
        """Promise money of the month, the run and those above it. Raises ``BudgetExceeded``, unless ``beyond``."""
        policy = on.ctx.policy
        month = f"month:{month_of(self._clock.now(), policy.timezone)}"
        known = self._accounts.get(month, Balance(0, 0, 0))
        self._accounts[month] = replace(known, limit_microusd=policy.budget_month_microusd)
        lenders = [("month", month)]
        for run_id, budget in (*self.above(on.run_id), (on.run_id, on.budget_microusd)):
            self._accounts.setdefault(f"run:{run_id}", Balance(budget, 0, 0))
            lenders.append(("run" if run_id == on.run_id else "parent", f"run:{run_id}"))
        for name, account in lenders:
            if self._accounts[account].left_microusd < amount and not beyond:
                limit = on.budget_microusd if name == "run" else self._accounts[account].limit_microusd
                limit = policy.budget_month_microusd if name == "month" else limit
                raise not_covered(name, limit, amount)
        accounts = tuple(account for _, account in lenders)
        self._reserved[key] = (accounts, amount)
        self._add(accounts, reserved=amount)

    def settle(self, key: str, spent: int) -> None:
        """Replace the promise, and what was promised later under keys that begin with it, by what was spent."""
        accounts, amount = self._reserved.pop(key)
        self._add(accounts, reserved=-amount, spent=spent)
        for part in [each for each in self._reserved if each.startswith(f"{key}/")]:
            accounts, amount = self._reserved.pop(part)
            self._add(accounts, reserved=-amount)

    def learn(self, step: str, cost: int) -> None:
        """A step of this name has cost so much."""
        self._costs.setdefault(step, []).append(cost)

    async def estimate(self, ctx: TenantContext, workflow: str, step: str) -> int:  # noqa: ARG002 - by the step's name
        """The 95th percentile of what the step has cost."""
        costs = sorted(self._costs.get(step, [])[-_REMEMBERED:])
        return estimate_of(costs[math.ceil(0.95 * len(costs)) - 1] if len(costs) >= ENOUGH else None)

    def _add(self, accounts: tuple[str, ...], *, reserved: int, spent: int = 0) -> None:
        for account in accounts:
            now = self._accounts[account]
            self._accounts[account] = replace(
                now,
                reserved_microusd=now.reserved_microusd + reserved,
                spent_microusd=now.spent_microusd + spent,
            )

    async def balance(
        self, ctx: TenantContext, run_id: str | None = None, *, run_limit_microusd: int | None = None
    ) -> Balance:
        """The account of a run, or of the current month."""
        if run_id:
            limit = ctx.policy.budget_run_microusd if run_limit_microusd is None else run_limit_microusd
            return self._accounts.get(f"run:{run_id}", Balance(limit, 0, 0))
        month = month_of(self._clock.now(), ctx.policy.timezone)
        return self._accounts.get(f"month:{month}", Balance(ctx.policy.budget_month_microusd, 0, 0))

    async def accounts(self, ctx: TenantContext, run_id: str, limit_microusd: int) -> Accounts:
        """What a run may spend from."""
        family = (*self.above(run_id), (run_id, limit_microusd))
        balances = [self._accounts.get(f"run:{each}", Balance(budget, 0, 0)) for each, budget in family]
        return Accounts(min(balances, key=lambda balance: balance.left_microusd), await self.balance(ctx))

    async def cover(self, ctx: TenantContext, run_id: str, limit_microusd: int, amount_microusd: int) -> None:  # noqa: ARG002 - the shape of the ledger
        """The limits of the run, and of those above it, now cover this amount more."""
        for each, budget in (*self.above(run_id), (run_id, limit_microusd)):
            now = self._accounts.setdefault(f"run:{each}", Balance(budget, 0, 0))
            needed = now.reserved_microusd + now.spent_microusd + amount_microusd
            self._accounts[f"run:{each}"] = replace(now, limit_microusd=max(now.limit_microusd, needed))

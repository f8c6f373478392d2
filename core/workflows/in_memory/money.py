"""Accounts in memory; see ``core.usage.service``."""

from __future__ import annotations

from dataclasses import replace

from core.clock import FakeClock
from core.runs.execution import Executing
from core.tenancy import TenantContext
from core.usage.ladder import Accounts
from core.usage.model import Balance, month_of, not_covered


class MoneyInMemory:
    """The accounts of the runs and of the months."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._accounts: dict[str, Balance] = {}
        self._reserved: dict[str, tuple[tuple[str, str], int]] = {}

    def reserve(self, on: Executing, key: str, amount: int) -> None:
        """Promise money, of the month and of the run. Raises ``BudgetExceeded`` and promises nothing."""
        policy = on.ctx.policy
        month = f"month:{month_of(self._clock.now(), policy.timezone)}"
        known = self._accounts.get(month, Balance(0, 0, 0))
        self._accounts[month] = replace(known, limit_microusd=policy.budget_month_microusd)
        run = f"run:{on.run_id}"
        self._accounts.setdefault(run, Balance(on.budget_microusd, 0, 0))
        for name, account, limit in (
            ("month", month, policy.budget_month_microusd),
            ("run", run, on.budget_microusd),
        ):
            if self._accounts[account].left_microusd < amount:
                raise not_covered(name, limit, amount)
        self._reserved[key] = ((month, run), amount)
        self._add((month, run), reserved=amount)

    def settle(self, key: str, spent: int) -> None:
        """Replace the promise by what was spent."""
        accounts, amount = self._reserved.pop(key)
        self._add(accounts, reserved=-amount, spent=spent)

    def _add(self, accounts: tuple[str, str], *, reserved: int, spent: int = 0) -> None:
        for account in accounts:
            now = self._accounts[account]
            self._accounts[account] = replace(
                now,
                reserved_microusd=now.reserved_microusd + reserved,
                spent_microusd=now.spent_microusd + spent,
            )

    async def balance(self, ctx: TenantContext, run_id: str | None = None) -> Balance:
        """The account of a run, or of the current month."""
        if run_id:
            return self._accounts.get(f"run:{run_id}", Balance(ctx.policy.budget_run_microusd, 0, 0))
        month = month_of(self._clock.now(), ctx.policy.timezone)
        return self._accounts.get(f"month:{month}", Balance(ctx.policy.budget_month_microusd, 0, 0))

    async def accounts(self, ctx: TenantContext, run_id: str, limit_microusd: int) -> Accounts:
        """What a run may spend from."""
        own = self._accounts.get(f"run:{run_id}", Balance(limit_microusd, 0, 0))
        return Accounts(own, await self.balance(ctx))

    async def cover(self, ctx: TenantContext, run_id: str, limit_microusd: int, amount_microusd: int) -> None:  # noqa: ARG002 - the shape of the ledger
        """The run's limit now covers this amount more."""
        now = self._accounts.setdefault(f"run:{run_id}", Balance(limit_microusd, 0, 0))
        needed = now.reserved_microusd + now.spent_microusd + amount_microusd
        self._accounts[f"run:{run_id}"] = replace(now, limit_microusd=max(now.limit_microusd, needed))

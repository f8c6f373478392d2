"""Money in micro-USD (1 USD = 1,000,000), and how much of it is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from core.errors import BudgetExceeded, InvalidInput

MICRO = 1_000_000
MOST_MICROUSD = 10**15
"""A budget that is higher is a slip of the finger: a billion dollars."""


def usd(amount: str | Decimal) -> int:
    """Micro-USD of a decimal amount, e.g. ``usd("0.50") == 500_000``. Floats are refused: they round."""
    return int((Decimal(amount) * MICRO).to_integral_exact())


def format_usd(microusd: int) -> str:
    """For people: two digits, or as many as it takes to show a small amount."""
    value = Decimal(microusd) / MICRO
    return f"${value:.2f}" if microusd == 0 or abs(microusd) >= 10_000 else f"${value.normalize():f}"


def month_of(now: datetime, timezone: str) -> str:
    """The tenant's calendar month, ``YYYY-MM``; monthly budgets turn over at its local midnight."""
    return now.astimezone(ZoneInfo(timezone)).strftime("%Y-%m")


def next_month(now: datetime, timezone: str) -> datetime:
    """When the tenant's next calendar month begins, in UTC."""
    local = now.astimezone(ZoneInfo(timezone))
    year, month = divmod(local.year * 12 + local.month, 12)
    return datetime(year, month + 1, 1, tzinfo=ZoneInfo(timezone)).astimezone(UTC)


PARENT = "parent"
"""Whose account lacks the money when it is that of a run above the one that asks."""


def estimate_of(p95_microusd: int | None) -> int:
    """What to reserve for a step whose costs have this 95th percentile; None: not known yet."""
    return DEFAULT_ESTIMATE_MICROUSD if p95_microusd is None else max(LEAST_ESTIMATE_MICROUSD, p95_microusd)


def not_covered(account: str, limit_microusd: int, needed_microusd: int) -> BudgetExceeded:
    """The error to raise when an account does not cover what is needed."""
    return BudgetExceeded(
        f"The {account}'s budget of {format_usd(limit_microusd)} does not cover {format_usd(needed_microusd)} more.",
        account=account,
        needed_microusd=needed_microusd,
        limit_microusd=limit_microusd,
    )


@dataclass(frozen=True, slots=True)
class NewLimit:
    """What a run might spend in all, what of it is spent or promised, and what it may spend from now on; micro-USD."""

    run_id: str
    before_microusd: int
    used_microusd: int
    after_microusd: int


def check_limit(limit_microusd: int) -> None:
    """Raise ``InvalidInput`` when this is no budget of anything."""
    if not 0 <= limit_microusd <= MOST_MICROUSD:
        most = format_usd(MOST_MICROUSD)
        raise InvalidInput(f"A budget is {format_usd(0)} to {most}.", field="budget_microusd")


def check_limits(changed: Sequence[NewLimit], most_microusd: int) -> None:
    """Raise ``InvalidInput`` when a run may not have such a budget; the last of ``changed`` is the one that was asked
    for, those before it are the runs above it, whose budgets grow as far as they must.

    None is less than what is spent or promised, and none grows beyond ``most_microusd``, what the policy allows a run.
    """
    for one in reversed([one for one in changed if one.after_microusd != one.before_microusd]):
        if one.after_microusd < one.used_microusd:
            raise InvalidInput(
                f"{format_usd(one.used_microusd)} of the budget is spent or promised: it cannot be less.",
                field="budget_microusd",
                used_microusd=one.used_microusd,
            )
        if one.after_microusd > max(most_microusd, one.before_microusd):
            whose = "a run" if one is changed[-1] else f"run {one.run_id}, which spawned it and must cover it, or any"
            raise InvalidInput(
                f"The policy allows {whose} at most {format_usd(most_microusd)}; this needs "
                f"{format_usd(one.after_microusd)}.",
                field="budget_microusd",
                limit_microusd=most_microusd,
                run_id=one.run_id,
            )


ENOUGH = 5
"""Ends of a step after which its costs say what it will cost."""

DEFAULT_ESTIMATE_MICROUSD = 20_000
"""What a step without an estimate is taken to cost while nobody knows."""

LEAST_ESTIMATE_MICROUSD = 100
"""The least that is reserved for a step that may cost something."""


@dataclass(frozen=True, slots=True)
class StepCost:
    """What a step has cost, and how good its estimates were. Money in micro-USD.

    Attributes:
        settled: attempts that ended with a result.
        p95_microusd: the 95th percentile of the last 64 of them.
        exceeded: how many cost more than was reserved for them at first.
        overshoot_microusd: how much more, in sum.
    """

    tenant_id: str
    workflow: str
    step: str
    settled: int
    p95_microusd: int
    exceeded: int
    overshoot_microusd: int

    @property
    def exceeded_share(self) -> float:
        """How often an estimate was too small."""
        return self.exceeded / self.settled if self.settled else 0.0

    @property
    def mean_overshoot_microusd(self) -> int:
        """By how much, when it was."""
        return round(self.overshoot_microusd / self.exceeded) if self.exceeded else 0


@dataclass(frozen=True, slots=True)
class Overrun:
    """What was spent and promised beyond the limit of an account: ``run``, ``parent`` (a run above it) or ``month``."""

    account: str
    over_microusd: int


@dataclass(frozen=True, slots=True)
class Balance:
    """One account: what may be spent, is promised, was spent."""

    limit_microusd: int
    reserved_microusd: int
    spent_microusd: int

    @property
    def left_microusd(self) -> int:
        """What can still be reserved."""
        return max(0, self.limit_microusd - self.reserved_microusd - self.spent_microusd)

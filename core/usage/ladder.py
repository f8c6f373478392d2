"""The degradation ladder: what a step does when the budget of its run, or of the month, runs low. Pure.

    share of an account that would be used, this step included
    0 ────────────────► cheaper_at ──────► skip_at ───────► ask_at ──────► 1
      as the author       a cheaper          optional         people are     the account does not cover it: the run's
      wrote it            model              steps are        asked once     people are asked to raise; the month's
                          answers            skipped          per run        is waited for

Every rung holds what those before it hold: at ``ask_at`` the cheaper model answers and optional steps are skipped. The
account that is closest to its end decides. A step that costs nothing climbs no rung. Which rung a step is on is read
before it reserves; the reservation alone decides whether the money is there.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from core.tenancy import Policy
from core.usage.model import Balance


class AccountKind(StrEnum):
    """Whose money it is."""

    RUN = "run"
    MONTH = "month"


class Rung(StrEnum):
    """What is done, from the least to the last."""

    CHEAPER_MODEL = "cheaper_model"
    SKIP = "skip"
    ASK = "ask"
    PARK = "park"


@dataclass(frozen=True, slots=True)
class Accounts:
    """What a run may spend from."""

    run: Balance
    month: Balance

    def of(self, kind: AccountKind) -> Balance:
        """One of them."""
        return self.run if kind is AccountKind.RUN else self.month


@dataclass(frozen=True, slots=True)
class Taken:
    """A rung, and why: the step would bring the use of ``account`` to ``share``, which is over ``threshold``."""

    rung: Rung
    account: AccountKind
    share: float
    threshold: float

    @property
    def why(self) -> str:
        """For people, e.g. ``92 % of the run's budget (over 90 %)``."""
        share = f"{math.ceil(self.share * 100)} %" if math.isfinite(self.share) else "all"
        return f"{share} of the {self.account}'s budget (over {self.threshold * 100:g} %)"


def share_with(balance: Balance, needed_microusd: int) -> float:
    """The share of an account that is used or promised once this much more is."""
    used = balance.reserved_microusd + balance.spent_microusd + needed_microusd
    if balance.limit_microusd == 0:
        return math.inf if used else 0.0
    return used / balance.limit_microusd


def rung_of(
    policy: Policy,
    accounts: Accounts,
    needed_microusd: int,
    *,
    optional: bool,
    cheaper: bool,
    agreed: Collection[AccountKind] = (),
) -> Taken | None:
    """The rung that a step is on; None: it is performed as it was written.

    ``optional``: it may be skipped. ``cheaper``: a cheaper model than the usual one may do it. ``agreed``: accounts
    about which people were asked before and said to go on, until they cover no more.
    """
    if needed_microusd <= 0:
        return None
    shares = {kind: share_with(accounts.of(kind), needed_microusd) for kind in AccountKind}

    def over(rung: Rung, threshold: float, kinds: Collection[AccountKind]) -> Taken | None:
        highest = max(kinds, key=lambda kind: shares[kind], default=None)
        if highest is None or shares[highest] <= threshold:
            return None
        return Taken(rung, highest, shares[highest], threshold)

    asked_about = [kind for kind in AccountKind if kind not in agreed]
    found = over(Rung.SKIP, policy.budget_skip_at, tuple(AccountKind)) if optional else None
    found = found or over(Rung.PARK, 1.0, [AccountKind.MONTH])
    found = found or over(Rung.ASK, 1.0, [AccountKind.RUN])
    found = found or over(Rung.ASK, policy.budget_ask_at, asked_about)
    if found is None and cheaper:
        return over(Rung.CHEAPER_MODEL, policy.budget_cheaper_at, tuple(AccountKind))
    return found

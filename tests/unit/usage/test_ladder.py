"""The degradation ladder, for any budget and any step: it ascends, and never lets through what is not covered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from core.tenancy import Policy
from core.usage.ladder import AccountKind, Accounts, Rung, Taken, rung_of, share_with
from core.usage.model import Balance

ORDER = [None, Rung.CHEAPER_MODEL, Rung.SKIP, Rung.ASK, Rung.PARK]
amounts = st.integers(0, 1_000)
balances = st.builds(Balance, amounts, st.integers(0, 400), st.integers(0, 400))
accounts = st.builds(Accounts, balances, balances)
agreed = st.frozensets(st.sampled_from(AccountKind))


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Any ladder that ascends."""
    cheaper, skip, ask = sorted(draw(st.tuples(*[st.floats(0, 1)] * 3)))
    return Policy(budget_cheaper_at=cheaper, budget_skip_at=skip, budget_ask_at=ask)


def rung(taken: Taken | None) -> Rung | None:
    """Where it is."""
    return None if taken is None else taken.rung


@given(policies(), accounts, amounts, st.booleans(), agreed)
def test_a_step_that_is_not_covered_is_skipped_asked_about_or_parked(
    policy: Policy, held: Accounts, needed: int, cheaper: bool, said: frozenset[AccountKind]
) -> None:
    taken = rung_of(policy, held, needed, optional=False, cheaper=cheaper, agreed=said)
    lacking = [kind for kind in AccountKind if held.of(kind).left_microusd < needed]
    if lacking:
        assert taken is not None
        assert taken.rung in (Rung.ASK, Rung.PARK)
        assert taken.account is (AccountKind.MONTH if AccountKind.MONTH in lacking else AccountKind.RUN)
        assert rung(rung_of(policy, held, needed, optional=True, cheaper=cheaper, agreed=said)) is Rung.SKIP


@given(policies(), accounts, amounts, amounts, st.booleans(), st.booleans())
def test_the_more_a_step_needs_the_higher_it_stands(
    policy: Policy, held: Accounts, one: int, other: int, optional: bool, cheaper: bool
) -> None:
    less, more = sorted((one, other))
    first = rung(rung_of(policy, held, less, optional=optional, cheaper=cheaper))
    second = rung(rung_of(policy, held, more, optional=optional, cheaper=cheaper))
    assert ORDER.index(first) <= ORDER.index(second)


@given(policies(), accounts, amounts, st.booleans(), st.booleans(), agreed)
def test_a_rung_is_only_taken_over_its_threshold_and_only_by_whom_it_fits(
    policy: Policy, held: Accounts, needed: int, optional: bool, cheaper: bool, said: frozenset[AccountKind]
) -> None:
    taken = rung_of(policy, held, needed, optional=optional, cheaper=cheaper, agreed=said)
    if taken is None:
        assert needed == 0 or all(share_with(held.of(kind), needed) <= 1 for kind in AccountKind)
        return
    assert taken.share == share_with(held.of(taken.account), needed) > taken.threshold
    assert optional or taken.rung is not Rung.SKIP
    assert cheaper or taken.rung is not Rung.CHEAPER_MODEL
    assert taken.threshold == 1 or taken.rung is not Rung.ASK or taken.account not in said


@given(accounts, st.booleans(), st.booleans())
def test_a_step_that_costs_nothing_climbs_nothing(held: Accounts, optional: bool, cheaper: bool) -> None:
    assert (
        rung_of(
            Policy(budget_cheaper_at=0, budget_skip_at=0, budget_ask_at=0), held, 0, optional=optional, cheaper=cheaper
        )
        is None
    )


def test_the_account_that_is_closest_to_its_end_decides_and_says_so() -> None:
    held = Accounts(run=Balance(1_000, 0, 100), month=Balance(1_000, 100, 700))
    taken = rung_of(Policy(), held, 50, optional=True, cheaper=True)
    assert taken == Taken(Rung.CHEAPER_MODEL, AccountKind.MONTH, 0.85, 0.8)
    assert taken.why == "85 % of the month's budget (over 80 %)"
    assert rung_of(Policy(), held, 101, optional=True, cheaper=True) == Taken(Rung.SKIP, AccountKind.MONTH, 0.901, 0.9)


def test_people_who_said_to_go_on_are_not_asked_again_until_it_is_not_covered() -> None:
    policy = Policy(budget_cheaper_at=0.1, budget_skip_at=0.2, budget_ask_at=0.5)
    held = Accounts(run=Balance(1_000, 0, 600), month=Balance(100_000, 0, 0))
    assert rung(rung_of(policy, held, 100, optional=False, cheaper=True)) is Rung.ASK
    said = {AccountKind.RUN}
    assert rung(rung_of(policy, held, 100, optional=False, cheaper=True, agreed=said)) is Rung.CHEAPER_MODEL
    assert rung(rung_of(policy, held, 401, optional=False, cheaper=True, agreed=said)) is Rung.ASK


@pytest.mark.parametrize("wrong", [(0.9, 0.8, 1.0), (0.5, 1.0, 0.9), (0.1, 0.2, 1.1), (-0.1, 0.2, 0.3)])
def test_a_ladder_ascends(wrong: tuple[float, float, float]) -> None:
    with pytest.raises(ValidationError):
        Policy(budget_cheaper_at=wrong[0], budget_skip_at=wrong[1], budget_ask_at=wrong[2])

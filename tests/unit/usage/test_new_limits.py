"""How far people may set what a run may spend."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidInput
from core.usage.model import NewLimit, check_limits

MOST = 1_000
AMOUNTS = st.integers(0, 2 * MOST)
LIMITS = st.lists(st.builds(NewLimit, st.sampled_from(["run_a", "run_b"]), AMOUNTS, AMOUNTS, AMOUNTS), min_size=1)


@given(changed=LIMITS)
def test_a_limit_that_changes_covers_what_is_used_and_grows_within_the_policy(changed: list[NewLimit]) -> None:
    try:
        check_limits(changed, MOST)
        refused = False
    except InvalidInput:
        refused = True
    moved = [one for one in changed if one.after_microusd != one.before_microusd]
    fits = all(
        one.used_microusd <= one.after_microusd
        and (one.after_microusd <= MOST or one.after_microusd < one.before_microusd)
        for one in moved
    )
    assert refused is not fits


def test_a_parent_that_owes_for_an_undo_does_not_keep_its_child_from_a_smaller_budget() -> None:
    parent, child = NewLimit("run_a", 500, 700, 500), NewLimit("run_b", 300, 100, 200)
    check_limits([parent, child], MOST)


def test_who_is_refused_is_told_which_run_of_the_family_may_not_spend_so_much() -> None:
    with pytest.raises(InvalidInput, match="run_a, which spawned it"):
        check_limits([NewLimit("run_a", 900, 900, 1_100), NewLimit("run_b", 300, 100, 300)], MOST)

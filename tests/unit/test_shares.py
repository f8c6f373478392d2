"""Weighted max-min shares."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.queue.shares import Claimant, max_min

claimants = st.dictionaries(
    st.sampled_from("abcdefgh"), st.builds(Claimant, st.floats(0, 1e4), st.floats(0.01, 100)), max_size=8
)


def test_the_modest_get_what_they_want_and_the_others_divide_the_rest_by_weight() -> None:
    wants = {"big": Claimant(100, 3), "other": Claimant(100, 1), "modest": Claimant(2, 4)}
    assert max_min(10, wants) == pytest.approx({"modest": 2, "big": 6, "other": 2})


@given(st.floats(0, 1e4), claimants)
def test_nothing_is_left_over_while_somebody_wants_more_and_nobody_could_get_more_without_taking_from_a_poorer_one(
    capacity: float, wants: dict[str, Claimant]
) -> None:
    shares = max_min(capacity, wants)
    total = sum(one.wants for one in wants.values())
    assert math.isclose(sum(shares.values()), min(capacity, total), rel_tol=1e-9, abs_tol=1e-6)
    poorer = {name for name, one in wants.items() if shares[name] < one.wants - 1e-6}
    levels = {name: shares[name] / wants[name].weight for name in wants}
    for name in poorer:
        assert all(levels[other] <= levels[name] + 1e-6 * (1 + levels[name]) for other in wants)

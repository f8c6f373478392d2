"""Which version a new run gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Conflict, InvalidInput
from core.versions.model import Route, VersionView, place_of, warnings_of

BASE = Route("loan", "1")


def test_a_canary_gets_its_percentage_of_keys_and_all_runs_of_its_tenants() -> None:
    route = BASE.tried("2", 10, ("bank", "bank"))
    chosen = [route.version_for("union", f"key-{number}") for number in range(10_000)]
    assert 900 < chosen.count("2") < 1_100
    assert {route.version_for("bank", f"key-{number}") for number in range(100)} == {"2"}
    assert route.tenants == ("bank",)


@given(key=st.text(max_size=50), percents=st.tuples(st.floats(0, 100), st.floats(0, 100)))
def test_a_key_always_gets_the_same_version_and_keeps_the_canary_as_that_grows(
    key: str, percents: tuple[float, float]
) -> None:
    small, large = (BASE.tried("2", percent, ()) for percent in sorted(percents))
    assert small.version_for("bank", key) == small.version_for("union", key)
    if small.version_for("bank", key) == "2":
        assert large.version_for("bank", key) == "2"
    assert 0 <= place_of("loan", key) < 100
    assert BASE.tried("2", 0, ()).version_for("bank", key) == "1"
    assert BASE.tried("2", 100, ()).version_for("bank", key) == "2"


def test_other_keys_are_taken_of_another_workflow() -> None:
    keys = [f"key-{number}" for number in range(200)]
    taken = {name: {key for key in keys if place_of(name, key) < 50} for name in ("loan", "letter")}
    assert taken["loan"] != taken["letter"]


def test_a_promoted_canary_is_rolled_back_to_the_base_before_it() -> None:
    promoted = BASE.tried("2", 5, ("bank",)).promoted(None)
    assert promoted == Route("loan", "2", before="1")
    assert promoted.tried("3", 5, ()).rolled_back() == promoted
    assert promoted.rolled_back() == BASE


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(InvalidInput):
        BASE.tried("2", 101, ())
    with pytest.raises(InvalidInput):
        BASE.tried("1", 5, ())
    with pytest.raises(Conflict):
        BASE.promoted(None)
    with pytest.raises(Conflict):
        BASE.promoted("1")
    with pytest.raises(Conflict):
        BASE.rolled_back()


def test_a_route_to_code_that_nobody_has_is_warned_of() -> None:
    route = BASE.tried("2", 5, ())
    assert warnings_of(route, {"1", "2"}.__contains__, frozenset({"loan@1", "loan@2"})) == ()
    assert warnings_of(route, {"1", "2"}.__contains__, None) == ()
    told = warnings_of(route, {"1"}.__contains__, frozenset({"loan@1"}))
    assert [("no_code" in line, "This process" in line) for line in told] == [(True, False), (False, True)]
    assert all("loan version 2" in line for line in told)


def test_code_is_needed_while_runs_are_open_or_come() -> None:
    assert VersionView("loan", "1", True, 2, share=0).removable
    assert not VersionView("loan", "1", True, 2, share=0, waiting=1).removable
    assert not VersionView("loan", "1", True, 2, share=5).removable
    assert not VersionView("loan", "1", True, 2, share=0, tenants=("bank",)).removable
    assert VersionView("loan", "1", True, 0, share=0, queued=1).stuck

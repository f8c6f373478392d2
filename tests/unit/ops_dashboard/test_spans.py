"""How far back the plots look while nobody has chosen: as far as there is something to see."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops_dashboard.data import Window
from ops_dashboard.spans import AUTO, HOUR, SPANS, fitting, named

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
AGES = st.lists(st.integers(0, HOUR.seconds // HOUR.bucket_s).map(lambda buckets: buckets * HOUR.bucket_s), max_size=4)


def hour(used: Sequence[int] = (), queued: Sequence[int] = ()) -> Window:
    """An hour in which runs executed, and were queued, in the buckets that began so many seconds before its end."""
    nothing = pd.DataFrame()

    def over_time(value: str, ages: Sequence[int], amount: float) -> pd.DataFrame:
        # Queues are told of in all buckets, those in which they were empty too.
        rows = [("bank", NOW - timedelta(seconds=age), amount) for age in ages]
        return pd.DataFrame([*rows, ("bank", NOW - timedelta(hours=1), 0)], columns=["tenant_id", "bucket", value])

    return Window(
        at=NOW,
        until=NOW,
        seconds=HOUR.seconds,
        bucket_s=HOUR.bucket_s,
        service=nothing,
        endings=nothing,
        failures=nothing,
        service_over_time=over_time("worker_s", used, 1.5),
        depth_over_time=over_time("queued", queued, 3),
        wait_causes=nothing,
        waits_over_time=nothing,
    )


@pytest.mark.parametrize(
    ("used", "queued", "span"),
    [
        ((), (), "5 min"),  # a new installation, or a quiet hour
        ((60, 90), (60,), "5 min"),
        ((300,), (), "5 min"),
        ((330, 30), (), "15 min"),
        ((30,), (840,), "15 min"),  # queued for long before it began
        ((930,), (), "1 h"),
        ((3_600, 30), (30,), "1 h"),
    ],
)
def test_plots_look_as_far_back_as_something_happened(used: tuple[int], queued: tuple[int], span: str) -> None:
    assert fitting(hour(used, queued)).name == span


def test_of_no_runs_at_all_nothing_is_known_either() -> None:
    nothing = pd.DataFrame([], columns=["tenant_id", "bucket", "worker_s", "queued"])
    empty = Window(NOW, NOW, 3_600, 30, nothing, nothing, nothing, nothing, nothing, nothing, nothing)
    assert fitting(empty) is SPANS[0]


@given(AGES, AGES)
def test_what_fits_holds_everything_and_nothing_shorter_would(used: list[int], queued: list[int]) -> None:
    oldest_s = max([*used, *queued], default=0)
    chosen = fitting(hour(used, queued))
    assert chosen.seconds >= oldest_s
    assert all(span.seconds < oldest_s for span in SPANS if span.seconds < chosen.seconds)


def test_what_a_person_chose_is_taken_and_auto_is_no_span() -> None:
    assert [named(span.name) for span in SPANS] == list(SPANS)
    assert named(AUTO) is None
    assert named(None) is None

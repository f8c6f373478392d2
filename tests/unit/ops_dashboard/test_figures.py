"""Figures are pure: the same data give the same figure, and every value that is drawn comes from them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from ops_dashboard import figures
from ops_dashboard.figures import OTHERS, TOP
from ops_dashboard.timeline import MOST_STEPS, timeline

NINE = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
NAMES = {"bank": "Regional Bank"}


def at(seconds: float) -> datetime:
    return NINE + timedelta(seconds=seconds)


def test_service_over_time_is_drawn_as_slots_with_gaps_as_zero_and_in_local_time() -> None:
    buckets = figures.buckets_of(at(180), 180, 60)
    frame = pd.DataFrame([("bank", at(0), 60.0), ("bank", at(120), 90.0)], columns=["tenant_id", "bucket", "worker_s"])
    figure = figures.service_share(frame, buckets, NAMES, {"bank": "#123456"}, "America/New_York")
    (trace,) = figure.data
    assert (trace.name, list(trace.y)) == ("Regional Bank", [1.0, 0.0, 1.5])
    assert [str(moment)[:16] for moment in pd.DatetimeIndex(trace.x)] == [
        "2026-01-05 04:00",
        "2026-01-05 04:01",
        "2026-01-05 04:02",
    ]
    again = figures.service_share(frame.copy(), buckets, NAMES, {"bank": "#123456"}, "America/New_York")
    assert again.to_json() == figure.to_json()


def test_beyond_the_largest_tenants_the_others_are_drawn_together_and_nothing_is_lost() -> None:
    rows = [(f"tenant-{number}", at(0), float(number + 1)) for number in range(TOP + 5)]
    shown = figures.top_tenants(pd.DataFrame(rows, columns=["tenant_id", "bucket", "queued"]), "queued")
    assert len(shown) == TOP + 1
    assert shown["queued"].sum() == sum(row[2] for row in rows)
    assert shown.set_index("tenant_id")["queued"][OTHERS] == 1 + 2 + 3 + 4 + 5


@pytest.mark.parametrize(
    "figure",
    [
        figures.service_share(pd.DataFrame(), figures.buckets_of(NINE, 60, 60), {}, {}, "UTC"),
        figures.queue_depth(pd.DataFrame(), {}, {}, "UTC"),
        figures.normalised_service(pd.DataFrame(), {}, {}),
        figures.failures(pd.DataFrame({"code": []}), {}, {}),
        figures.endings(pd.DataFrame()),
        figures.version_endings(pd.DataFrame(), "UTC"),
        figures.version_failures(pd.DataFrame(), "UTC"),
        figures.wait_causes(pd.DataFrame(), {}),
        figures.waits_over_time(pd.DataFrame(), figures.buckets_of(NINE, 60, 60), {}, {}, "UTC"),
        timeline(pd.DataFrame(), pd.DataFrame(), pd.DataFrame(), NINE, "UTC"),
    ],
)
def test_a_figure_of_nothing_says_so_instead_of_showing_empty_axes(figure: object) -> None:
    layout = figure.layout  # type: ignore[attr-defined]
    assert len(layout.annotations) == 1
    assert layout.annotations[0].text.endswith(".")


def test_what_is_not_drawn_yet_is_not_said_never_to_have_been() -> None:
    buckets = figures.buckets_of(NINE, 86_400, 900)
    for figure in (
        figures.service_share(pd.DataFrame(), buckets, {}, {}, "UTC"),
        figures.waits_over_time(pd.DataFrame(), buckets, {}, {}, "UTC"),
    ):
        assert figure.layout.annotations[0].text.endswith("; the last 15 min are drawn when they are over.")


def test_versions_are_told_apart_by_what_ended_and_what_share_of_it_failed() -> None:
    rows = [("loan", "1", at(0), 10, 1), ("loan", "2", at(0), 4, 2), ("loan", "1", at(60), 5, 0)]
    frame = pd.DataFrame(rows, columns=["workflow", "version", "bucket", "ended", "failed"])
    ended, failed = (draw(frame, "UTC") for draw in (figures.version_endings, figures.version_failures))
    assert [(trace.name, list(trace.y)) for trace in ended.data] == [("v1", [10, 5]), ("v2", [4])]
    assert [(trace.name, list(trace.y)) for trace in failed.data] == [("v1", [10.0, 0.0]), ("v2", [50.0])]
    assert [trace.line.color for trace in failed.data] == [trace.marker.color for trace in ended.data]


def test_waiting_is_stacked_by_cause_for_the_tenants_that_waited_most() -> None:
    columns = ["tenant_id", "starts", "bursts", "capped_s", "paused_s", "no_worker_s", "no_code_s", "share_s"]
    others = ((f"t{n}", 1, 0, 0.0, 0.0, 0.0, 0.0, float(n)) for n in range(TOP + 3))
    rows = [("bank", 9, 0, 60.0, 0.0, 1.0, 5.0, 30.0), *others]
    figure = figures.wait_causes(pd.DataFrame(rows, columns=columns), NAMES)
    assert [trace.name for trace in figure.data] == ["share", "cap", "no worker", "no code"]
    assert list(figure.data[0].y)[:2] == ["Regional Bank", f"t{TOP + 2}"]
    assert [trace.x[0] for trace in figure.data] == [0.5, 1.0, 0.02, 0.08]  # minutes
    assert len(figure.data[0].y) == TOP
    lately = figures.wait_causes(pd.DataFrame([("bank", 9, 0, 0.0, 0.0, 0.0, 0.0, 30.0)], columns=columns), NAMES)
    assert [trace.name for trace in lately.data] == ["share"]  # what nobody waited for needs no place
    assert lately.layout.legend.y < figures.base("", 300).layout.legend.y  # below the name of the axis
    idle = figures.wait_causes(pd.DataFrame([("bank", 9, 0, 0.0, 0.0, 0.0, 0.0, 0.0)], columns=columns), NAMES)
    assert len(idle.layout.annotations) == 1


def test_the_bar_of_a_runs_waiting_is_as_wide_as_its_causes() -> None:
    bar = figures.stacked_bar({"cap": 30.0, "no_worker": 10.0})
    assert re.findall(r"width:([\d.]+)%", bar) == ["75.00", "25.00"]
    assert re.findall(r"</span> ([^<&]+)", bar) == ["cap 30 s ", "no worker 10 s"]


def test_a_run_is_drawn_with_its_queue_slots_waits_by_cause_and_attempts() -> None:
    passages = pd.DataFrame(
        [(at(0), at(5), at(9)), (at(100), at(101), None)], columns=["queued_at", "claimed_at", "released_at"]
    )
    transitions = pd.DataFrame(
        [(1, at(0), "submitted", None), (2, at(9), "waiting", "no_worker")], columns=["seq", "at", "kind", "cause"]
    )
    steps = pd.DataFrame(
        [
            (1, 1, "pull_credit", "call", "failed", 0, None, at(6), at(7), "model_unavailable"),
            (1, 2, "pull_credit", "call", "done", 2_500, None, at(7), at(8), None),
            (2, 1, "review", "review", "started", 0, None, at(8), None, None),
        ],
        columns=[
            *("step", "attempt", "name", "kind", "state", "cost_microusd", "model"),
            *("started_at", "finished_at", "error_code"),
        ],
    )
    (bars,) = timeline(steps, passages, transitions, at(111), "UTC").data
    drawn = [(row, round(length / 1000)) for row, length in zip(bars.y, bars.x, strict=True)]
    assert drawn == [
        ("queue", 5),
        ("slot", 4),
        ("waits", 91),
        ("queue", 1),
        ("slot", 10),
        ("1. pull_credit", 1),
        ("1. pull_credit (attempt 2)", 1),
        ("2. review", 103),
    ]
    assert bars.text[2] == "no worker"
    assert "model unavailable" in bars.customdata[5]
    assert "$0.0025" in bars.customdata[6]


def test_the_time_between_a_failure_and_its_retry_is_no_wait() -> None:
    passages = pd.DataFrame(
        [(at(0), at(1), at(2)), (at(50), None, None)], columns=["queued_at", "claimed_at", "released_at"]
    )
    transitions = pd.DataFrame(
        [(1, at(2), "failed", None), (2, at(50), "retried", None)], columns=["seq", "at", "kind", "cause"]
    )
    (bars,) = timeline(pd.DataFrame(), passages, transitions, at(60), "UTC").data
    assert list(bars.y) == ["queue", "slot", "queue"]


def test_a_step_that_was_set_aside_is_drawn_and_of_very_many_only_the_newest() -> None:
    columns = [
        *("step", "attempt", "name", "kind", "state", "cost_microusd", "model"),
        *("started_at", "finished_at", "error_code"),
    ]
    rows = [
        (number, 1, "screen", "step", "set aside" if number % 2 else "done", 0, None, at(number), at(number + 1), None)
        for number in range(1, MOST_STEPS + 11)
    ]
    steps = pd.DataFrame(rows, columns=columns)
    (bars,) = timeline(steps, pd.DataFrame(), pd.DataFrame(), at(99), "UTC").data
    assert list(bars.y) == [f"{number}. screen" for number in range(11, MOST_STEPS + 11)]
    assert len(set(bars.marker.color)) == 2


def test_failures_are_named_in_words_and_the_tenants_beyond_the_largest_are_one() -> None:
    rows = [(f"t{number:02}", "loan", "step_failed", number + 1) for number in range(TOP + 3)]
    rows.append(("t00", "loan", "timeout", 1))
    frame = pd.DataFrame(rows, columns=["tenant_id", "workflow", "code", "count"])
    figure = figures.failures(frame, {}, {})
    assert [trace.name for trace in figure.data][-1] == OTHERS
    assert len(figure.data) == TOP + 1
    assert sum(sum(trace.x) for trace in figure.data) == sum(row[3] for row in rows)
    assert list(figure.layout.yaxis.categoryarray) == ["step failed", "timeout"]

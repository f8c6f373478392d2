"""Numbers and documents as people read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from ops_dashboard.words import (
    NONE,
    badge,
    causes,
    code,
    count,
    drawn,
    duration,
    facts,
    literal,
    moment,
    percent,
    relative,
    shares,
)

NOON = datetime(2026, 3, 8, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, NONE),
        (float("nan"), NONE),
        (0.0, "0 ms"),
        (0.85, "850 ms"),
        (4.24, "4.2 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (185, "3 min 5 s"),
        (7_800, "2 h 10 min"),
        (7_200, "2 h"),
        (273_600, "3 d 4 h"),
    ],
)
def test_a_duration_has_at_most_two_units(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_a_percentage_never_rounds_up_to_everything_nor_down_to_nothing() -> None:
    assert [percent(share) for share in (None, 0, 0.0004, 0.123, 0.99996, 1, 1.5)] == [
        NONE,
        "0 %",
        "< 0.1 %",
        "12.3 %",
        "99.9 %",
        "100 %",
        "150.0 %",
    ]


def test_moments_are_shown_in_the_tenants_zone_also_across_a_change_of_clocks() -> None:
    before = datetime(2026, 3, 8, 6, 59, 59, tzinfo=UTC)
    assert moment(before, "America/New_York") == "2026-03-08 01:59:59"
    assert moment(before + timedelta(seconds=1), "America/New_York") == "2026-03-08 03:00:00"
    assert moment(None, "UTC") == NONE


def test_distances_stand_still_for_a_minute() -> None:
    due = NOON + timedelta(hours=1, minutes=41, seconds=50)
    assert relative(due, NOON) == relative(due, NOON + timedelta(seconds=40)) == "in 1 h 41 min"
    assert relative(NOON, NOON + timedelta(minutes=12)) == "12 min ago"
    assert relative(NOON + timedelta(seconds=7), NOON) == "in 7.0 s"


def test_causes_are_ordered_by_how_many_wait_for_them() -> None:
    assert causes({"rate": 3, "no_worker": 40, "review": 3, "timer": 0}) == "no worker 40 · rate 3 · review 3"
    assert causes({}) == NONE
    assert count(1_234_567) == "1\u202f234\u202f567"


def test_waiting_is_shared_out_among_its_causes_without_what_hardly_counts() -> None:
    assert shares({"cap": 79.5, "share": 20.0, "no_worker": 0.5}) == "cap 80 % · share 20 %"
    assert shares({"cap": 0.0}) == shares({}) == NONE


def test_what_others_wrote_is_nobodys_markup() -> None:
    assert literal("![x](https://evil.example) **A** #1") == (
        "\\!\\[x\\]\\(https\\:\\/\\/evil\\.example\\) \\*\\*A\\*\\* \\#1"
    )
    assert literal("Application 901") == "Application 901"


def test_streamlits_own_pictures_are_nobodys_either() -> None:
    for source in (":material/check:", ":material_check:", ":streamlit:"):
        unescaped = re.sub(r"\\(.)", r"\1", literal(source))
        assert ":material/" not in literal(source)
        assert not re.search(r":material_\w+:|:streamlit:", unescaped)
    assert literal("of material: wood") == "of material\\: wood"


def test_code_holds_whatever_it_is_given() -> None:
    assert code("0 9 * * mon") == "`0 9 * * mon`"
    assert code("`a` **b** ``") == "``` `a` **b** `` ```"


def test_a_badge_and_a_plot_say_names_as_they_are() -> None:
    assert badge("[x] <b>", "red") == ":red-badge[\\[x\\] \\<b\\>]"
    assert drawn('<b>"A" & B</b>') == '&lt;b&gt;"A" &amp; B&lt;/b&gt;'


def test_a_document_becomes_lines_that_name_every_value() -> None:
    document = {
        "application_id": "A-1",
        "case": {"report": {"score": 612, "factors": ["short history", "debt"]}, "owner": False, "share": 0.5},
        "finding": [{"outcome": "unsure"}, {"outcome": None}],
        "nothing": [],
    }
    assert facts(document) == [
        ("application id", "A-1"),
        ("case › report › score", "612"),
        ("case › report › factors", "short history, debt"),
        ("case › owner", "no"),
        ("case › share", "0.5"),
        ("finding 1 › outcome", "unsure"),
        ("finding 2 › outcome", NONE),
        ("nothing", NONE),
    ]

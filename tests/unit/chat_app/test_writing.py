"""What is shown of a text while it is written: its end, whatever the pieces, and from whichever event one begins."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import reduce
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from chat_app.writing import SHOWN, Writing
from core.runs.model import RunEvent

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
PIECES = st.lists(st.text(min_size=1, max_size=SHOWN // 3), min_size=1, max_size=20)


def event(kind: str, **data: object) -> RunEvent:
    return RunEvent(1, NOON, kind, data)


def said(pieces: list[str], step: int = 1, attempt: int = 1) -> list[RunEvent]:
    offsets = accumulate(map(len, pieces), initial=0)
    return [
        event("text", step=step, attempt=attempt, offset=offset, text=text)
        for offset, text in zip(offsets, pieces, strict=False)
    ]


def shown(events: list[RunEvent]) -> Writing:
    return reduce(Writing.after, events, Writing())


@given(PIECES, st.data())
def test_the_end_of_a_text_is_shown_from_whichever_event_one_begins(pieces: list[str], data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(pieces) - 1))
    whole = "".join(pieces)
    there = shown(said(pieces))
    here = shown(said(pieces)[begin:])
    assert there.text == whole[-SHOWN:]
    assert there.cut == (len(whole) > SHOWN)
    assert whole.endswith(here.text)
    assert len(here.text) == min(SHOWN, len("".join(pieces[begin:])))
    assert here.cut == (here.text != whole)


def test_the_next_attempt_begins_anew_and_nothing_is_shown_after_the_step() -> None:
    first = said(["one ", "tw"])
    again = [*first, event("step_failed", step=1), event("step_started", step=1), *said(["one"], attempt=2)]
    assert shown(again) == Writing(1, 2, "one")
    assert shown([*first, *said(["one"], attempt=2)]) == Writing(1, 2, "one")
    for over in (event("step_done", step=1), event("claimed")):
        assert shown([*first, over]) == Writing()
    assert shown([*first, event("progress", done=1), event("step_done", step=2)]).text == "one tw"


def test_of_two_steps_that_write_at_once_one_is_shown_until_it_is_done() -> None:
    both = [*said(["a"]), *said(["b"], step=2), event("text", step=1, attempt=1, offset=1, text="a")]
    assert shown(both) == Writing(1, 1, "aa")
    late = event("text", step=2, attempt=1, offset=1, text="B")
    assert shown([*both, event("step_done", step=1), late]) == Writing(2, 1, "B", cut=True)

"""A run's timeline, from what is written down of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from core.runs.model import Cause
from core.runs.timeline import Attempt, Phase, Transition, parkings_of, timeline, waited_in
from core.runs.waiting import Passage, by_cause

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def passage(queued: float, claimed: float | None, released: float | None, **waited: float) -> Passage:
    """One time in the queue and in a slot."""
    causes = {"capped_s": 0.0, "paused_s": 0.0, "no_worker_s": 0.0, "no_code_s": 0.0} | waited
    moments = [None if each is None else at(each) for each in (claimed, released)]
    return Passage(at(queued), moments[0], moments[1], False, **causes)


def attempt(number: int, began: float, ended: float | None, state: str) -> Attempt:
    """An attempt of the first step."""
    finished = None if ended is None else at(ended)
    return Attempt(1, number, "pull", "call", state, 0, None, at(began), finished, None)


def told(seq: int, seconds: float, kind: str, cause: str | None = None) -> Transition:
    return Transition(seq, at(seconds), kind, cause)


def test_times_in_the_queue_in_slots_and_parked_follow_each_other_without_a_gap() -> None:
    passages = [passage(0, 10, 14, capped_s=6.0), passage(44, 45, None)]
    transitions = [told(1, 0, "submitted"), told(2, 14, "waiting", "review")]
    attempts = [attempt(1, 11, 12, "failed"), attempt(2, 13, 13.5, "done")]
    found = timeline(passages, attempts, transitions, at(50))
    assert [(entry.phase, entry.name, entry.lasted_s(at(50))) for entry in found] == [
        (Phase.QUEUED, "queued", 10),
        (Phase.SLOT, "slot", 4),
        (Phase.STEP, "pull", 1),
        (Phase.STEP, "pull", 0.5),
        (Phase.WAITING, "review", 30),
        (Phase.QUEUED, "queued", 1),
        (Phase.SLOT, "slot", 5),
    ]
    assert found[0].waited == {Cause.CAP: 6, Cause.SHARE: 4}
    assert (found[4].waited, found[6].ended) == ({Cause.REVIEW: 30}, None)
    assert waited_in(found) == by_cause(passages, parkings_of(transitions), at(50))


def test_between_a_failure_and_a_retry_nothing_is_waited_for() -> None:
    found = timeline(
        [passage(0, 1, 2), passage(100, 101, 103)],
        [],
        [told(1, 2, "failed"), told(2, 100, "retried"), told(3, 103, "succeeded")],
        at(200),
    )
    assert [entry.name for entry in found] == ["queued", "slot", "failed", "queued", "retried", "slot", "succeeded"]


def test_waits_from_before_the_passages_that_are_still_known_are_told_from_events() -> None:
    told_all = [told(1, 2, "waiting", "timer"), told(2, 30, "step_done"), told(3, 40, "waiting", "review")]
    old = timeline([], [], told_all, at(1_000))
    assert [(entry.name, entry.began, entry.ended) for entry in old] == [
        ("timer", at(2), at(30)),
        ("review", at(40), None),
    ]
    assert waited_in(old) == {Cause.TIMER: 28, Cause.REVIEW: 960}
    later = timeline([passage(20, 21, 40)], [], told_all, at(1_000))
    assert [entry.name for entry in later] == ["timer", "queued", "slot", "review"]
    assert waited_in(later) == {Cause.TIMER: 18, Cause.SHARE: 1, Cause.REVIEW: 960}


def test_a_parked_run_waits_until_it_is_cancelled_and_else_until_now() -> None:
    parked = [told(1, 2, "waiting", "timer")]
    (waits,) = timeline([passage(0, 1, 2)], [], parked, at(60))[2:]
    assert (waits.ended, waits.waited) == (None, {Cause.TIMER: 58})
    waits, end = timeline([passage(0, 1, 2)], [], [*parked, told(2, 30, "cancelled")], at(60))[2:]
    assert (waits.ended, waits.waited, end.name) == (at(30), {Cause.TIMER: 28}, "cancelled")

"""The same workflows in memory and on real servers: what an author tests is what a worker will do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from core.runs.model import Cause, RunState
from core.settings import Settings
from core.usage.model import usd
from tests.contract.places import DAY_S, POLICY, Definition, InMemory, OnServers, Place, Seen, effects
from tests.fixtures import family_workflows as family
from tests.fixtures import sample_workflows as samples
from tests.fixtures.sample_workflows import Work
from tests.fixtures.workers import site_in, working


async def steps_are_executed_once_and_in_order(place: Place, log: str) -> None:
    run_id = await place.start(samples.plain, Work(log=log))
    assert await place.seen(run_id) == Seen(
        RunState.SUCCEEDED,
        None,
        "done",
        {"first": f"{run_id}/1", "verdict": None, "payload": None},
        None,
        [(1, 1, "effect", "step", "done", 0), (2, 1, "second effect", "step", "done", 0)],
        [],
        0,
    )
    assert effects(log) == ["1", "2"]


async def a_step_that_refuses_fails_the_run_with_its_error(place: Place, log: str) -> None:
    seen = await place.seen(await place.start(samples.plain, Work(log=log, fail=True)))
    message = "Step failing: ValueError: work 0 is refused"
    assert (seen.state, seen.error) == (
        RunState.FAILED,
        {"code": "step_failed", "message": message, "details": {"step": "failing", "cause": "step_failed"}},
    )
    assert seen.steps == [(1, 1, "effect", "step", "done", 0), (2, 1, "failing", "step", "failed", 0)]


async def an_attempt_that_may_help_is_made_again(place: Place, log: str) -> None:
    seen = await place.seen(await place.start(samples.retried, Work(log=log)))
    assert (seen.state, seen.output["first"]) == (RunState.SUCCEEDED, "3")
    assert [(attempt, state) for _, attempt, _, _, state, _ in seen.steps] == [
        (1, "failed"),
        (2, "failed"),
        (3, "done"),
    ]


async def a_review_parks_the_run_until_it_is_decided(place: Place, log: str, definition: Definition) -> None:
    run_id = await place.start(definition, Work(log=log, number=7))
    seen = await place.seen(run_id)
    assert (seen.state, seen.waits_for, seen.waits) == (RunState.WAITING, Cause.REVIEW, [(2, Cause.REVIEW)])
    assert seen.steps[-1] == (2, 1, "review: general", "review", "started", 0)
    await place.answer(run_id, "decline")
    seen = await place.seen(run_id)
    assert (seen.state, seen.waits_for, seen.output["verdict"]) == (RunState.SUCCEEDED, None, "decline")
    assert seen.steps[-2:] == [
        (2, 1, "review: general", "review", "done", 0),
        (3, 1, "effect", "step", "done", 0),
    ]
    assert effects(log) == ["1", "3"]


async def a_timer_passes_and_an_event_brings_its_payload(place: Place, log: str) -> None:
    sleep_s = DAY_S if isinstance(place, InMemory) else 3.0  # it parks before they are over
    run_id = await place.start(samples.waits, Work(log=log, number=3, sleep_s=sleep_s))
    waits = [(2, Cause.TIMER), (3, Cause.EVENT)]
    seen = await place.seen(run_id)
    assert (seen.state, seen.waits_for, seen.waits) == (RunState.WAITING, Cause.EVENT, waits)
    await place.send(run_id, "go", "3", {"x": 5})
    seen = await place.seen(run_id)
    assert (seen.state, seen.output["payload"], seen.waits) == (RunState.SUCCEEDED, {"x": 5}, waits)
    assert [step[2:5] for step in seen.steps] == [
        ("effect", "step", "done"),
        (f"sleep {sleep_s:g} s", "timer", "done"),
        ("event: go", "event", "done"),
    ]
    assert effects(log) == ["1"]


async def a_run_parks_before_the_step_it_cannot_afford(place: Place, log: str, verdict: str) -> None:
    run_id = await place.start(samples.paid, Work(log=log))
    seen = await place.seen(run_id)
    assert (seen.waits_for, seen.waits, seen.cost_microusd) == (Cause.BUDGET, [(3, Cause.BUDGET)], usd("0.08"))
    await place.answer(run_id, verdict)
    seen = await place.seen(run_id)
    if verdict == "raise":
        assert (seen.state, seen.cost_microusd) == (RunState.SUCCEEDED, usd("0.20"))
        assert effects(log) == ["1", "2", "3"]
    else:
        assert (seen.state, seen.cost_microusd) == (RunState.FAILED, usd("0.08"))
        assert seen.error is not None
        assert seen.error["message"] == "Step effect: The run's budget of $0.10 does not cover $0.12 more."
        assert seen.steps[2:] == [(3, 1, "effect", "step", "failed", 0)]


async def a_replan_loop_climbs_the_ladder_and_never_overruns(place: Place, log: str) -> None:
    run_id = await place.start(samples.replan, Work(log=log))
    seen = await place.seen(run_id)
    assert (seen.waits_for, seen.waits, seen.cost_microusd) == (Cause.BUDGET, [(8, Cause.BUDGET)], usd("0.50"))
    assert seen.steps[-1] == (7, 1, "note", "step", "skipped", 0)
    assert seen.rungs == [(7, "budget_skip"), (8, "budget_ask")]
    await place.answer(run_id, "raise")
    seen = await place.seen(run_id)
    assert (seen.state, seen.cost_microusd, seen.output["verdict"]) == (RunState.SUCCEEDED, usd("0.58"), None)
    assert seen.rungs[2:] == [(8, "budget_raised")]
    assert effects(log) == ["1", "2", "3", "4", "5", "6", "8"]


async def every_attempt_of_a_call_takes_a_turn_and_waiting_gives_no_more_attempts(place: Place, log: str) -> None:
    seen = await place.seen(await place.start(samples.turns, Work(log=log)))
    assert (seen.state, seen.output["first"]) == (RunState.SUCCEEDED, "3")
    assert seen.waits == [(1, Cause.RATE), (1, Cause.RATE)]
    assert [(attempt, state) for _, attempt, _, _, state, _ in seen.steps] == [
        (1, "failed"),
        (2, "failed"),
        (3, "done"),
    ]


async def a_call_beyond_the_rate_limit_waits_for_its_window(place: Place, log: str) -> None:
    run_id = await place.start(samples.called_twice, Work(log=log))
    seen = await place.seen(run_id)
    assert (seen.state, seen.waits) == (RunState.SUCCEEDED, [(2, Cause.RATE)])
    assert seen.steps == [(1, 1, "effect", "call", "done", 0), (2, 1, "effect", "call", "done", 0)]
    assert effects(log) == ["1", "2"]


async def a_large_file_goes_by_reference(place: Place, log: str) -> None:
    seen = await place.seen(await place.start(samples.scanned, Work(log=log)))
    assert (seen.state, seen.output["first"]) == (RunState.SUCCEEDED, "300005 bytes of application/pdf")
    assert effects(log) == ["1"]


async def what_a_step_emits_is_heard_by_attempt(place: Place, log: str) -> None:
    run_id = await place.start(samples.talking, Work(log=log, number=3))
    assert (await place.seen(run_id)).state is RunState.SUCCEEDED
    said = await place.said(run_id)
    assert sorted(said, key=str) == sorted(
        [(1, 1, "try 1: one tw"), (1, 1, {"number": 3}), (1, 2, "try 2: one two"), (1, 2, {"number": 3})], key=str
    )


async def a_parent_gets_what_its_children_returned(place: Place, log: str) -> None:
    seen = await place.seen(await place.start(family.mixed, Work(log=log)))
    assert (seen.state, seen.output) == (
        RunState.SUCCEEDED,
        {"first": "1", "verdict": None, "payload": {"0": 0, "1": 1, "2": 4}},
    )
    assert [step[2:5] for step in seen.steps] == [
        ("spawn: sample-plain", "spawn", "done"),
        ("spawn: family-square", "spawn", "done"),
        ("map: family-square", "children", "done"),
        ("result: sample-plain", "children", "done"),
        ("effect", "step", "done"),
    ]
    assert sorted(effects(log)) == ["1", "2", "5"]


async def a_child_that_fails_fails_its_parent_with_what_it_was(place: Place, log: str) -> None:
    seen = await place.seen(await place.start(family.unlucky, Work(log=log, number=2)))
    assert (seen.state, seen.steps[-1][2:5]) == (RunState.FAILED, ("map: family-square", "children", "failed"))
    assert seen.error is not None
    assert (seen.error["code"], seen.error["details"]["state"]) == ("child_failed", "failed")
    assert seen.error["details"]["error"]["message"] == "Step failing: ValueError: work 2 is refused"


async def a_change_of_the_code_reaches_a_run_only_where_it_has_not_been(place: Place, log: str) -> None:
    before_the_change = Path(f"{log}.hold")
    before_the_change.touch()
    work = Work(log=log, hold=str(before_the_change))
    early = await place.start(samples.changed, work)
    before_the_change.unlink()
    await place.answer(early, "approve")
    late = await place.start(samples.changed, work)
    await place.answer(late, "approve")
    names = [[step[2] for step in (await place.seen(run_id)).steps] for run_id in (early, late)]
    assert names == [
        ["effect", "review: general", "archived", "last effect"],
        ["announcement", "effect", "review: general", "archived", "last effect"],
    ]
    assert effects(log) == ["1", "3", "4", "1", "2", "4", "5"]


async def a_run_that_fails_undoes_what_it_did_the_last_first(place: Place, log: str) -> None:
    run_id = await place.start(samples.saga, Work(log=log, number=71, fail=True))
    await place.send(run_id, "go", "71", {"go": 1})
    seen = await place.seen(run_id)
    assert (seen.state, (seen.error or {})["message"]) == (
        RunState.FAILED,
        "Step failing: ValueError: work 71 is refused",
    )
    assert effects(log) == ["1", "2", "4", "-2 undoes 2", "-1 undoes 1"]
    assert [step[:5] for step in seen.steps if step[3] == "undo"] == [
        (-2, 1, "undo book car", "undo", "done"),
        (-1, 1, "undo book room", "undo", "done"),
    ]


async def a_waiting_run_that_is_cancelled_undoes_what_it_did(place: Place, log: str) -> None:
    run_id = await place.start(samples.saga, Work(log=log, number=72))
    await place.cancel(run_id)
    assert (await place.seen(run_id)).state is RunState.CANCELLED
    assert effects(log) == ["1", "2", "-2 undoes 2", "-1 undoes 1"]


async def an_undo_that_fails_for_good_ends_the_run_and_says_what_is_left(place: Place, log: str) -> None:
    run_id = await place.start(samples.saga, Work(log=log, number=73, hold=log))
    await place.cancel(run_id)
    seen = await place.seen(run_id)
    assert seen.error is not None
    assert (seen.state, seen.error["code"], seen.error["details"]) == (
        RunState.FAILED,
        "compensation_failed",
        {"undone": [], "not_undone": ["book car", "book room"], "end": {"state": "cancelled", "error": None}},
    )
    assert effects(log) == ["1", "2"]


SCENARIOS: list[Callable[[Place, str], Coroutine[Any, Any, None]]] = [
    steps_are_executed_once_and_in_order,
    a_step_that_refuses_fails_the_run_with_its_error,
    an_attempt_that_may_help_is_made_again,
    partial(a_review_parks_the_run_until_it_is_decided, definition=samples.reviewed),
    partial(a_review_parks_the_run_until_it_is_decided, definition=samples.caught),
    a_timer_passes_and_an_event_brings_its_payload,
    partial(a_run_parks_before_the_step_it_cannot_afford, verdict="raise"),
    partial(a_run_parks_before_the_step_it_cannot_afford, verdict="stop"),
    a_replan_loop_climbs_the_ladder_and_never_overruns,
    every_attempt_of_a_call_takes_a_turn_and_waiting_gives_no_more_attempts,
    a_call_beyond_the_rate_limit_waits_for_its_window,
    a_large_file_goes_by_reference,
    what_a_step_emits_is_heard_by_attempt,
    a_parent_gets_what_its_children_returned,
    a_child_that_fails_fails_its_parent_with_what_it_was,
    a_change_of_the_code_reaches_a_run_only_where_it_has_not_been,
    a_run_that_fails_undoes_what_it_did_the_last_first,
    a_waiting_run_that_is_cancelled_undoes_what_it_did,
    an_undo_that_fails_for_good_ends_the_run_and_says_what_is_left,
]


def log_in(folder: Path, number: int) -> str:
    """Where the effects of one scenario are counted."""
    (folder / f"effects-{number}").touch()
    return str(folder / f"effects-{number}")


@pytest.mark.parametrize("number", range(len(SCENARIOS)))
async def test_a_workflow_does_in_memory_what_it_does_on_servers(number: int, tmp_path: Path) -> None:
    await SCENARIOS[number](InMemory(), log_in(tmp_path, number))


async def test_workflows_do_on_servers_what_they_do_in_memory(settings: Settings, tmp_path: Path) -> None:
    async with site_in(settings, POLICY) as site, working(site), asyncio.TaskGroup() as together:
        place = OnServers(site)
        for number, scenario in enumerate(SCENARIOS):
            together.create_task(scenario(place, log_in(tmp_path, number)))

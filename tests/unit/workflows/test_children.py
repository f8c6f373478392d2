"""Child runs in memory: what a parent gets, waits for and pays; what the types say."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, assert_type

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from core.runs.model import Cause, RunState
from core.tenancy import Policy
from core.usage.model import usd
from core.workflows import Child, ChildFailed, Run, Step, workflow
from core.workflows.testing import in_memory

DAY_S = 86_400.0


class Number(BaseModel):
    """What children are given."""

    number: int = 0
    sleep_s: float = 0.0
    cost: int = 0
    ask: bool = False


class Other(BaseModel):
    """What no child here takes."""

    text: str = ""


class Numbers(BaseModel):
    """What parents are given."""

    numbers: list[Number]
    at_once: int | None = None


async def double(step: Step, given: Number) -> int:
    """Work that may be refused, and may cost."""
    if given.number < 0:
        raise ValueError("negative")
    step.charge(given.cost)
    return 2 * given.number


@workflow("double", version="1", budget=usd("1"))
async def doubled(run: Run, given: Number) -> int:
    """A child."""
    if given.sleep_s:
        await run.sleep(given.sleep_s)
    if given.ask:
        await run.review("general", title="Go on?", evidence=given)
    return await run.step(double, given, estimate=given.cost)


@workflow("all", version="1", budget=usd("0.10"))
async def all_doubled(run: Run, given: Numbers) -> list[int]:
    """A parent that waits for all."""
    return await run.map(doubled, given.numbers, at_once=given.at_once)


@workflow("one", version="1")
async def one_by_one(run: Run, given: Numbers) -> int:
    """A parent that says what it waits for itself."""
    first = await run.spawn(doubled, given.numbers[0])
    second = await run.spawn("double", given.numbers[1])
    assert_type(first, Child[int])
    total, _ = await run.gather(run.result(first), run.sleep(60))
    return int(total) + int(await run.result(second))


@workflow("forgiving", version="1")
async def forgiving(run: Run, given: Numbers) -> str:
    """A parent that goes on without a child."""
    child = await run.spawn(doubled, given.numbers[0])
    try:
        return str(await run.result(child))
    except ChildFailed as failed:
        return f"{failed.details['state']}: {failed.details['error']['message']}"


@workflow("leaving", version="1")
async def leaving(run: Run, given: Numbers) -> int:
    """A parent that ends without having asked what became of its child."""
    await run.spawn(doubled, given.numbers[0])
    if given.numbers[0].number:
        raise ValueError("I give up")
    return 0


@workflow("endless", version="1")
async def endless(run: Run, given: Numbers) -> int:
    """Children without end."""
    return 1 + int(await run.result(await run.spawn("endless", given)))


@workflow("typed", version="1")
async def typed(run: Run, given: Numbers) -> None:
    """What mypy knows of children; executed like any other."""
    child = await run.spawn(doubled, given.numbers[0])
    assert_type(await run.result(child), int)
    assert_type(await run.map(doubled, given.numbers), list[int])


if TYPE_CHECKING:

    async def mistaken(run: Run) -> None:
        """Refused by mypy: an argument that the child does not take, and a result that it does not return."""
        await run.spawn(doubled, Other())  # type: ignore[misc]
        await run.map(doubled, [Other()])  # type: ignore[misc]
        text: str = await run.result(await run.spawn(doubled, Number()))  # type: ignore[arg-type]
        assert text


def numbers(*given: int, **all_of_them: float) -> Numbers:
    """What a parent is given."""
    return Numbers(numbers=[Number.model_validate({"number": number, **all_of_them}) for number in given])


async def test_a_parent_gets_what_its_children_returned_in_order() -> None:
    async with in_memory(all_doubled, children=[doubled]) as run_of:
        run = await run_of(numbers(3, 1, 2))
    assert run.output == [6, 2, 4]
    assert [(step.name, step.kind, step.state) for step in run.steps] == [
        ("spawn: double", "spawn", "done"),
        ("map: double", "children", "done"),
    ]
    assert [(wait.step, wait.cause) for wait in run.waits] == [(2, Cause.CHILDREN)]
    assert run.progress == {"done": 3, "total": 3, "note": ""}
    assert [(child.workflow, child.output) for child in run.children] == [("double", 6), ("double", 2), ("double", 4)]


async def test_at_once_so_many_children_are_open_together() -> None:
    async with in_memory(all_doubled, children=[doubled]) as run_of:
        run = await run_of(numbers(1, 2, 3, sleep_s=DAY_S).model_copy(update={"at_once": 2}))
    assert run.output == [2, 4, 6]
    assert [wait.seconds for wait in run.waits] == [DAY_S, DAY_S]
    assert [(step.step, step.attempt, step.state) for step in run.steps] == [(1, 1, "done"), (2, 1, "done")]


async def test_when_one_child_ends_the_next_begins_whatever_the_others_do() -> None:
    hours = [Number(number=hours, sleep_s=3_600.0 * hours) for hours in (10, 1, 2, 3, 4)]
    async with in_memory(all_doubled, children=[doubled]) as run_of:
        run = await run_of(Numbers(numbers=hours, at_once=2))
    assert run.output == [20, 2, 4, 6, 8]
    assert sum(wait.seconds for wait in run.waits) == 10 * 3_600
    begun = [child.steps[0].started_at for child in run.children]
    assert [(moment - begun[0]).total_seconds() / 3_600 for moment in begun] == [0, 0, 1, 3, 6]


async def test_after_a_child_that_failed_no_more_begin() -> None:
    given = [Number(number=1, sleep_s=DAY_S), Number(number=-1), Number(number=3)]
    async with in_memory(all_doubled, children=[doubled]) as run_of:
        run = await run_of(Numbers(numbers=given, at_once=2))
    assert run.error is not None
    assert run.error["details"]["run_id"] == run.children[1].run_id
    assert [child.state for child in run.children] == [RunState.SUCCEEDED, RunState.FAILED]
    assert [(step.name, step.state) for step in run.steps] == [("spawn: double", "failed"), ("map: double", "failed")]


@given(
    hours=st.lists(st.integers(0, 6), min_size=1, max_size=9),
    at_once=st.integers(1, 10),
)
@settings(max_examples=60, deadline=None)
async def test_a_window_is_full_while_there_is_anything_left_and_never_fuller(hours: list[int], at_once: int) -> None:
    async with in_memory(all_doubled, children=[doubled]) as run_of:
        many = [Number(number=n, sleep_s=3_600.0 * h) for n, h in enumerate(hours)]
        run = await run_of(Numbers(numbers=many, at_once=at_once))
    assert run.output == [2 * n for n in range(len(hours))]
    free = [0] * min(at_once, len(hours))  # a list schedule: each begins when the first place is free
    for hour in hours:
        heapq.heapreplace(free, min(free) + hour)
    assert sum(wait.seconds for wait in run.waits) == 3_600 * max(free)


async def test_children_wait_side_by_side_and_beside_their_parent() -> None:
    async with in_memory(one_by_one, children=[doubled]) as run_of:
        run = await run_of(numbers(1, 2, sleep_s=30.0))
    assert (run.output, sum(wait.seconds for wait in run.waits)) == (6, 60.0)


async def test_a_child_that_asks_people_is_answered_as_a_run_of_its_own() -> None:
    async with in_memory(one_by_one, children=[doubled]) as run_of:
        run = await run_of(Numbers(numbers=[Number(number=1, ask=True), Number(number=2)]))
        assert [cause for _, cause in run.waits_for] == [Cause.CHILDREN]
        await run.children[0].answer("approve")
        await run.go_on()
    assert run.output == 6


async def test_a_child_that_fails_says_so_to_its_parent() -> None:
    async with in_memory(forgiving, children=[doubled]) as run_of:
        run = await run_of(numbers(-1))
    assert run.output == "failed: Step double: ValueError: negative"


async def test_all_children_end_before_the_first_that_failed_is_told() -> None:
    async with in_memory(all_doubled, children=[doubled]) as run_of:
        run = await run_of(numbers(-1, 2, -3, sleep_s=DAY_S))
    assert run.error is not None
    assert (run.error["code"], run.error["details"]["run_id"]) == ("child_failed", run.children[0].run_id)
    assert [child.state for child in run.children] == [RunState.FAILED, RunState.SUCCEEDED, RunState.FAILED]


@pytest.mark.parametrize(("number", "child"), [(0, RunState.SUCCEEDED), (1, RunState.CANCELLED)])
async def test_a_child_goes_on_when_its_parent_succeeded_and_is_cancelled_when_it_did_not(
    number: int, child: RunState
) -> None:
    async with in_memory(leaving, children=[doubled]) as run_of:
        run = await run_of(numbers(number, sleep_s=DAY_S))
    assert run.children[0].state is child


async def test_what_children_spend_is_the_parents_and_its_budget_is_the_most() -> None:
    policy = Policy(budget_ask_at=1.0)
    async with in_memory(all_doubled, policy=policy, children=[doubled]) as run_of:
        run = await run_of(numbers(1, 2, 3, cost=usd("0.04")))
        assert (run.cost_microusd, run.waits_for) == (usd("0.08"), [(2, Cause.CHILDREN)])
        third = run.children[2]
        assert third.waits_for == [(1, Cause.BUDGET)]
        assert third.questions[0].evidence["budget"] == "$0.10"
        await third.answer("raise")
        await run.go_on()
    assert (run.output, run.cost_microusd) == ([2, 4, 6], usd("0.12"))


async def test_no_family_is_endless_and_no_step_spawns_more_than_a_thousand() -> None:
    async with in_memory(endless) as run_of:
        run = await run_of(numbers(1))
    assert run.error is not None
    assert "has 5 runs above it" in run.error["message"]
    async with in_memory(all_doubled, children=[doubled]) as run_of_many:
        wide = await run_of_many(numbers(*range(1_001)))
    assert wide.error is not None
    assert "at most 1000 runs; 1001 were given" in wide.error["message"]


async def test_types_go_through_from_argument_to_result() -> None:
    async with in_memory(typed, children=[doubled]) as run_of:
        run = await run_of(numbers(1, 2))
    assert run.state is RunState.SUCCEEDED

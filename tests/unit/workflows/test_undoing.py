"""Undoing in memory, whatever an execution is lost at: everything is undone, the last first, and nothing anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from core.runs.execution import Executing, Lost
from core.runs.model import RunState
from core.tenancy import Policy
from core.usage.model import usd
from core.workflows import Retry, Run, Step, Undo, workflow
from core.workflows.testing import in_memory

WRITES = ("begin_step", "finish_step", "fail_step", "fail_for_good", "compensate")
COST = usd("0.01")


class Plan(BaseModel):
    """Which of the steps can be undone."""

    undoable: list[bool]


effects: list[str] = []


async def do(step: Step, number: int) -> int:
    """An effect."""
    effects.append(step.idempotency_key.partition("/")[2])
    return number


async def undo(step: Step, number: int, done: int) -> None:
    """Undo it."""
    assert number == done
    await do(step, number)


async def fail(step: Step, number: int) -> None:
    """The step over which the run fails."""
    raise ValueError(number)


@workflow("saga", version="1", budget=2 * COST)
async def saga(run: Run, plan: Plan) -> None:
    """Steps, some of which can be undone, and a failure."""
    for number, undoable in enumerate(plan.undoable, start=1):
        await run.step(do, number, undo=Undo(undo, estimate=COST) if undoable else None)
    await run.step(fail, 0)


def losing(name: str, write: Callable[..., Any], losses: dict[tuple[str, int], str]) -> Callable[..., Any]:
    """The write, before or after which the execution is once another worker's, at some steps."""

    async def written(on: Executing, about: Any, *given: Any, **named: Any) -> Any:
        moment = losses.pop((name, about if isinstance(about, int) else 0), None)
        if moment == "before":
            raise Lost
        answer = await write(on, about, *given, **named)
        if moment == "after":
            raise Lost
        return answer

    return written


async def play(undoable: Sequence[bool], losses: dict[tuple[str, int], str]) -> None:
    effects.clear()
    async with in_memory(saga, policy=Policy(budget_run_microusd=2 * COST), replay=False) as run_of:
        for name in WRITES:
            setattr(run_of.records, name, losing(name, getattr(run_of.records, name), losses))
        run = await run_of(Plan(undoable=list(undoable)))
    numbers = range(1, len(undoable) + 1)
    to_undo = [number for number in numbers if undoable[number - 1]]
    assert run.state is RunState.FAILED
    # An effect that was had and not recorded is had again, at once and under the same key; no other is.
    assert [key for key, _ in groupby(effects)] == [str(n) for n in numbers] + [str(-n) for n in reversed(to_undo)]
    done = [step for step in run.steps if step.kind == "undo" and step.state == "done"]
    assert [step.step for step in done] == [-number for number in reversed(to_undo)]
    assert run.cost_microusd == COST * len(to_undo)


@settings(max_examples=150, deadline=None)
@given(
    undoable=st.lists(st.booleans(), max_size=4),
    losses=st.dictionaries(
        st.tuples(st.sampled_from(WRITES), st.integers(-4, 5)), st.sampled_from(["before", "after"]), max_size=20
    ),
)
def test_wherever_executions_are_lost_all_is_undone_once_the_last_first_and_paid(
    undoable: list[bool], losses: dict[tuple[str, int], str]
) -> None:
    asyncio.run(play(undoable, losses))


def test_a_step_is_tried_at_least_once() -> None:
    with pytest.raises(ValueError, match="at least once"):
        Retry(attempts=0)

"""Branches of ``run.gather`` that do several things one after the other, however they overtake each other."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from core.runs.model import RunState
from core.tenancy import Policy
from core.workflows import Run, Step, StepFailed, workflow
from core.workflows.testing import in_memory


class Part(BaseModel):
    """A branch: what it is called, after how many seconds each of its steps comes, its own branches after that, and
    whether it fails then."""

    name: str
    pauses: list[int] = []
    parts: list[Part] = []
    fails: bool = False


class Asked(BaseModel):
    part: Part
    number: int


async def ask(step: Step, asked: Asked) -> str:
    return f"{asked.part.name}{asked.number}"


async def refuse(step: Step, part: Part) -> None:
    raise ValueError(part.name)


async def answers(run: Run, part: Part) -> list[Any]:
    """What the steps of a branch return, in order, and then those of its branches."""
    told: list[Any] = []
    for number, pause_s in enumerate(part.pauses):
        await run.sleep(pause_s)
        told.append(await run.step(ask, Asked(part=part, number=number)))
    if part.parts:
        try:
            told.append(await run.gather(*(answers(run, below) for below in part.parts)))
        except StepFailed:
            told.append("failed")
        told.append(await run.step(ask, Asked(part=part, number=-1)))
    if part.fails:
        await run.step(refuse, part)
    return told


@workflow("branches", version="1")
async def branches(run: Run, whole: Part) -> list[Any]:
    return await answers(run, whole)


def expected(part: Part) -> list[Any]:
    told: list[Any] = [f"{part.name}{number}" for number in range(len(part.pauses))]
    if not part.parts:
        return told
    below = "failed" if any(one.fails for one in part.parts) else [expected(one) for one in part.parts]
    return [*told, below, f"{part.name}-1"]


def parts(*, fails: st.SearchStrategy[bool], depth: int) -> st.SearchStrategy[Part]:
    return st.builds(
        Part,
        name=st.sampled_from("abcdefgh"),
        pauses=st.lists(st.integers(0, 90), max_size=3),
        parts=st.lists(parts(fails=st.booleans(), depth=depth - 1), max_size=3) if depth else st.just([]),
        fails=fails,
    )


async def outcome(whole: Part) -> list[Any]:
    async with in_memory(branches) as run_of:
        run = await run_of(whole)
    numbers = [step.step for step in run.steps]
    assert len(numbers) == len(set(numbers)), "no step was done twice, and none failed but those that are to"
    told: list[Any] = run.output
    return told


async def test_a_branch_that_is_overtaken_gets_its_own_results() -> None:
    whole = Part(name="w", parts=[Part(name="slow", pauses=[60, 1]), Part(name="quick", pauses=[10, 10, 1])])
    assert await outcome(whole) == [[["slow0", "slow1"], ["quick0", "quick1", "quick2"]], "w-1"]


@given(parts(fails=st.just(False), depth=2))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_every_branch_gets_its_own_results_whatever_branches_it_has(whole: Part) -> None:
    assert asyncio.run(outcome(whole)) == expected(whole)


async def changed(run: Run) -> bool:
    return await run.patched("change")


@workflow("marked", version="1")
async def marked(run: Run, part: Part) -> bool:
    (taken,) = await run.gather(changed(run))
    return bool(taken)


async def test_a_marker_in_a_branch_is_refused() -> None:
    async with in_memory(marked) as run_of:
        run = await run_of(Part(name="x"))
    assert run.error is not None
    assert "before run.gather" in run.error["message"]


def unequal(branches: int, steps: int) -> Part:
    """Branches of which the first alone has several steps, and each step a sleep before it."""
    parts = [Part(name=str(number), pauses=[1] * (1 if number else steps)) for number in range(branches)]
    return Part(name="whole", parts=parts)


@pytest.mark.parametrize(("allowed", "state"), [(2 * (6 + 4) + 1, RunState.SUCCEEDED), (2 * (6 + 4), RunState.FAILED)])
async def test_steps_are_counted_and_not_the_numbers_that_stay_free(allowed: int, state: RunState) -> None:
    async with in_memory(branches, policy=Policy(max_steps=allowed)) as run_of:
        run = await run_of(unequal(branches=5, steps=6))
    assert run.state is state
    if state is RunState.FAILED:
        assert run.error is not None
        assert run.error["details"]["cause"] == "quota_exceeded"

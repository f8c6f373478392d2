"""What a run says while it executes: put together, numbered by attempt, cut off where it is too much."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from core.errors import InvalidInput, Unavailable
from core.runs.execution import Executing
from core.runs.model import RunState, Said
from core.workflows import Run, Step, workflow
from core.workflows.in_memory.records import RecordsInMemory
from core.workflows.telling import MAX_SAID, MAX_VALUE_BYTES, TEXT, Teller, heard
from core.workflows.testing import InMemory, in_memory


class Given(BaseModel):
    """What the workflow here is given."""

    pieces: list[str] = ["one ", "two"]


async def say(step: Step, given: Given) -> None:
    """Emit every piece."""
    for piece in given.pieces:
        step.emit(piece)
        await asyncio.sleep(0)


@workflow("telling", version="1")
async def telling(run: Run, given: Given) -> None:
    """Say it in a step, and how far it is."""
    await run.progress(1, 3)
    await run.progress(2, 3)
    await run.step(say, given)
    await run.progress(3, 3, "done")


def teller_of(run_of: InMemory[Any, Any]) -> tuple[Teller, Executing, RecordsInMemory]:
    """A voice of its own, and where it is heard."""
    on = run_of.executing("run_x", 1)  # type: ignore[arg-type]
    return Teller(run_of.records, on), on, run_of.records


@given(st.lists(st.text(max_size=50), max_size=30))
async def test_the_pieces_of_a_text_are_heard_whole_and_at_their_offsets(pieces: list[str]) -> None:
    async with in_memory(telling) as run_of:
        run = await run_of(Given(pieces=pieces))
    text = "".join(pieces)
    assert (run.state, run.said) == (RunState.SUCCEEDED, [(1, 1, text)] if text else [])
    assert run.progress == {"done": 3, "total": 3, "note": "done"}


async def test_what_is_said_in_a_moment_is_written_once_and_a_long_talk_less_often() -> None:
    async with in_memory(telling) as run_of:
        teller, on, records = teller_of(run_of)
        for number in range(500):
            teller.emit(1, 1, "word ")
            teller.progress({"done": number, "total": 500, "note": ""})
        await teller.close()
        said = records.of(on.run_id).said
    assert [(one.kind, len(str(one.data.get("text", "")))) for one in said] == [("text", 2_500), ("progress", 0)]
    assert said[1].data["done"] == 499


async def test_attempts_and_steps_are_never_mixed_up() -> None:
    async with in_memory(telling) as run_of:
        teller, on, records = teller_of(run_of)
        for step, attempt, piece in [(1, 1, "a"), (2, 1, "x"), (1, 1, "b"), (1, 2, "A"), (1, 2, "B")]:
            teller.emit(step, attempt, piece)
        await teller.close()
        said = records.of(on.run_id).said
    assert heard(said) == [(1, 1, "ab"), (2, 1, "x"), (1, 2, "AB")]
    assert [(one.data["step"], one.data["attempt"], one.data["offset"]) for one in said] == [
        (1, 1, 0),
        (2, 1, 0),
        (1, 1, 1),
        (1, 2, 0),
    ]


async def test_an_attempt_that_talks_without_end_is_cut_off_once() -> None:
    async with in_memory(telling) as run_of:
        teller, on, records = teller_of(run_of)
        for _ in range(30):
            teller.emit(1, 1, "x" * 10_000)
            await teller.write()
        teller.emit(1, 2, "the next attempt is heard")
        await teller.close()
        said = records.of(on.run_id).said
    texts = [one.data for one in said if one.kind == TEXT and one.data["attempt"] == 1]
    assert sum(len(data["text"]) for data in texts) == MAX_SAID
    assert [data.get("cut", False) for data in texts] == [False] * (len(texts) - 1) + [True]
    assert heard(said)[-1] == (1, 2, "the next attempt is heard")


@pytest.mark.parametrize("wrong", [object(), float("nan"), {"x": "y" * MAX_VALUE_BYTES}])
async def test_what_is_no_json_or_too_large_is_refused(wrong: object) -> None:
    async with in_memory(telling) as run_of:
        teller, _, _ = teller_of(run_of)
        with pytest.raises(InvalidInput):
            teller.emit(1, 1, wrong)
        await teller.close()


class Deaf(RecordsInMemory):
    """Records that are away."""

    async def tell(self, on: Executing, said: Sequence[Said], progress: dict[str, Any] | None) -> None:
        raise Unavailable("Postgres does not answer.")


async def test_a_run_that_nobody_can_hear_goes_on_and_leaves_no_task() -> None:
    async with in_memory(telling) as run_of:
        before = asyncio.all_tasks()
        teller = Teller(Deaf(run_of.clock, None, lose=False), run_of.executing("run_x", 1))  # type: ignore[arg-type]
        teller.emit(1, 1, "lost")
        await asyncio.sleep(0)
        teller.emit(1, 1, "lost too")
        await teller.close()
    assert asyncio.all_tasks() == before

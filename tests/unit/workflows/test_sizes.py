"""What a run cannot write down fails it once, with the reason, instead of executing it again and again."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel

from core.runs.model import MAX_INPUT_BYTES, RunState
from core.workflows import Run, Step, workflow
from core.workflows.testing import in_memory

pytestmark = pytest.mark.asyncio

LONE = "\ud800"  # what a file name that is no text becomes


class Given(BaseModel):
    """What to write, and where."""

    place: Literal["output", "outcome", "evidence", "title", "step", "name", "event", "error", "step's error"]
    kind: Literal["large", "no text"]

    @property
    def words(self) -> str:
        return "x" * (MAX_INPUT_BYTES + 1) if self.kind == "large" else LONE


class Evidence(BaseModel):
    text: str


async def told(step: Step, given: Given) -> str:
    if given.place == "step's error":
        raise ValueError(f"Nobody can read {given.words}")
    return given.words if given.place == "step" else ""


@workflow("writes", version="1")
async def writes(run: Run, given: Given) -> Any:
    await run.step(told, given, name=given.words if given.place == "name" else None)
    match given.place:
        case "outcome":
            run.outcome(given.words)
        case "evidence" | "title":
            words = {"title": "Well?", "text": "", ("text" if given.place == "evidence" else "title"): given.words}
            await run.review("people", title=words["title"], evidence=Evidence.model_construct(text=words["text"]))
        case "event":
            await run.event("signed", given.words, timeout_s=60.0)
        case "error":
            raise ValueError(f"Nobody can read {given.words}")
    return given.words if given.place == "output" else None


async def error_of(given: Given) -> dict[str, Any]:
    async with in_memory(writes) as run_of:
        run = await run_of(given)
    assert run.state is RunState.FAILED
    assert run.error is not None
    run.error["message"].encode()
    return run.error


@pytest.mark.parametrize("place", ["output", "outcome", "evidence", "title", "step", "name", "event"])
@pytest.mark.parametrize("kind", ["large", "no text"])
async def test_what_cannot_be_written_down_is_an_error_of_the_run(
    place: Literal["output", "outcome", "evidence", "title", "step", "name", "event"], kind: Literal["large", "no text"]
) -> None:
    error = await error_of(Given(place=place, kind=kind))
    assert error["message"]
    if kind == "large":
        assert "at most" in error["message"]


async def test_an_error_is_kept_whatever_is_in_its_message() -> None:
    for place, kept in (("error", "ValueError"), ("step's error", "Step told: ValueError")):
        error = await error_of(Given.model_validate({"place": place, "kind": "no text"}))
        assert error["message"] == f"{kept}: Nobody can read ?"

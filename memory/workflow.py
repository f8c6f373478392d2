"""``memory-extraction``: a turn of a conversation becomes memories, durably and in the background.

    learn ──no model──► sleep ──► learn …            learned ──► catch up ──no graph──► sleep ──► catch up …

The wait between attempts is free. Whose memories they become is told by the run (who submitted it), never by
its input. Without money the run waits for the budget. After the last pause ``learn`` fails the run; the graph
is given up on quietly, because the tenant's next change takes along what waits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.errors import BailiwickError, BudgetExceeded, StepFailed
from core.ids import ThreadId
from core.ports import Utterance
from core.workflows import Lane, Run, Step, workflow

PAUSES_S = (30.0, 300.0, 3_600.0, 21_600.0)
"""Sleeps between attempts while a model or the graph is away: 7 hours in all."""

_TIMEOUT_S = 150.0


class Message(BaseModel):
    """One side of the turn."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    role: Literal["user", "assistant"]
    text: Annotated[str, Field(max_length=200_000)]
    entry_id: Annotated[str, Field(max_length=100)] | None = None


class Turn(BaseModel):
    """What was said. ``said_at``: when, if it was not just now."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    thread_id: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=50)]
    said_at: datetime | None = None


class Attempt(BaseModel):
    """How an attempt ended: ``count`` changes; or not ``done``, because a part did not answer."""

    done: bool
    count: int = 0


class Learned(BaseModel):
    """What became of the turn. ``in_graph`` is false when the graph has yet to follow."""

    memories: int
    in_graph: bool


@workflow("memory-extraction", version="1", lane=Lane.BACKGROUND, private=True)
async def memory_extraction(run: Run, turn: Turn) -> Learned:
    """Learn the turn, then see to it that embeddings and graph are complete."""
    learned = await _insist(run, learn, turn)
    if not learned.done:
        raise StepFailed("No model answered in time: nothing was learned from this turn.")
    run.outcome("learned" if learned.count else "nothing new")
    followed = await _insist(run, catch_up, turn)
    return Learned(memories=learned.count, in_graph=followed.done)


async def learn(step: Step, turn: Turn) -> Attempt:
    """Extract and store what the user stated."""
    messages = [Utterance(said.role, said.text, said.entry_id) for said in turn.messages]
    try:
        count = await step.rooms.memory.learn(
            step.tenant,
            messages,
            thread_id=ThreadId(turn.thread_id) if turn.thread_id else None,
            said_at=turn.said_at,
            source_key=step.idempotency_key,
        )
    except BailiwickError as error:
        return _not_done(error)
    return Attempt(done=True, count=count)


async def catch_up(step: Step, turn: Turn) -> Attempt:  # noqa: ARG001 - what waits is the tenant's, not the turn's
    """Make up for missing embeddings, and let the graph follow."""
    try:
        return Attempt(done=True, count=await step.rooms.memory.drain(step.tenant))
    except BailiwickError as error:
        return _not_done(error)


async def _insist(run: Run, function: Callable[[Step, Turn], Awaitable[Attempt]], turn: Turn) -> Attempt:
    for pause_s in PAUSES_S:
        attempt = await run.step(function, turn, timeout_s=_TIMEOUT_S)
        if attempt.done:
            return attempt
        await run.sleep(pause_s)
    return await run.step(function, turn, timeout_s=_TIMEOUT_S)


def _not_done(error: BailiwickError) -> Attempt:
    """An attempt that is worth repeating. Raises the error when it is not, or when the run has to wait for money."""
    if isinstance(error, BudgetExceeded) or not error.retryable:
        raise error
    return Attempt(done=False)

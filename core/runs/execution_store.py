"""Rows that a worker writes while it executes a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from core.db.pool import Row, Transaction
from core.db.queries import load_queries
from core.ids import RunId
from core.queue.model import Held
from core.runs.model import Began, Cause, RunState, Said

SQL = load_queries(__file__)

Parent = tuple[RunId, int]
"""The run that spawned another, and at which of its steps."""


@dataclass(frozen=True, slots=True)
class OpenWait:
    """Something a run is about to park on."""

    step: int
    cause: Cause
    wake_at: datetime | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a step: started, done or failed."""

    number: int
    state: str


@dataclass(frozen=True, slots=True)
class StepEnd:
    """How a step ended: with a result, or (``error`` not None) for good with an error."""

    name: str
    result: Any
    error: dict[str, Any] | None
    undo: bool = False


class Standing(StrEnum):
    """What people want of a run that executes."""

    GOES_ON = "goes on"
    HELD = "held"
    TO_STOP = "to stop"


async def lock_reviews(tx: Transaction, run_id: str) -> None:
    """Lock what the run asks. Whoever may end it does so before the queue is locked."""
    await tx.execute(SQL["lock_reviews"], run_id)


async def close_reviews(tx: Transaction, run_id: str, now: datetime) -> int:
    """Ask nothing about the run any more; how many questions that closed."""
    return int(await tx.fetchval(SQL["close_reviews"], run_id, now))


async def finish(tx: Transaction, run_id: str, state: RunState, now: datetime) -> None:
    """Put a running run into a final state."""
    await tx.execute(SQL["finish"], run_id, state.value, None, None, None, now)


async def end(
    tx: Transaction,
    held: Held,
    state: RunState,
    output: Any,
    outcome: str | None,
    error: dict[str, Any] | None,
    now: datetime,
) -> tuple[int | None, Parent | None]:
    """Give the slot back and put the run into a final state; how many questions that closed, None: it is not ours."""
    row = await tx.fetchrow(SQL["end"], held.run_id, held.claim, state.value, output, outcome, error, now)
    return (None, None) if row is None else (row["closed"], _parent(row))


async def parent(tx: Transaction, run_id: str) -> Parent | None:
    """Which run spawned this one, at which of its steps."""
    return _parent(await tx.fetchrow(SQL["parent"], run_id))


def _parent(row: Row | None) -> Parent | None:
    return None if row is None or row["parent_run_id"] is None else (RunId(row["parent_run_id"]), row["parent_step"])


async def open_waits(tx: Transaction, run_id: str) -> list[OpenWait]:
    """What the run waits for, oldest first; empty when some of it is over: then it goes on."""
    rows = await tx.fetch(SQL["open_waits"], run_id)
    return [OpenWait(r["step"], Cause(r["cause"]), r["wake_at"]) for r in rows]


async def park(tx: Transaction, run_id: str, cause: Cause) -> Cause | None:
    """Put a running run into state 'waiting'; for what it waits (a held one for people), None: it is to stop."""
    waits: str | None = await tx.fetchval(SQL["park"], run_id, cause.value)
    return None if waits is None else Cause(waits)


async def requeue(tx: Transaction, run_id: str, now: datetime, why: str) -> RunState:
    """Put a running run back into the queue, ``why`` is the kind of the event; a held one into state 'waiting'."""
    return RunState(await tx.fetchval(SQL["requeue"], run_id, now, why))


async def tell(
    tx: Transaction, held: Held, said: Sequence[Said], progress: dict[str, Any] | None, now: datetime
) -> None:
    """What the run says, as its next events. ``progress`` None: it stays as it was."""
    kinds, contents = [one.kind for one in said], [one.data for one in said]
    await tx.execute(SQL["tell"], held.run_id, held.claim, now, kinds, contents, progress)


async def began(tx: Transaction, run_id: str) -> Began:
    """What is known of the executions of a run so far."""
    row = await tx.fetchrow(SQL["began"], run_id)
    return Began(None, False, None) if row is None else Began(**row)


async def compensate(tx: Transaction, held: Held, end: dict[str, Any], now: datetime) -> int:
    """The run begins to undo what it did, if it has not begun; how many questions that closed."""
    return await tx.fetchval(SQL["compensate"], held.run_id, held.claim, end, now) or 0


async def to_undo(tx: Transaction, run_id: str) -> dict[int, str]:
    """The names of the steps that there is a way to undo, undone already or not."""
    return {row["step"]: row["name"] for row in await tx.fetch(SQL["to_undo"], run_id)}


async def undoable(tx: Transaction, run_id: str) -> bool:
    """Whether the run did what can be undone, and is not."""
    return bool(await tx.fetchval(SQL["undoable"], run_id))


async def recorded_step(tx: Transaction, run_id: str, step: int) -> StepEnd | None:
    """How a step ended, None when it has not."""
    row = await tx.fetchrow(SQL["recorded_step"], run_id, step)
    return None if row is None else StepEnd(**row)


async def redone(tx: Transaction, run_id: str, step: int) -> int:
    """How often the step was done and set aside."""
    return int(await tx.fetchval(SQL["redone"], run_id, step))


async def newest_attempt(tx: Transaction, run_id: str, step: int) -> Attempt | None:
    """The newest attempt of a step, None when it was never begun."""
    row = await tx.fetchrow(SQL["newest_attempt"], run_id, step)
    return None if row is None else Attempt(row["attempt"], row["state"])


async def still_ours(tx: Transaction, held: Held) -> Standing | None:
    """Whether this claim of the run still stands; if so it does until the end of the transaction. None: it does not."""
    row = await tx.fetchrow(SQL["still_ours"], held.run_id, held.claim)
    if row is None:
        return None
    return Standing.HELD if row["held"] else Standing.GOES_ON


async def begin_step(
    tx: Transaction, held: Held, step: int, name: str, kind: str, now: datetime, *, undo: bool
) -> tuple[Standing | None, int]:
    """An attempt begins: how the run stands (None: not ours any more), and the attempt's number, 0: it does not."""
    row = await tx.fetchrow(SQL["begin_step"], held.run_id, held.claim, step, name, kind, now, undo)
    if row is None:
        return None, 0
    if row["attempt"] is not None:
        return Standing.GOES_ON, row["attempt"]
    return (Standing.HELD if row["held"] else Standing.TO_STOP), 0


async def begin_wait(
    tx: Transaction, run_id: str, step: int, attempt: int, name: str, kind: str, now: datetime
) -> None:
    """An attempt of a step that waits begins."""
    await tx.execute(SQL["begin_wait"], run_id, step, attempt, name, kind, now)


async def tries(tx: Transaction, run_id: str, step: int, no_try: Sequence[str]) -> int:
    """Attempts of a step that failed since the run began, but for these codes."""
    return int(await tx.fetchval(SQL["tries"], run_id, step, list(no_try)))


async def close_step(
    tx: Transaction,
    held: Held,
    step: int,
    attempt: int,
    *,
    result: Any = None,
    error: dict[str, Any] | None = None,
    cost_microusd: int = 0,
    model: str | None = None,
    now: datetime,
) -> bool:
    """The attempt is done, or (with an error) failed; False when it was not open, or the run is not ours any more."""
    state = "done" if error is None else "failed"
    data: dict[str, Any] = {"step": step, "attempt": attempt, "cost_microusd": cost_microusd}
    data |= {} if model is None else {"model": model}
    data |= {} if error is None else {"error": error}
    ended = (state, result, error, cost_microusd, model, now, data)
    return await tx.execute(SQL["close_step"], held.run_id, held.claim, step, attempt, *ended) == 1


async def fail_for_good(
    tx: Transaction, held: Held, step: int, name: str, kind: str, error: dict[str, Any], now: datetime
) -> bool:
    """No attempt of the step is made any more; False when the run is not ours any more."""
    return await tx.execute(SQL["fail_for_good"], held.run_id, held.claim, step, name, kind, error, now) == 1


async def arm_wait(
    tx: Transaction,
    run_id: str,
    step: int,
    cause: Cause,
    key: str | None,
    wake_at: datetime | None,
    now: datetime,
) -> None:
    """Write what the run will park on, before it parks."""
    await tx.execute(SQL["arm_wait"], run_id, step, cause.value, key, wake_at, now)


async def wait_is_open(tx: Transaction, run_id: str, step: int) -> bool:
    """Whether the wait is still armed."""
    return bool(await tx.fetchval(SQL["wait_is_open"], run_id, step))


async def disarm_wait(tx: Transaction, run_id: str, step: int) -> None:
    """Forget a wait whose answer came before the run parked."""
    await tx.execute(SQL["disarm_wait"], run_id, step)


async def event_payload(tx: Transaction, name: str, key: str) -> dict[str, Any] | None:
    """``{"payload": …}`` of an event that was sent."""
    row = await tx.fetchrow(SQL["event_payload"], name, key)
    return None if row is None else {"payload": row["payload"]}

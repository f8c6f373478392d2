"""Compensation: before a run ends badly, what its done steps brought about is undone, the last step first.

    the function failed, the run was cancelled or lasted too long
      └─► compensating ──► undo ──► undo ──► …    each a step of kind ``undo`` with attempts, timeout, record and key
            ├── all are done         the run ends as it would have
            ├── one failed for good  failed, ``compensation_failed``: retried by people, it goes on with that undo
            ├── one must wait        parked: a full rate window, a service that is down; then it goes on with that undo
            ├── the worker is to stop, or died: the next execution finds the done steps again, performs no other, and
            │                        goes on with the undos that are not done
            └── an undo that no execution comes to any more (the order of the steps has changed): as one that failed

The end to come is kept in the run's row from the beginning, so a crash does not change it. An undo is numbered as its
step, below zero; that of a call is under the same rate limit. Nothing stops undos half way: no cancellation, no limit
of the run's duration, and nobody can pause the run. What they cost is reserved and settled as for any step, but beyond
the budgets if need be, which the run's log tells (``overrun``). A step that was cut off in its middle is not done,
and so not undone: where that matters, one step says what will be done and the next one does it.

A run that is dead is not undone: people may replay it. When they cancel it instead, it executes once more, for this.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog
from pydantic import TypeAdapter

from core.errors import StepFailed
from core.runs.model import RunState
from core.workflows.faults import written
from core.workflows.performing import Performer, Work
from core.workflows.retry import Retry
from core.workflows.step import Step

FAILED = "compensation_failed"
KIND = "undo"

Arg = TypeVar("Arg")
Result = TypeVar("Result")

_SEVERAL = Retry(attempts=10)
"""More than the failures after which a service is left alone: so one that is down is waited for."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Undo(Generic[Arg, Result]):
    """How a done step is undone: ``function(step, argument, result)`` with what the step was given and returned.

    ``timeout_s``: of each attempt. ``estimate`` (micro-USD; None: learned from what the undo has cost) is reserved
    first, also when no money is left.
    """

    function: Callable[[Step, Arg, Result], Awaitable[Any]]
    retry: Retry = _SEVERAL
    timeout_s: float = 60.0
    estimate: int | None = 0


How = Undo[Arg, Result] | Callable[[Step, Arg, Result], Awaitable[Any]]


def undo_of(
    how: How[Arg, Result], argument: Arg, result: TypeAdapter[Result], name: str, service: str | None
) -> Callable[[Any], Work]:
    """What makes, of the recorded result of a step, the step that undoes it."""
    undo = how if isinstance(how, Undo) else Undo(how)

    def made(value: Any) -> Work:
        async def action(step: Step) -> None:
            await undo.function(step, argument, result.validate_python(value))

        return Work(
            KIND, f"undo {name}"[:200], undo.retry, undo.timeout_s, undo.estimate, service=service, action=action
        )

    return made


async def compensated(performer: Performer, end: dict[str, Any]) -> dict[str, Any]:
    """Undo what is to be undone, then the end: this one, or why not all is undone.

    Raises ``HandedOver``, ``Lost``, and ``Parked`` before an undo that must wait.
    """
    on = performer.on
    if on.claim == 1 and not performer.undos:
        return end
    to_undo = await written(lambda: performer.tools.execution.compensate(on, end))
    performer.undoing = True
    steps = sorted(to_undo, reverse=True)
    for done, step in enumerate(steps):
        try:
            if step not in performer.undos:
                raise StepFailed(f"The workflow does not come to step {step} any more.")
            await performer.perform(-step, performer.undos[step])
        except StepFailed as error:
            log.error("run.compensation_failed", run_id=on.run_id, step=step, error=error.message)
            names = [to_undo[each] for each in steps]
            details = {"undone": names[:done], "not_undone": names[done:], "end": _told(end)}
            message = f"Not all is undone. {error.message} Retry the run to go on undoing."
            return {"end": RunState.FAILED, "error": {"code": FAILED, "message": message, "details": details}}
    return end


def _told(end: dict[str, Any]) -> dict[str, Any]:
    return {"state": end["end"], "error": end.get("error")}

"""Child runs as an author uses them: spawn runs, wait for what became of them.

A spawn is a step, waiting for its children is another. Where the tenant's quota or the platform's load refuses new
runs for now, the parent waits for free until they may be taken; what can never be taken fails the step.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel, TypeAdapter

from core.errors import BudgetExceeded, ChildFailed, InvalidInput, Overloaded, QuotaExceeded
from core.runs.children import ChildEnd
from core.runs.execution import Executing, Wait
from core.runs.model import Cause, Lane, RunRequest, RunState
from core.usage.model import next_month
from core.workflows.faults import Parked, written
from core.workflows.performing import Performer

Takes_contra = TypeVar("Takes_contra", bound=BaseModel, contravariant=True)
Out = TypeVar("Out")
Out_co = TypeVar("Out_co", covariant=True)

_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)


class Spawnable(Protocol[Takes_contra, Out]):
    """What is needed of a workflow to spawn it: a ``WorkflowDefinition`` has it."""

    @property
    def name(self) -> str:
        """The workflow's name."""
        ...

    @property
    def version(self) -> str:
        """Which version of it."""
        ...

    @property
    def function(self) -> Callable[[Any, Takes_contra], Awaitable[Out]]:
        """What it takes and returns."""
        ...

    @property
    def output(self) -> TypeAdapter[Out]:
        """How what it returns is read from JSON."""
        ...


@dataclass(frozen=True, slots=True)
class Child(Generic[Out_co]):
    """A run that was spawned: its id, its workflow, and the step that spawned it. ``run.result`` waits for it."""

    run_id: str
    workflow: str
    step: int
    output: TypeAdapter[Out_co] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Brood(Generic[Out]):
    """What a step spawns: one run of a workflow for each argument."""

    workflow: str
    version: str | None
    output: TypeAdapter[Out]
    arguments: Sequence[BaseModel]
    lane: Lane | None

    def requests(self) -> list[RunRequest]:
        """What is asked for."""
        return [
            RunRequest(self.workflow, argument.model_dump(mode="json"), version=self.version, lane=self.lane)
            for argument in self.arguments
        ]


def brood(workflow: Spawnable[Any, Out] | str, arguments: Sequence[BaseModel], lane: Lane | None = None) -> Brood[Out]:
    """Children of a workflow: its definition, of this very version, or its name, of the newest version."""
    if isinstance(workflow, str):
        return Brood(workflow, None, _ANYTHING, arguments, lane)
    return Brood(workflow.name, workflow.version, workflow.output, arguments, lane)


async def spawned_one(performer: Performer, on: Executing, number: int, of: Brood[Out], name: str | None) -> Child[Out]:
    """The one child of a step. Raises ``StepFailed`` and ``Parked``."""
    run_ids = await _spawned(performer, on, number, name or f"spawn: {of.workflow}", of)
    return Child(run_ids[0], of.workflow, number, of.output)


async def result_of(performer: Performer, on: Executing, number: int, child: Child[Out]) -> Out:
    """What a child returned. Raises ``ChildFailed`` and ``Parked``."""
    outputs = await _results(performer, on, number, f"result: {child.workflow}", child.step, [child.run_id])
    return child.output.validate_python(outputs[0])


async def mapped(
    performer: Performer, on: Executing, number: Callable[[], int], of: Brood[Out], at_once: int | None
) -> list[Out]:
    """What children returned, in order; ``at_once`` of them open together. All steps are numbered first, so that
    others may go on beside these. Raises ``StepFailed``, ``ChildFailed`` and ``Parked``."""
    steps = [(number(), number(), wave) for wave in _waves(len(of.arguments), at_once)]
    outputs: list[Out] = []
    for spawn, wait, wave in steps:
        part = replace(of, arguments=of.arguments[wave.start : wave.stop])
        run_ids = await _spawned(performer, on, spawn, f"spawn: {of.workflow}", part)
        ended = await _results(performer, on, wait, f"map: {of.workflow}", spawn, run_ids)
        outputs += [of.output.validate_python(output) for output in ended]
    return outputs


async def _spawned(performer: Performer, on: Executing, number: int, name: str, of: Brood[Any]) -> list[str]:
    """The ids of the children, spawned now or in an earlier execution. Raises ``StepFailed`` and ``Parked``."""
    ended = await performer.recorded(number, name)
    if ended is not None:
        return [str(run_id) for run_id in ended.result]
    return await performer.or_for_good(number, name, "spawn", _admitted(performer, on, number, name, of.requests()))


async def _admitted(
    performer: Performer, on: Executing, number: int, name: str, requests: Sequence[RunRequest]
) -> list[str]:
    tools = performer.tools
    try:
        return await written(lambda: tools.children.spawn(on, number, name, requests))
    except BudgetExceeded:
        wake_at = next_month(tools.clock.now(), on.ctx.policy.timezone)
        await performer.park(Wait(number, name, Cause.BUDGET, key="month", wake_at=wake_at))
    except (QuotaExceeded, Overloaded) as refusal:
        limit = refusal.details.get("limit")
        if refusal.retry_after_s is None or (limit is not None and len(requests) > limit):
            raise  # however long it waits, so many are never taken
        wake_at = tools.clock.now() + timedelta(seconds=refusal.retry_after_s)
        await performer.park(Wait(number, name, Cause.RATE, key=str(refusal.details.get("quota")), wake_at=wake_at))


async def _results(
    performer: Performer, on: Executing, number: int, name: str, of_step: int, run_ids: Sequence[str]
) -> list[Any]:
    """The outputs of the children, as JSON, in order. Raises ``ChildFailed`` for the first that failed, ``Parked``."""
    children = performer.tools.children
    if await performer.recorded(number, name) is not None:
        return await _outputs(await written(lambda: children.stand(on, run_ids)))
    wait = Wait(number, name, Cause.CHILDREN, key=str(of_step))
    ends = await written(lambda: children.ends(on, wait, of_step, run_ids))
    if ends is None:
        raise Parked
    if len(ends) > 1:
        performer.teller.progress({"done": len(ends), "total": len(ends), "note": ""})
    return await performer.or_for_good(number, name, Cause.CHILDREN.value, _outputs(ends))


async def _outputs(ends: Sequence[ChildEnd]) -> list[Any]:
    for end in ends:
        if end.state is not RunState.SUCCEEDED:
            why = f": {end.error['message']}" if end.error else "."
            raise ChildFailed(
                f"Child run {end.run_id} ({end.workflow}) ended {end.state}{why}",
                run_id=end.run_id,
                state=end.state.value,
                error=end.error,
            )
    return [end.output for end in ends]


def _waves(count: int, at_once: int | None) -> list[range]:
    """The numbers of the children that are open together. Raises ``InvalidInput`` for less than one at once."""
    size = count if at_once is None else at_once
    if count and size < 1:
        raise InvalidInput("At least one child must be open at once.")
    return [range(begin, min(begin + size, count)) for begin in range(0, count, size)] if count else []

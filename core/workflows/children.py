"""Child runs as an author uses them: spawn runs, wait for what became of them.

A spawn is a step, waiting for its children is another. Where the tenant's quota or the platform's load refuses new
runs for now, the parent waits for free until they may be taken; what can never be taken fails the step.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel, TypeAdapter

from core.errors import BudgetExceeded, ChildFailed, InvalidInput, Overloaded, QuotaExceeded
from core.runs.children import ChildEnd, Spawning
from core.runs.execution import Wait
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

    def requests(self, numbers: Sequence[int]) -> list[RunRequest]:
        """What is asked for, for the arguments of these numbers."""
        arguments = [self.arguments[number].model_dump(mode="json") for number in numbers]
        return [RunRequest(self.workflow, one, version=self.version, lane=self.lane) for one in arguments]


def brood(workflow: Spawnable[Any, Out] | str, arguments: Sequence[BaseModel], lane: Lane | None = None) -> Brood[Out]:
    """Children of a workflow: its definition, of this very version, or its name, of the newest version."""
    if isinstance(workflow, str):
        return Brood(workflow, None, _ANYTHING, arguments, lane)
    return Brood(workflow.name, workflow.version, workflow.output, arguments, lane)


async def spawned_one(performer: Performer, number: int, of: Brood[Out], name: str | None) -> Child[Out]:
    """The one child of a step. Raises ``StepFailed`` and ``Parked``."""
    spawning = Spawning(number, name or f"spawn: {of.workflow}")
    run_ids = await _recorded(performer, spawning)
    if run_ids is None:
        attempts = _admitted(performer, spawning, [0], of)
        run_ids = await performer.or_for_good(number, spawning.name, "spawn", attempts) or []
    return Child(run_ids[0], of.workflow, number, of.output)


async def result_of(performer: Performer, number: int, child: Child[Out]) -> Out:
    """What a child returned. Raises ``ChildFailed`` and ``Parked``."""
    wait = Wait(number, f"result: {child.workflow}", Cause.CHILDREN, key=str(child.step))
    outputs = await _results(performer, wait, [child.run_id])
    return child.output.validate_python(outputs[0])


async def mapped(performer: Performer, number: Callable[[], int], of: Brood[Out], at_once: int | None) -> list[Out]:
    """What children returned, in order; ``at_once`` of them open together. Both steps are numbered first, so that
    others may go on beside these. Raises ``StepFailed``, ``ChildFailed`` and ``Parked``."""
    count = len(of.arguments)
    if count == 0:
        return []
    if at_once is not None and at_once < 1:
        raise InvalidInput("At least one child must be open at once.")
    spawning = Spawning(number(), f"spawn: {of.workflow}", count, min(at_once or count, count))
    wait = Wait(number(), f"map: {of.workflow}", Cause.CHILDREN, key=str(spawning.step))
    run_ids = await _recorded(performer, spawning)
    if run_ids is None:
        attempts = _all_spawned(performer, spawning, wait, of)
        run_ids = await performer.or_for_good(spawning.step, spawning.name, "spawn", attempts)
    return [of.output.validate_python(output) for output in await _results(performer, wait, run_ids)]


async def _recorded(performer: Performer, spawning: Spawning) -> list[str] | None:
    """The ids of the children, when all were spawned in an earlier execution."""
    ended = await performer.recorded(spawning.step, spawning.name)
    return None if ended is None else [str(run_id) for run_id in ended.result]


async def _all_spawned(performer: Performer, spawning: Spawning, wait: Wait, of: Brood[Any]) -> list[str]:
    """The ids of the children once all are spawned, now or in earlier executions.

    Raises ``Parked`` while no more may be open, ``ChildFailed``, and what a submission raises.
    """
    children = performer.tools.children
    await performer.recorded(wait.step, wait.name)  # it may have failed while some were still to be spawned
    numbers: Sequence[int] | None = range(spawning.at_once) if performer.on.claim == 1 else None
    while True:
        if numbers is None:
            look = await written(lambda: children.look(performer.on, spawning, wait))
            if look.ends:
                await performer.or_for_good(wait.step, wait.name, wait.cause.value, _outputs(look.ends))
            if look.numbers is None:
                raise Parked
            numbers = look.numbers
        run_ids = await _admitted(performer, spawning, numbers, of)
        if run_ids is not None:
            return run_ids
        numbers = None


async def _admitted(
    performer: Performer, spawning: Spawning, numbers: Sequence[int], of: Brood[Any]
) -> list[str] | None:
    tools, requests, number, name = performer.tools, of.requests(numbers), spawning.step, spawning.name
    try:
        return await written(lambda: tools.children.spawn(performer.on, spawning, numbers, requests))
    except BudgetExceeded:
        wake_at = next_month(tools.clock.now(), performer.on.ctx.policy.timezone)
        await performer.park(Wait(number, name, Cause.BUDGET, key="month", wake_at=wake_at))
    except (QuotaExceeded, Overloaded) as refusal:
        limit = refusal.details.get("limit")
        if refusal.retry_after_s is None or (limit is not None and len(requests) > limit):
            raise  # however long it waits, so many are never taken
        wake_at = tools.clock.now() + timedelta(seconds=refusal.retry_after_s)
        await performer.park(Wait(number, name, Cause.RATE, key=str(refusal.details.get("quota")), wake_at=wake_at))


async def _results(performer: Performer, wait: Wait, run_ids: Sequence[str]) -> list[Any]:
    """The outputs of the children, as JSON, in order. Raises ``ChildFailed`` for the first that failed, ``Parked``."""
    children = performer.tools.children
    if await performer.recorded(wait.step, wait.name) is not None:
        return await _outputs(await written(lambda: children.stand(performer.on, run_ids)))
    ends = await written(lambda: children.ends(performer.on, wait, run_ids))
    if ends is None:
        raise Parked
    if len(ends) > 1:
        performer.teller.progress({"done": len(ends), "total": len(ends), "note": ""})
    return await performer.or_for_good(wait.step, wait.name, wait.cause.value, _outputs(ends))


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

"""Where a workflow is executed: in memory, or by a worker on Postgres and Redis; and what is seen of it there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from core.runs.model import Cause, RunRequest, RunState, RunView, Said, StepView
from core.tenancy import Policy, RateLimit
from core.usage.model import usd
from core.workflows import WorkflowDefinition
from core.workflows.telling import TEXT, VALUE, heard
from core.workflows.testing import RunInMemory, in_memory
from tests.fixtures import family_workflows as family
from tests.fixtures import sample_workflows as samples
from tests.fixtures.sample_workflows import Work
from tests.fixtures.workers import Site

POLICY = Policy(
    # So long that a run on a busy machine parks before its turn has come, and is seen to wait.
    rate_limits={"bureau": RateLimit(limit=1, window_s=3), "busy": RateLimit(limit=1, window_s=3)},
    budget_run_microusd=usd("0.50"),
)
FOR_PEOPLE = (Cause.REVIEW, Cause.EVENT, Cause.BUDGET)
DAY_S = 86_400.0
CHILDREN = (samples.plain, family.squared)

Definition = WorkflowDefinition[Work, samples.Report]


@dataclass(frozen=True)
class Seen:
    """A run, without what differs from one execution to the next: ids and times."""

    state: RunState
    waits_for: Cause | None
    outcome: str | None
    output: Any
    error: dict[str, Any] | None
    steps: list[tuple[int, int, str, str, str, int]]
    waits: list[tuple[int, Cause]]
    cost_microusd: int
    rungs: list[tuple[int, str]] = field(default_factory=list)


class Place(Protocol):
    """Where runs of one tenant are executed."""

    async def start(self, definition: Definition, work: Work) -> str:
        """Submit a run; its id, once it has ended or waits for people."""
        ...

    async def answer(self, run_id: str, verdict: str) -> None:
        """Decide what the run asks, and wait until it goes on no further."""
        ...

    async def send(self, run_id: str, name: str, key: str, payload: Any) -> None:
        """Send an event, and wait until the run goes on no further."""
        ...

    async def cancel(self, run_id: str) -> None:
        """Cancel the run, and wait until it has ended."""
        ...

    async def seen(self, run_id: str) -> Seen:
        """The run."""
        ...

    async def said(self, run_id: str) -> list[tuple[int, int, Any]]:
        """What its steps emitted."""
        ...


def told(steps: list[StepView]) -> list[tuple[int, int, str, str, str, int]]:
    """Attempts without their times."""
    return [(one.step, one.attempt, one.name, one.kind, one.state, one.cost_microusd) for one in steps]


class InMemory:
    """``core.workflows.testing``."""

    def __init__(self) -> None:
        self._runs: dict[str, RunInMemory[samples.Report]] = {}

    async def start(self, definition: Definition, work: Work) -> str:
        async with in_memory(definition, policy=POLICY, children=CHILDREN) as run_of:
            run = await run_of(work)
        self._runs[run.run_id] = run
        return run.run_id

    async def answer(self, run_id: str, verdict: str) -> None:
        await self._runs[run_id].answer(verdict)

    async def send(self, run_id: str, name: str, key: str, payload: Any) -> None:
        await self._runs[run_id].send(name, key, payload)

    async def cancel(self, run_id: str) -> None:
        await self._runs[run_id].cancel()

    async def seen(self, run_id: str) -> Seen:
        run = self._runs[run_id]
        waiting = [(step, cause) for step, cause in run.waits_for]
        return Seen(
            run.state,
            waiting[0][1] if waiting else None,
            run.outcome,
            run.output.model_dump(mode="json") if run.state is RunState.SUCCEEDED else None,
            run.error,
            told(run.steps),
            [(wait.step, wait.cause) for wait in run.waits] + waiting,
            run.cost_microusd,
            [(rung.step, f"budget_{rung.what}") for rung in run.rungs],
        )

    async def said(self, run_id: str) -> list[tuple[int, int, Any]]:
        return self._runs[run_id].said


class OnServers:
    """A worker on Postgres and Redis."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def start(self, definition: Definition, work: Work) -> str:
        request = RunRequest(definition.name, work.model_dump(mode="json"))
        run, _ = await self._site.platform.runs.submit(self._site.admin, request)
        await self._settled(run.run_id, 0)
        return run.run_id

    async def answer(self, run_id: str, verdict: str) -> None:
        asked = await self._site.platform.reviews.open(self._site.reviewer)
        (review,) = [one for one in asked if one.run_id == run_id]
        parked = await self._parked(run_id)
        await self._site.platform.reviews.decide(self._site.reviewer, review.review_id, verdict)
        await self._settled(run_id, parked)

    async def send(self, run_id: str, name: str, key: str, payload: Any) -> None:
        parked = await self._parked(run_id)
        await self._site.platform.runs.send_event(self._site.admin, name, key, payload)
        await self._settled(run_id, parked)

    async def cancel(self, run_id: str) -> None:
        await self._site.platform.control.cancel(self._site.admin, run_id)
        await self._settled(run_id, 1)

    async def seen(self, run_id: str) -> Seen:
        run = await self._run(run_id)
        steps = await self._site.platform.runs.steps(self._site.admin, run_id)
        events = await self._site.platform.runs.events(self._site.admin, run_id)
        return Seen(
            run.state,
            run.cause,
            run.outcome,
            run.output,
            run.error,
            told(list(steps)),
            [(event.data["step"], Cause(event.data["cause"])) for event in events if event.kind == "waiting"],
            run.cost_microusd,
            [(event.data["step"], event.kind) for event in events if event.kind.startswith("budget_")],
        )

    async def said(self, run_id: str) -> list[tuple[int, int, Any]]:
        events = await self._site.platform.runs.events(self._site.admin, run_id)
        return heard(Said(event.kind, event.data) for event in events if event.kind in (TEXT, VALUE))

    async def _run(self, run_id: str) -> RunView:
        return await self._site.platform.runs.get(self._site.admin, run_id)

    async def _parked(self, run_id: str) -> int:
        return len((await self.seen(run_id)).waits)

    async def _settled(self, run_id: str, parked: int) -> None:
        async def look() -> bool | None:
            await self._site.platform.queue.wake_due()
            seen = await self.seen(run_id)
            waits = seen.waits_for in FOR_PEOPLE and len(seen.waits) > parked
            return seen.state.final or waits or None

        await self._site.until(look)


def effects(log: str) -> list[str]:
    """The steps that had an effect, each as often as it had one."""
    return [line.partition("/")[2] for line in Path(log).read_text("utf-8").splitlines()]

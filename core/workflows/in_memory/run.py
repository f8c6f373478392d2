"""One run in memory: what became of it, what a test may do to it, and how it moves on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

import stamina

from core.clock import FakeClock
from core.ids import RunId
from core.reviews.model import Decider, Vote
from core.runs.duration import limit_s
from core.runs.execution import Executing, Wait
from core.runs.model import Began, Cause, RunState, StepView
from core.tenancy import ROLE_SCOPES, Policy, Role
from core.workflows.definition import WorkflowDefinition
from core.workflows.ending import executed, overlong
from core.workflows.in_memory.records import RecordsInMemory
from core.workflows.in_memory.reviews import Question, ReviewsInMemory
from core.workflows.in_memory.rungs import Climbed, RungsInMemory
from core.workflows.performing import Performer
from core.workflows.run import Run
from core.workflows.telling import heard
from core.workflows.tools import Tools

Out = TypeVar("Out")

_MOST_ATTEMPTS = 1_000
_BY_ITSELF = (Cause.TIMER, Cause.RATE, Cause.ENDPOINT, Cause.BUDGET, Cause.CHILDREN)


@dataclass(frozen=True, slots=True)
class Waited:
    """A time for which the run was parked: at which step, why, and for how many seconds."""

    step: int
    cause: Cause
    seconds: float


class Place(Protocol):
    """Where runs of one tenant are in memory; see ``core.workflows.testing.InMemory``."""

    policy: Policy
    replay: bool
    clock: FakeClock
    records: RecordsInMemory
    reviews: ReviewsInMemory
    rungs: RungsInMemory
    tools: Tools

    def executing(
        self, run_id: RunId, claim: int, definition: WorkflowDefinition[Any, Any], at_most_microusd: int | None
    ) -> Executing:
        """A run as one claim of it."""
        ...

    def answer_to(self, question: Question) -> str | None:
        """What the test said about such questions in advance."""
        ...

    def children_of(self, run_id: str) -> list[RunInMemory[Any]]:
        """The runs that a run spawned, in order."""
        ...

    def over(self, run_id: str, wait: Wait) -> bool:
        """Whether the children for which a run waits have ended."""
        ...


class RunInMemory(Generic[Out]):
    """A run that the test started: what became of it, and what the test may do to it."""

    def __init__(
        self,
        of: Place,
        definition: WorkflowDefinition[Any, Out],
        run_id: RunId,
        document: dict[str, Any],
        at_most_microusd: int | None = None,
    ) -> None:
        self.run_id = run_id
        self.workflow = definition.name
        self.written: Any = None
        self.state = RunState.QUEUED
        self.outcome: str | None = None
        self.error: dict[str, Any] | None = None
        self.waits: list[Waited] = []
        self._of = of
        self._definition = definition
        self._document = document
        self._at_most = at_most_microusd
        self._claim = 0
        self._began = of.clock.now()
        self._parked_on: frozenset[int] = frozenset()
        self._parked_by = (0, Cause.TIMER)
        self._parked_at = self._began

    # What became of it ----------------------------------------------------------------------------------

    @property
    def output(self) -> Out:
        """What the workflow returned, read from JSON as a caller of the API reads it. Raises ``AssertionError``."""
        if self.state is not RunState.SUCCEEDED:
            why = f"failed: {self.error['message']}" if self.error else f"is {self.state}"
            raise AssertionError(f"The run has no output: it {why}")
        return self._definition.output.validate_python(self.written)

    @property
    def steps(self) -> list[StepView]:
        """Every attempt of every step, in the order in which they began."""
        return list(self._of.records.of(self.run_id).attempts)

    @property
    def cost_microusd(self) -> int:
        """What all attempts cost, its own and those of its children."""
        own = sum(step.cost_microusd for step in self.steps)
        return own + sum(child.cost_microusd for child in self.children)

    @property
    def progress(self) -> dict[str, Any] | None:
        """What the run last said about how far it is."""
        return self._of.records.of(self.run_id).progress

    @property
    def children(self) -> list[RunInMemory[Any]]:
        """The runs that it spawned, in order."""
        return self._of.children_of(self.run_id)

    @property
    def said(self) -> list[tuple[int, int, Any]]:
        """What its steps emitted, by step and attempt: values, and the text of each attempt put together."""
        return heard(self._of.records.of(self.run_id).said)

    @property
    def questions(self) -> list[Question]:
        """What people were asked, decided or not."""
        return self._of.reviews.of(self.run_id)

    @property
    def rungs(self) -> list[Climbed]:
        """What the degradation ladder did to it, in order."""
        return self._of.rungs.of(self.run_id)

    @property
    def waits_for(self) -> list[tuple[int, Cause]]:
        """Where and why it does not go on, by step; empty when it has ended."""
        return [(step, wait.cause) for step, wait in sorted(self._waits.items())]

    # What the test may do -------------------------------------------------------------------------------

    async def answer(
        self, verdict: str, *, comment: str = "", by: str = "reviewer", form: dict[str, Any] | None = None
    ) -> None:
        """Decide on the first open question, as the person ``by``, and let the run go on.

        Raises ``InvalidInput`` for a verdict that was not offered or a form that does not fit, ``Conflict`` for a
        second vote of the same person, ``AssertionError`` when nothing is asked.
        """
        asked = [question for question in self.questions if question.open]
        if not asked:
            raise AssertionError("The run asks nothing.")
        self._decide(asked[0], verdict, comment, by, form)
        await self.go_on()

    async def send(self, name: str, key: str, payload: Any) -> None:
        """Send an event to the tenant and let the run go on. The first payload of a name and key counts."""
        self._of.records.events.setdefault(f"{name}/{key}", payload)
        for step, wait in list(self._waits.items()):
            if (wait.cause, wait.key) == (Cause.EVENT, f"{name}/{key}"):
                del self._waits[step]
        await self.go_on()

    def deploy(self, definition: WorkflowDefinition[Any, Out]) -> None:
        """Change the code under the run: its next execution, when something happens, is of this definition."""
        self._definition = definition

    async def cancel(self) -> None:
        """Cancel the run: what its done steps brought about is undone, and it ends."""
        self.stop()
        await self.go_on()

    async def let_time_pass(self) -> None:
        """Jump to the next moment at which time does something: a timeout, or an SLA that is breached.

        Raises ``AssertionError`` when there is none.
        """
        moments = [moment for run in self.family() for moment in run.moments(by_itself=False)]
        if not moments:
            raise AssertionError("The run waits for nothing that time brings.")
        self._jump(min(moments))
        await self.go_on()

    async def go_on(self) -> None:
        """Execute until the run ends or waits for what only the test can do. ``answer`` and the others do it too."""
        while True:
            while await self.moved():
                pass
            moments = [moment for run in self.family() for moment in run.moments(by_itself=True)]
            if not moments:
                return
            self._jump(min(moments))

    # Its family -----------------------------------------------------------------------------------------

    async def moved(self) -> bool:
        """Whether the run, or one below it, could do something at this moment; it is done."""
        moved = False
        for child in self.children:
            moved = await child.moved() or moved
        if self.state.final:
            return moved
        for step, wait in list(self._waits.items()):
            if wait.cause is Cause.CHILDREN and self._of.over(self.run_id, wait):
                del self._waits[step]
        if self._parked() and not self._answered():
            return moved
        if not self._parked():
            await self._execute()
        return True

    def moments(self, *, by_itself: bool) -> list[datetime]:
        """When time does something to the run. ``by_itself``: none while it waits for people or an event as well."""
        waits = list(self._waits.values())
        if self.state.final or (by_itself and any(wait.cause not in _BY_ITSELF for wait in waits)):
            return []
        moments = [wait.wake_at for wait in waits if wait.wake_at is not None]
        if not by_itself:
            asked = [question.case for question in self.questions if question.open]
            moments += [case.next_at for case in asked if case.next_at is not None]
        return moments

    def due(self, now: datetime) -> None:
        """Time has passed: what it has ended is over."""
        for step, wait in list(self._waits.items()):
            if wait.wake_at is not None and wait.wake_at <= now:
                del self._waits[step]
        self._of.reviews.escalate(self.run_id)

    def stop(self) -> None:
        """It is cancelled, and what it spawned with it; if it did what can be undone, it executes once more."""
        record = self._of.records.of(self.run_id)
        if self.state.final:
            return
        if any(ended.undo for ended in record.ended.values()):
            record.cancel_requested = True
            self._waits.clear()
        else:
            self._end({"end": RunState.CANCELLED})

    def family(self) -> list[RunInMemory[Any]]:
        """The run and all below it."""
        return [self, *(each for child in self.children for each in child.family())]

    # Inside ---------------------------------------------------------------------------------------------

    @property
    def _waits(self) -> dict[int, Wait]:
        return self._of.records.of(self.run_id).waits

    def _parked(self) -> bool:
        return bool(self._parked_on) and self._parked_on <= self._waits.keys()

    def _answered(self) -> bool:
        for question in self.questions:
            verdict = self._of.answer_to(question) if question.open else None
            if verdict is not None:
                self._decide(question, verdict, "", f"reviewer-{len(question.case.votes) + 1}", None)
                return True
        return False

    def _decide(self, question: Question, verdict: str, comment: str, by: str, form: dict[str, Any] | None) -> None:
        who = Decider(f"user:{by}", by, ROLE_SCOPES[Role.ADMIN])
        cast = Vote(by, verdict, comment, self._of.clock.now(), form)
        self._of.reviews.decide(self.run_id, question, cast, who)

    def _jump(self, to: datetime) -> None:
        self._of.clock.advance(max(0.0, (to - self._of.clock.now()).total_seconds()))
        for run in self.family():
            run.due(to)

    async def _execute(self) -> None:
        now = self._of.clock.now()
        if self._parked_on:
            self.waits.append(Waited(*self._parked_by, seconds=(now - self._parked_at).total_seconds()))
            self._parked_on = frozenset()
        end = await self._once()
        if end["end"] is RunState.WAITING:
            self._park()
        elif end["end"] is not None:
            self._end(end)
            if self._of.replay:
                await self._check_repeats(end)

    async def _once(self) -> dict[str, Any]:
        self._claim += 1
        on = self._of.executing(self.run_id, self._claim, self._definition, self._at_most)
        run = Run(Performer(self._of.tools, on, self.workflow))
        record, lasted_s = self._of.records.of(self.run_id), (self._of.clock.now() - self._began).total_seconds()
        too_long = lasted_s >= limit_s(self._of.policy, self._definition.timeout_s)
        began = Began(self._began, record.cancel_requested, record.compensating)
        run.performer.resume(began, overlong(run, self._definition) if too_long else None)
        with stamina.set_testing(True, attempts=_MOST_ATTEMPTS, cap=True):
            return await executed(run, self._definition, self._document)

    def _park(self) -> None:
        self._parked_on = frozenset(self._waits)
        if self._parked_on:
            first = next(iter(self._waits.values()))
            self.state = RunState.WAITING
            self._parked_by, self._parked_at = (first.step, first.cause), self._of.clock.now()

    def _end(self, end: dict[str, Any]) -> None:
        self.state, self.outcome = end["end"], end.get("outcome")
        self.error, self.written = end.get("error"), end.get("output")
        self._parked_on = frozenset()
        self._waits.clear()
        if self.state is not RunState.SUCCEEDED:
            for child in self.children:
                child.stop()

    async def _check_repeats(self, end: dict[str, Any]) -> None:
        steps = len(self.steps)
        again = await self._once()
        if again != end or len(self.steps) != steps:
            raise AssertionError(
                f"Executed again from its top, the run did not end as before. First: {end}. Then: {again}. "
                "Keep clocks, random numbers and I/O inside steps, and steps in one order."
            )

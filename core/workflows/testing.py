"""Testing a workflow in the test's own process: no server, no waiting.

    async with in_memory(pay_invoice, reviews="approve") as run_of:
        run = await run_of(Invoice(number="7", amount_usd=120))
    assert run.output.paid

What executes is what a worker executes: ``Run`` and its ``Performer``, with lists in place of tables. Time does not
pass but jumps: over sleeps, rate windows and the month's end as soon as a run waits for nothing else, and over the
pauses between attempts. A run that waits for a person or an event stops there, until the test answers, sends or lets
the time pass.

A worker may be lost at any step, so unless ``replay=False`` the run is executed again from its top after every step,
and once more when it has ended: a workflow that does not repeat itself fails here rather than after a crash.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import stamina
from pydantic import BaseModel

from core.clock import FakeClock
from core.errors import InvalidInput
from core.ids import RunId, TenantId, UserId, WorkerId, new_id
from core.reviews.model import Decider, Vote
from core.runs.duration import too_long
from core.runs.execution import Executing, Wait
from core.runs.model import Cause, RunRequest, RunState, StepView, check_request
from core.tenancy import ROLE_SCOPES, ActorKind, Policy, Role, TenantContext
from core.workflows.definition import WorkflowDefinition
from core.workflows.ending import executed
from core.workflows.faults import describe
from core.workflows.in_memory.money import MoneyInMemory
from core.workflows.in_memory.outside import Handler, ServicesInMemory, WindowsInMemory
from core.workflows.in_memory.records import RecordsInMemory
from core.workflows.in_memory.reviews import Question, ReviewsInMemory
from core.workflows.in_memory.rungs import Climbed, RungsInMemory
from core.workflows.performing import Performer
from core.workflows.run import Run
from core.workflows.step import Rooms
from core.workflows.telling import heard
from core.workflows.tools import AgentModels, Models, Tools

In = TypeVar("In", bound=BaseModel)
Out = TypeVar("Out")

Answers = str | Callable[[Question], str | None]

STARTS = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
_MOST_ATTEMPTS = 1_000
_TIMED = (Cause.TIMER, Cause.RATE, Cause.BUDGET)


@dataclass(frozen=True, slots=True)
class Waited:
    """A time for which the run was parked: at which step, why, and for how many seconds."""

    step: int
    cause: Cause
    seconds: float


class _NoModels:
    """In place of the models when the test gives none."""

    def for_tenant(
        self,
        ctx: TenantContext,  # noqa: ARG002
        purpose: str,  # noqa: ARG002
        *,
        run_id: RunId | None = None,  # noqa: ARG002
        covered_microusd: int | None = None,  # noqa: ARG002
        cheapest: bool = False,  # noqa: ARG002
    ) -> AgentModels:
        raise InvalidInput("The workflow runs an agent: give it a model as in_memory(..., models=...).")


class RunInMemory(Generic[Out]):
    """A run that the test started: what became of it, and what the test may do to it."""

    def __init__(self, of: InMemory[Any, Out], run_id: RunId, document: dict[str, Any]) -> None:
        self.run_id = run_id
        self.state = RunState.QUEUED
        self.outcome: str | None = None
        self.error: dict[str, Any] | None = None
        self.waits: list[Waited] = []
        self._of = of
        self._document = document
        self._output: Any = None
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
        return self._of.definition.output.validate_python(self._output)

    @property
    def steps(self) -> list[StepView]:
        """Every attempt of every step, in the order in which they began."""
        return list(self._of.records.of(self.run_id).attempts)

    @property
    def cost_microusd(self) -> int:
        """What all attempts cost."""
        return sum(step.cost_microusd for step in self.steps)

    @property
    def progress(self) -> dict[str, Any] | None:
        """What the run last said about how far it is."""
        return self._of.records.of(self.run_id).progress

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

    async def let_time_pass(self) -> None:
        """Jump to the next moment at which time does something: a timeout, or an SLA that is breached.

        Raises ``AssertionError`` when there is none.
        """
        moments = [wait.wake_at for wait in self._waits.values() if wait.wake_at is not None]
        moments += [asked.case.next_at for asked in self.questions if asked.open and asked.case.next_at is not None]
        if not moments:
            raise AssertionError("The run waits for nothing that time brings.")
        self._jump(min(moments))
        await self.go_on()

    async def go_on(self) -> None:
        """Execute until the run ends or waits for what only the test can do. ``answer`` and the others do it too."""
        while not self.state.final:
            while self._parked():
                if not (self._answered() or self._time_jumped()):
                    return
            await self._execute()

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

    def _time_jumped(self) -> bool:
        moments = [wait.wake_at for wait in self._waits.values() if wait.cause in _TIMED and wait.wake_at is not None]
        if len(moments) < len(self._waits):
            return False
        self._jump(min(moments))
        return True

    def _jump(self, to: datetime) -> None:
        now = self._of.clock.now()
        self._of.clock.advance(max(0.0, (to - now).total_seconds()))
        for step, wait in list(self._waits.items()):
            if wait.wake_at is not None and wait.wake_at <= to:
                del self._waits[step]
        self._of.reviews.escalate(self.run_id)

    async def _execute(self) -> None:
        now = self._of.clock.now()
        if self._parked_on:
            self.waits.append(Waited(*self._parked_by, seconds=(now - self._parked_at).total_seconds()))
            self._parked_on = frozenset()
        policy = self._of.policy
        if (now - self._began).total_seconds() >= policy.max_duration_s:
            self._end({"end": RunState.FAILED, "error": describe(too_long(policy))})
            return
        end = await self._once()
        if end["end"] is RunState.WAITING:
            self._park()
        elif end["end"] is not None:
            self._end(end)
            if self._of.replay:
                await self._check_repeats(end)

    async def _once(self) -> dict[str, Any]:
        self._claim += 1
        on = self._of.executing(self.run_id, self._claim)
        run = Run(on, self._of.definition.name, Performer(self._of.tools, on))
        with stamina.set_testing(True, attempts=_MOST_ATTEMPTS, cap=True):
            return await executed(run, self._of.definition, self._document)

    def _park(self) -> None:
        self._parked_on = frozenset(self._waits)
        if self._parked_on:
            first = next(iter(self._waits.values()))
            self.state = RunState.WAITING
            self._parked_by, self._parked_at = (first.step, first.cause), self._of.clock.now()

    def _end(self, end: dict[str, Any]) -> None:
        self.state, self.outcome = end["end"], end.get("outcome")
        self.error, self._output = end.get("error"), end.get("output")
        self._waits.clear()

    async def _check_repeats(self, end: dict[str, Any]) -> None:
        steps = len(self.steps)
        again = await self._once()
        if again != end or len(self.steps) != steps:
            raise AssertionError(
                f"Executed again from its top, the run did not end as before. First: {end}. Then: {again}. "
                "Keep clocks, random numbers and I/O inside steps, and steps in one order."
            )


class InMemory(Generic[In, Out]):
    """One workflow and one tenant. Called with an input it starts a run, and returns it when it ends or waits."""

    def __init__(
        self,
        definition: WorkflowDefinition[In, Out],
        *,
        policy: Policy,
        reviews: Answers | None,
        services: ServicesInMemory,
        models: Models,
        replay: bool,
    ) -> None:
        self.definition = definition
        self.policy = policy
        self.replay = replay
        self.clock = FakeClock(STARTS)
        money = MoneyInMemory(self.clock)
        self.records = RecordsInMemory(self.clock, money, lose=replay)
        self.reviews = ReviewsInMemory(self.clock, self.records)
        self.rungs = RungsInMemory(self.records)
        self.tools = Tools(
            self.records, self.reviews, money, self.rungs, WindowsInMemory(), models, services, self.clock, self._pause
        )
        self._answers = reviews

    async def __call__(self, argument: In) -> RunInMemory[Out]:
        """Submit one run. Runs of one tenant share its rate limits, its month's budget and its events."""
        document = argument.model_dump(mode="json")
        check_request(RunRequest(self.definition.name, document))
        run = RunInMemory(self, RunId(new_id("run", self.clock.now())), document)
        await run.go_on()
        return run

    def executing(self, run_id: RunId, claim: int) -> Executing:
        """A run as one claim of it."""
        ctx = TenantContext(
            TenantId("test"),
            UserId("submitter"),
            ActorKind.RUN,
            run_id,
            ROLE_SCOPES[Role.MEMBER],
            self.policy,
            1,
            "test",
            "test",
        )
        own, most = self.definition.budget_microusd, self.policy.budget_run_microusd
        budget = most if own is None else min(own, most)
        return Executing(ctx, run_id, WorkerId("test"), claim, budget, None, None)

    def answer_to(self, question: Question) -> str | None:
        """What the test said about such questions in advance."""
        if isinstance(self._answers, str):
            return self._answers if self._answers in question.case.choices else None
        return None if self._answers is None else self._answers(question)

    async def _pause(self, seconds: float) -> None:
        self.clock.advance(seconds)


@asynccontextmanager
async def in_memory(
    definition: WorkflowDefinition[In, Out],
    *,
    policy: Policy | None = None,
    reviews: Answers | None = None,
    services: Mapping[str, Handler] | None = None,
    models: Models | None = None,
    rooms: Rooms | None = None,
    replay: bool = True,
) -> AsyncIterator[InMemory[In, Out]]:
    """A tenant in memory that executes one workflow.

    ``policy``: its limits, rate limits and budgets. ``reviews``: a verdict given whenever it is among the choices, or
    a function from the question to a verdict, None: left open. ``services``: what ``step.http(name)`` talks to, each a
    function, ``async`` or not, from ``httpx.Request`` to ``httpx.Response``. ``models``: what agents call. ``rooms``:
    what ``step.rooms`` gives. ``replay=False``: execute again only after waits, as a worker does that never dies.
    """
    lent = ServicesInMemory(services or {}, rooms)
    try:
        yield InMemory(
            definition,
            policy=policy or Policy(),
            reviews=reviews,
            services=lent,
            models=models or _NoModels(),
            replay=replay,
        )
    finally:
        await lent.close()

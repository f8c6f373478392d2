"""Testing a workflow in the test's own process: no server, no waiting.

    async with in_memory(pay_invoice, reviews="approve") as run_of:
        run = await run_of(Invoice(number="7", amount_usd=120))
    assert run.output.paid

What executes is what a worker executes: ``Run`` and its ``Performer``, with lists in place of tables. Time does not
pass but jumps: over sleeps, rate windows and the month's end as soon as a run waits for nothing else, and over the
pauses between attempts. A run that waits for a person or an event stops there, until the test answers, sends or lets
the time pass.

Child runs are executed, too: ``run.children`` are runs like the one that the test started.

A worker may be lost at any step, so unless ``replay=False`` the run is executed again from its top after every step,
and once more when it has ended: a workflow that does not repeat itself fails here rather than after a crash.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from core.clock import FakeClock
from core.errors import InvalidInput
from core.ids import RunId, TenantId, UserId, new_id
from core.runs.execution import Executing, Wait
from core.runs.model import RunRequest, check_request
from core.tenancy import ROLE_SCOPES, ActorKind, Policy, Role, TenantContext
from core.workflows.definition import WorkflowDefinition
from core.workflows.in_memory.children import ChildrenInMemory
from core.workflows.in_memory.money import MoneyInMemory
from core.workflows.in_memory.outside import Handler, ServicesInMemory, WindowsInMemory
from core.workflows.in_memory.patches import PatchesInMemory
from core.workflows.in_memory.records import RecordsInMemory
from core.workflows.in_memory.reviews import Question, ReviewsInMemory
from core.workflows.in_memory.run import RunInMemory, Waited
from core.workflows.in_memory.rungs import RungsInMemory
from core.workflows.registry import Registry
from core.workflows.step import Rooms
from core.workflows.tools import AgentModels, Models, Tools

In = TypeVar("In", bound=BaseModel)
Out = TypeVar("Out")

__all__ = ["InMemory", "RunInMemory", "Waited", "in_memory"]

Answers = str | Callable[[Question], str | None]

STARTS = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


class _NoModels:
    """In place of the models when the test gives none."""

    def for_tenant(
        self,
        ctx: TenantContext,  # noqa: ARG002
        purpose: str,  # noqa: ARG002
        *,
        run_id: RunId | None = None,  # noqa: ARG002
        step: tuple[int, int] | None = None,  # noqa: ARG002
        covered_microusd: int | None = None,  # noqa: ARG002
        cheapest: bool = False,  # noqa: ARG002
        cover_more: object = None,  # noqa: ARG002
    ) -> AgentModels:
        raise InvalidInput("The workflow runs an agent: give it a model as in_memory(..., models=...).")


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
        children: Iterable[WorkflowDefinition[Any, Any]],
    ) -> None:
        self.definition = definition
        self._children = {(each.name, each.version): each for each in (definition, *children)}
        self._definitions = Registry(self._children.values())
        self._runs: dict[str, RunInMemory[Any]] = {}
        self.policy = policy
        self.replay = replay
        self.clock = FakeClock(STARTS)
        services.keep_time(self.clock)
        money = MoneyInMemory(self.clock)
        self.records = RecordsInMemory(self.clock, money, lose=replay)
        self.reviews = ReviewsInMemory(self.clock, self.records)
        self.rungs = RungsInMemory(self.records)
        self._family = ChildrenInMemory(self.records, money, self._start)
        self.tools = Tools(
            self.records,
            self.reviews,
            money,
            self.rungs,
            WindowsInMemory(),
            models,
            services,
            self.clock,
            self._family,
            PatchesInMemory(self.records),
            self._pause,
        )
        self._answers = reviews

    async def __call__(self, argument: In) -> RunInMemory[Out]:
        """Submit one run. Runs of one tenant share its rate limits, its month's budget and its events."""
        document = argument.model_dump(mode="json")
        check_request(RunRequest(self.definition.name, document))
        run = RunInMemory(self, self.definition, RunId(new_id("run", self.clock.now())), document)
        await run.go_on()
        return run

    def children_of(self, run_id: str) -> list[RunInMemory[Any]]:
        """The runs that a run spawned, in order."""
        return [self._runs[child.run_id] for child in self._family.of(run_id)]

    def over(self, run_id: str, wait: Wait) -> bool:
        """Whether the children for which a run waits have ended."""
        return self._family.over(run_id, wait)

    def _start(self, request: RunRequest, at_most_microusd: int) -> RunInMemory[Any]:
        info = self._definitions.resolve(request.workflow, request.version)
        document = self._definitions.validate(info, request.input)
        definition = self._children[info.name, info.version]
        run_id = RunId(new_id("run", self.clock.now()))
        self._runs[run_id] = RunInMemory(self, definition, run_id, document, at_most_microusd)
        return self._runs[run_id]

    def executing(
        self,
        run_id: RunId,
        claim: int,
        definition: WorkflowDefinition[Any, Any] | None = None,
        at_most_microusd: int | None = None,
    ) -> Executing:
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
        own = (definition or self.definition).budget_microusd
        limits = (self.policy.budget_run_microusd, own, at_most_microusd)
        budget = min(limit for limit in limits if limit is not None)
        return Executing(ctx, run_id, claim, budget, None, None)

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
    children: Iterable[WorkflowDefinition[Any, Any]] = (),
) -> AsyncIterator[InMemory[In, Out]]:
    """A tenant in memory that executes one workflow.

    ``policy``: its limits, rate limits and budgets. ``reviews``: a verdict given whenever it is among the choices, or
    a function from the question to a verdict, None: left open. ``services``: what ``step.http(name)`` talks to, each a
    function, ``async`` or not, from ``httpx.Request`` to ``httpx.Response``. ``models``: what agents call. ``rooms``:
    what ``step.rooms`` gives. ``replay=False``: execute again only after waits, as a worker does that never dies.
    ``children``: the workflows of the runs that it spawns.
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
            children=children,
        )
    finally:
        await lent.close()

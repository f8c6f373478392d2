"""What a run needs to execute, as Protocols: the rooms of a worker, or the lists of ``core.workflows.testing``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from core.clock import Clock
from core.ids import RunId
from core.reviews.model import ONE_PERSON, Terms, Verdict
from core.runs.children import ChildEnd, Look, Spawning
from core.runs.execution import Executing, Wait
from core.runs.model import Cause, RunRequest, Said
from core.tenancy import RateLimit, TenantContext
from core.usage.ladder import AccountKind, Accounts, Taken
from core.workflows.step import Lent

if TYPE_CHECKING:
    from agents import RunConfig


class Ended(Protocol):
    """How a step ended: with a result, or (``error`` not None) for good with an error."""

    @property
    def name(self) -> str:
        """The step's name."""
        ...

    @property
    def result(self) -> Any:
        """What it returned, as JSON."""
        ...

    @property
    def error(self) -> dict[str, Any] | None:
        """Why it failed."""
        ...

    @property
    def undo(self) -> bool:
        """Whether it can be undone."""
        ...


class Records(Protocol):
    """What is written about a run. ``core.runs.execution.RunExecution`` says what each method does."""

    async def recorded(self, on: Executing, step: int) -> Ended | None:
        """How the step ended in an earlier execution of the run, None when it did not."""
        ...

    async def begin_step(
        self, on: Executing, step: int, name: str, kind: str, estimate_microusd: int = 0, *, undo: bool = False
    ) -> int:
        """Open an attempt and reserve its estimate; the attempt's number."""
        ...

    async def reserve_more(self, on: Executing, step: int, attempt: int, part: int, amount_microusd: int) -> None:
        """Reserve more for an open attempt."""
        ...

    async def redone(self, on: Executing, step: int) -> int:
        """How often the step was done and set aside."""
        ...

    async def compensate(self, on: Executing, end: dict[str, Any]) -> dict[int, str]:
        """Begin to undo what the run did, or go on with it; the steps by name."""
        ...

    async def tries(self, on: Executing, step: int) -> int:
        """Attempts of the step that failed since the run was submitted or retried."""
        ...

    async def finish_step(
        self,
        on: Executing,
        step: int,
        attempt: int,
        result: Any,
        *,
        cost_microusd: int = 0,
        model: str | None = None,
        reserved: bool = True,
    ) -> None:
        """Record the result and settle the cost."""
        ...

    async def fail_step(
        self,
        on: Executing,
        step: int,
        attempt: int,
        error: dict[str, Any],
        *,
        cost_microusd: int = 0,
        reserved: bool = True,
    ) -> None:
        """Record a failed attempt and settle what it cost."""
        ...

    async def fail_for_good(self, on: Executing, step: int, name: str, kind: str, error: dict[str, Any]) -> None:
        """Remember that the step is not tried again."""
        ...

    async def arm_wait(self, on: Executing, wait: Wait) -> None:
        """Write what the run is about to park on."""
        ...

    async def sleep(self, on: Executing, wait: Wait) -> bool:
        """Whether the timer has run out."""
        ...

    async def await_event(self, on: Executing, wait: Wait, name: str, key: str) -> dict[str, Any] | None:
        """``{"payload": …}`` of the event, ``{"timed_out": true}``, or None: the run must park."""
        ...

    async def tell(self, on: Executing, said: Sequence[Said], progress: dict[str, Any] | None) -> None:
        """Write what the run says as its next events, and (unless None) how far it is."""
        ...


class Children(Protocol):
    """Runs that a run spawns; see ``core.runs.children.ChildRuns``."""

    async def look(self, on: Executing, spawning: Spawning, wait: Wait) -> Look:
        """Which children may be spawned now."""
        ...

    async def spawn(
        self, on: Executing, spawning: Spawning, numbers: Sequence[int], requests: Sequence[RunRequest]
    ) -> list[str] | None:
        """Submit children and record how far the step is, once; the ids of all, when these were the last."""
        ...

    async def ends(self, on: Executing, wait: Wait, run_ids: Sequence[str]) -> list[ChildEnd] | None:
        """How they ended, in order; None: the run must park."""
        ...

    async def stand(self, on: Executing, run_ids: Sequence[str]) -> list[ChildEnd]:
        """How they stand, in order."""
        ...


class Reviews(Protocol):
    """Asking people; see ``core.reviews.service.ReviewService``."""

    async def request(
        self,
        on: Executing,
        step: int,
        *,
        pool: str,
        title: str,
        evidence: dict[str, Any],
        choices: list[str],
        sla_s: float,
        cause: Cause = Cause.REVIEW,
        terms: Terms = ONE_PERSON,
    ) -> Verdict | None:
        """The decision; None: it is asked for and the run's wait is armed."""
        ...

    async def used(self, on: Executing, step: int) -> None:
        """The decision was acted on: the next request at this step asks anew."""
        ...


class Money(Protocol):
    """The account of a run; see ``core.usage.service.UsageService``."""

    async def estimate(self, ctx: TenantContext, workflow: str, step: str) -> int:
        """What a step that declares nothing will probably cost at most."""
        ...

    async def accounts(self, ctx: TenantContext, run_id: str, limit_microusd: int) -> Accounts:
        """What the run may spend from."""
        ...

    async def cover(self, ctx: TenantContext, run_id: str, limit_microusd: int, amount_microusd: int) -> None:
        """The run's limit now covers this amount more."""
        ...


class Ladder(Protocol):
    """What the degradation ladder did to runs; see ``core.runs.rungs.Rungs``."""

    async def taken(self, on: Executing, step: int, name: str, taken: Taken) -> None:
        """The step is on this rung."""
        ...

    async def skip(self, on: Executing, step: int, name: str, kind: str, taken: Taken) -> None:
        """The step is skipped, for good."""
        ...

    async def answered(self, on: Executing, step: int, name: str, taken: Taken, verdict: str, by: str) -> None:
        """Somebody who was asked has answered."""
        ...

    async def agreed(self, ctx: TenantContext, run_id: str) -> frozenset[AccountKind]:
        """The accounts about which people said to go on."""
        ...


class Windows(Protocol):
    """The tenant's rate limits; see ``core.redis.limits.Limits``."""

    async def take(
        self, ctx: TenantContext, name: str, rate: RateLimit, now: datetime, *, holder: str | None = None
    ) -> float:
        """Take one call: 0.0 when it is to be made now, else the seconds after which to ask again."""
        ...


class AgentModels(Protocol):
    """The models of one tenant for one step."""

    @property
    def spent_microusd(self) -> int:
        """Cost of all calls so far."""
        ...

    def model_name(self) -> str:
        """The model that is called."""
        ...

    def run_config(self, *, workflow_name: str) -> RunConfig:
        """What the agents SDK is to run with."""
        ...


class Models(Protocol):
    """The models that agents may use; see ``core.models.gateway.ModelGateway``."""

    def for_tenant(
        self,
        ctx: TenantContext,
        purpose: str,
        *,
        run_id: RunId | None = None,
        step: tuple[int, int] | None = None,
        covered_microusd: int | None = None,
        cheapest: bool = False,
        cover_more: Callable[[int], Awaitable[None]] | None = None,
    ) -> AgentModels:
        """The models of one tenant for one purpose. ``step``: number and attempt."""
        ...


class Patches(Protocol):
    """Markers at changes of a workflow's code; see ``core.runs.patches.RunPatches``."""

    async def patched(self, on: Executing, name: str, after_step: int) -> bool:
        """Whether the run takes the new way."""
        ...


@dataclass(frozen=True, slots=True)
class Tools:
    """What is lent to every run that executes. ``pause`` waits for seconds that are too few to park for."""

    execution: Records
    reviews: Reviews
    usage: Money
    rungs: Ladder
    limits: Windows
    models: Models
    services: Lent
    clock: Clock
    children: Children
    patches: Patches
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep

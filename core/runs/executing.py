"""A run that executes: what its writes need, how it is interrupted, and what earlier executions recorded of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from core.clock import Clock
from core.db.pool import Database
from core.ids import RunId
from core.queue.model import Held
from core.runs import execution_store as store
from core.runs.execution_store import StepEnd
from core.runs.model import Began, Cause
from core.tenancy import TenantContext

NO_TRY = ("cancelled", "cut_off", "budget_exceeded", "endpoint_down")
"""Codes with which an attempt ends that says nothing about what was tried."""


class Cancelled(BaseException):
    """Somebody cancelled the run."""


class Paused(BaseException):
    """Somebody paused the run: nothing more begins, it parks."""


class Lost(BaseException):
    """The run is another worker's now. A ``BaseException``, so that no ``except Exception`` of a workflow stops it."""


class WaitPhase(StrEnum):
    """How far a wait is: armed just now, still armed, or ended by whoever ends it."""

    NEW = "new"
    OPEN = "open"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Wait:
    """A step that waits. ``wake_at`` None: only somebody else ends it."""

    step: int
    name: str
    cause: Cause
    key: str | None = None
    wake_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Executing:
    """The run that a worker executes: everything its writes need. ``claim``: the how manieth claim of it this is."""

    ctx: TenantContext
    run_id: RunId
    claim: int
    budget_microusd: int
    batch_id: str | None
    thread_id: str | None

    @property
    def held(self) -> Held:
        """The run under this claim."""
        return Held(self.run_id, self.claim)


def ledger_key(run_id: str, step: int, attempt: int) -> str:
    """The key of a step's reservation: one per attempt."""
    return f"{run_id}/{step}/{attempt}"


class Recorded:
    """What is recorded of runs, for the executions that come after."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def recorded(self, on: Executing, step: int) -> StepEnd | None:
        """How the step ended in an earlier execution of the run, None when it did not."""
        async with self._db.tenant_transaction(on.ctx) as tx:
            return await store.recorded_step(tx, on.run_id, step)

    async def redone(self, on: Executing, step: int) -> int:
        """How often the step was done before, and set aside: somebody wants it done again."""
        async with self._db.tenant_transaction(on.ctx) as tx:
            return await store.redone(tx, on.run_id, step)

    async def tries(self, on: Executing, step: int) -> int:
        """Attempts of the step that failed since the run was submitted or retried; not those that only could not begin
        (``NO_TRY``)."""
        async with self._db.tenant_transaction(on.ctx) as tx:
            return await store.tries(tx, on.run_id, step, NO_TRY)

    async def began(self, on: Executing) -> Began:
        """What an execution that is not the first must know of those before it."""
        async with self._db.tenant_transaction(on.ctx) as tx:
            return await store.began(tx, on.run_id)

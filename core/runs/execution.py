"""Runs as a worker executes them: begin and finish steps, arm waits, park, end.

Each method is one transaction. A step goes ``(none)`` → ``started`` → ``done`` | ``failed``; its result and
the settlement of its cost are written together, so whatever happens afterwards the step is neither executed
nor paid again: ``begin_step`` answers with the recorded result. ``end`` and ``park`` give the slot back in
the transaction that changes the state; when this worker no longer owns the slot they write nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from core.clock import Clock
from core.db.pool import Database, Transaction
from core.errors import QuotaExceeded
from core.ids import RunId, WorkerId
from core.queue.model import Topic
from core.queue.service import QueueService
from core.redis.bus import Bus
from core.runs import execution_store as store
from core.runs.model import Cause, RunState
from core.runs.store import append_event, event_line
from core.tenancy import TenantContext
from core.usage.service import UsageService


@dataclass(frozen=True, slots=True)
class StepStart:
    """What ``begin_step`` found. ``recorded``: the step finished before, ``result`` is its result."""

    attempt: int
    recorded: bool
    result: Any = None


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
    """The run that a worker executes: everything its writes need."""

    ctx: TenantContext
    run_id: RunId
    worker_id: WorkerId
    budget_microusd: int
    batch_id: str | None
    thread_id: str | None


def ledger_key(run_id: str, step: int, attempt: int) -> str:
    """The key of a step's reservation: one per attempt."""
    return f"{run_id}/{step}/{attempt}"


class RunExecution:
    """What a worker writes about the runs it holds."""

    def __init__(self, db: Database, bus: Bus, queue: QueueService, usage: UsageService, clock: Clock) -> None:
        self._db = db
        self._bus = bus
        self._queue = queue
        self._usage = usage
        self._clock = clock

    async def started(self, on: Executing) -> None:
        """Tell the tenant's screens that the run executes; the claim has written it."""
        await self._publish(on, RunState.RUNNING, None)

    async def begin_step(self, on: Executing, step: int, name: str, kind: str, estimate_microusd: int = 0) -> StepStart:
        """Open an attempt and reserve its estimate; or the result, when the step finished before.

        What earlier attempts reserved and never settled is given back first. Raises ``BudgetExceeded``
        (nothing is written then) and ``QuotaExceeded`` beyond the policy's steps per run.
        """
        if step > on.ctx.policy.max_steps:
            raise QuotaExceeded(
                f"A run has at most {on.ctx.policy.max_steps} steps.", quota="max_steps", limit=on.ctx.policy.max_steps
            )
        now = self._clock.now()
        async with self._db.tenant_transaction(on.ctx) as tx:
            recorded = await store.recorded_step(tx, on.run_id, step)
            if recorded is not None:
                return StepStart(recorded[0], True, recorded[1])
            attempt = await store.last_attempt(tx, on.run_id, step) + 1
            if estimate_microusd:
                await self._usage.abandon_in(tx, f"{on.run_id}/{step}/")
                await self._usage.reserve_in(
                    tx,
                    on.ctx,
                    ledger_key(on.run_id, step, attempt),
                    estimate_microusd,
                    run_id=on.run_id,
                    run_limit_microusd=on.budget_microusd,
                )
            await store.begin_step(tx, on.run_id, step, attempt, name, kind, now)
            await append_event(tx, on.run_id, now, "step_started", {"step": step, "attempt": attempt, "name": name})
        return StepStart(attempt, False)

    async def finish_step(
        self,
        on: Executing,
        step: int,
        attempt: int,
        result: Any,
        *,
        cost_microusd: int = 0,
        model: str | None = None,
    ) -> None:
        """Record the result and settle the cost in one transaction; nothing when the attempt is not open."""
        now = self._clock.now()
        async with self._db.tenant_transaction(on.ctx) as tx:
            if await store.finish_step(tx, on.run_id, step, attempt, result, cost_microusd, model, now):
                await self._usage.settle_in(tx, ledger_key(on.run_id, step, attempt), cost_microusd, model)
                data = {"step": step, "attempt": attempt, "cost_microusd": cost_microusd}
                await append_event(tx, on.run_id, now, "step_done", data)

    async def fail_step(
        self,
        on: Executing,
        step: int,
        attempt: int,
        error: dict[str, Any],
        *,
        cost_microusd: int = 0,
    ) -> None:
        """Record a failed attempt and settle what it cost all the same."""
        now = self._clock.now()
        async with self._db.tenant_transaction(on.ctx) as tx:
            await store.fail_step(tx, on.run_id, step, attempt, error, cost_microusd, now)
            await self._usage.settle_in(tx, ledger_key(on.run_id, step, attempt), cost_microusd)
            data = {"step": step, "attempt": attempt, "error": error}
            await append_event(tx, on.run_id, now, "step_failed", data)

    async def arm_wait(self, on: Executing, wait: Wait) -> None:
        """Write what the run is about to park on; whoever ends the wait deletes it, parked or not yet."""
        async with self._db.tenant_transaction(on.ctx) as tx:
            await self.arm_wait_in(tx, on, wait)

    async def arm_wait_in(self, tx: Transaction, on: Executing, wait: Wait) -> None:
        """The same in the caller's transaction. A wait that is armed already stays as it is."""
        await store.arm_wait(tx, on.run_id, wait.step, wait.cause, wait.key, wait.wake_at, self._clock.now())

    async def begin_wait_in(self, tx: Transaction, on: Executing, wait: Wait) -> WaitPhase:
        """Arm a wait that is a step of its own, once; how far it is. In the caller's transaction."""
        newest = await store.newest_attempt(tx, on.run_id, wait.step)
        if newest is None or newest.state == "failed":
            attempt = 1 if newest is None else newest.number + 1
            await store.begin_step(tx, on.run_id, wait.step, attempt, wait.name, wait.cause.value, self._clock.now())
            await self.arm_wait_in(tx, on, wait)
            return WaitPhase.NEW
        return WaitPhase.OPEN if await store.wait_is_open(tx, on.run_id, wait.step) else WaitPhase.OVER

    async def finish_wait_in(self, tx: Transaction, on: Executing, step: int, result: Any) -> None:
        """What was waited for is there. In the caller's transaction."""
        now = self._clock.now()
        await store.disarm_wait(tx, on.run_id, step)
        newest = await store.newest_attempt(tx, on.run_id, step)
        if newest is not None and await store.finish_step(tx, on.run_id, step, newest.number, result, 0, None, now):
            data = {"step": step, "attempt": newest.number, "cost_microusd": 0}
            await append_event(tx, on.run_id, now, "step_done", data)

    async def sleep(self, on: Executing, wait: Wait) -> bool:
        """Whether the timer has run out; False: the run must park."""
        async with self._db.tenant_transaction(on.ctx) as tx:
            over = await self.begin_wait_in(tx, on, wait) is WaitPhase.OVER
            if over:
                await self.finish_wait_in(tx, on, wait.step, None)
            return over

    async def await_event(self, on: Executing, wait: Wait, name: str, key: str) -> dict[str, Any] | None:
        """``{"payload": …}`` of the event, ``{"timed_out": true}``, or None: the run must park."""
        async with self._db.tenant_transaction(on.ctx) as tx:
            await event_line(tx, name, key)
            recorded = await store.recorded_step(tx, on.run_id, wait.step)
            if recorded is not None:
                answer: dict[str, Any] = recorded[1]
                return answer
            phase = await self.begin_wait_in(tx, on, wait)
            found = await store.event_payload(tx, name, key)
            if found is None and phase is not WaitPhase.OVER:
                return None
            result = found or {"timed_out": True}
            await self.finish_wait_in(tx, on, wait.step, result)
            return result

    async def progress(self, on: Executing, progress: dict[str, Any]) -> None:
        """Say how far the run is."""
        async with self._db.tenant_transaction(on.ctx) as tx:
            await store.set_progress(tx, on.run_id, progress)
        await self._publish(on, RunState.RUNNING, None, progress=progress)

    async def cancel_requested(self, on: Executing) -> bool:
        """Whether somebody wants the run to stop."""
        async with self._db.tenant_transaction(on.ctx) as tx:
            return await store.cancel_requested(tx, on.run_id)

    async def lasted_s(self, on: Executing) -> float:
        """Seconds since the run first got a slot."""
        async with self._db.tenant_transaction(on.ctx) as tx:
            began = await store.began(tx, on.run_id)
        return 0.0 if began is None else (self._clock.now() - began).total_seconds()

    async def end(
        self,
        on: Executing,
        state: RunState,
        *,
        output: Any = None,
        outcome: str | None = None,
        error: dict[str, Any] | None = None,
    ) -> bool:
        """Give the slot back and put the run into a final state; False when it is somebody else's now."""
        now = self._clock.now()
        async with self._db.tenant_transaction(on.ctx) as tx:
            if await self._queue.release_in(tx, on.run_id, on.worker_id) is None:
                return False
            await store.finish(tx, on.run_id, state, output, outcome, error, now)
            await append_event(tx, on.run_id, now, state.value, {"outcome": outcome, "error": error})
        await self._publish(on, state, None)
        return True

    async def park(self, on: Executing, resume_step: int) -> RunState | None:
        """Give the slot back and wait. ``queued`` when the wait is over already; None: not ours any more."""
        now = self._clock.now()
        async with self._db.tenant_transaction(on.ctx) as tx:
            if await self._queue.release_in(tx, on.run_id, on.worker_id) is None:
                return None
            waits = await store.open_waits(tx, on.run_id)
            cause = waits[0].cause if waits else None
            if cause is not None:
                await store.park(tx, on.run_id, cause, resume_step)
                data = {"cause": cause, "step": waits[0].step}
                await append_event(tx, on.run_id, now, "waiting", data)
            else:
                await self._requeue(tx, on, resume_step, now)
        if cause is None:
            await self._queue.signal_workers()
        elif any(wait.wake_at for wait in waits):
            await self._bus.signal(Topic.SCHEDULER)
        state = RunState.WAITING if cause else RunState.QUEUED
        await self._publish(on, state, cause)
        return state

    async def hand_back(self, on: Executing) -> bool:
        """Give the slot back and queue the run again at the head of its lane (a worker that drains)."""
        async with self._db.tenant_transaction(on.ctx) as tx:
            if await self._queue.release_in(tx, on.run_id, on.worker_id) is None:
                return False
            await self._requeue(tx, on, None, self._clock.now())
        await self._queue.signal_workers()
        return True

    async def _requeue(self, tx: Transaction, on: Executing, resume_step: int | None, now: datetime) -> None:
        await store.requeue(tx, on.run_id, resume_step, now)
        await self._queue.push_in(tx, [on.run_id], head=True)

    async def _publish(
        self, on: Executing, state: RunState, cause: Cause | None, progress: dict[str, Any] | None = None
    ) -> None:
        data: dict[str, Any] = {
            "run_id": on.run_id,
            "state": state,
            "cause": cause,
            "batch_id": on.batch_id,
            "thread_id": on.thread_id,
        }
        if progress is not None:
            data["progress"] = progress
        await self._bus.publish(on.ctx.tenant_id, "run", data)

"""Runs as a worker executes them: begin and finish steps, arm waits, park, end.

Each method is one transaction. A step goes ``(none)`` → ``started`` → ``done`` | ``failed``; its result and
the settlement of its cost are written together, so whatever happens afterwards the step is neither executed
nor paid again: ``recorded`` answers how it ended. These records are the checkpoints; there are no others.

The fence: every write of a step is made in the row of the run and asks whether the run still executes under our
claim of it. A worker that lost the run (it was silent too long) writes nothing more and is told by ``Lost``; of
``end`` and ``park``, which give the slot back in the transaction that changes the state, it is told by the answer.
So it does not matter how often, or how late, a write is repeated whose answer was lost.

What the run asks people is closed in the transaction in which it ends, or begins to undo what it did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from core.clock import Clock
from core.db.pool import Database, Transaction
from core.queue.model import Topic
from core.queue.service import QueueService
from core.redis.bus import Bus
from core.runs import execution_store as store
from core.runs.executing import NO_TRY, Cancelled, Executing, Lost, Paused, Recorded, Wait, WaitPhase, ledger_key
from core.runs.execution_store import Standing
from core.runs.family import Family
from core.runs.model import Cause, RunState, Said
from core.runs.store import append_event, event_line
from core.usage.model import format_usd
from core.usage.service import UsageService

__all__ = [
    "NO_TRY",
    "Cancelled",
    "Executing",
    "Lost",
    "Paused",
    "RunExecution",
    "Wait",
    "WaitPhase",
    "ledger_key",
]


_STOPPED_BY = {None: Lost, Standing.TO_STOP: Cancelled, Standing.HELD: Paused}


class RunExecution(Recorded):
    """What a worker writes about the runs it holds."""

    def __init__(self, db: Database, bus: Bus, queue: QueueService, usage: UsageService, clock: Clock) -> None:
        super().__init__(db, clock)
        self._bus = bus
        self._queue = queue
        self._usage = usage
        self._family = Family(db, bus, queue, clock)

    def started(self, on: Executing) -> None:
        """Tell the tenant's screens that the run executes; the claim has written it."""
        self._say(on, RunState.RUNNING, None)

    async def begin_step(
        self, on: Executing, step: int, name: str, kind: str, estimate_microusd: int = 0, *, undo: bool = False
    ) -> int:
        """Open an attempt and reserve its estimate; the attempt's number. ``undo``: once done, it can be undone.

        What earlier attempts reserved and never settled is given back first. Raises ``BudgetExceeded``, but not for an
        undo (its number is below zero), ``Cancelled``, ``Paused`` and ``Lost``; nothing is written then.
        """
        opened = self._db.tenant_transaction if estimate_microusd else self._db.tenant_statement
        async with opened(on.ctx) as tx:
            attempt = await self.begin_in(tx, on, step, name, kind, undo=undo)
            if estimate_microusd:
                if attempt > 1:
                    await self._usage.abandon_in(tx, f"{on.run_id}/{step}/")
                key = ledger_key(on.run_id, step, attempt)
                await self._reserve_in(tx, on, key, estimate_microusd, beyond=step < 0)
        if attempt > 1 and not estimate_microusd:
            await self._usage.abandon(on.ctx, f"{on.run_id}/{step}/")
        self._bus.news.of_run(on.ctx.tenant_id, on.run_id)
        return attempt

    async def reserve_more(self, on: Executing, step: int, attempt: int, part: int, amount_microusd: int) -> None:
        """Reserve more for an open attempt; ``part`` counts how often. Raises ``BudgetExceeded`` and ``Lost``."""
        async with self._db.tenant_transaction(on.ctx) as tx:
            await self.standing_in(tx, on)
            await self._reserve_in(tx, on, f"{ledger_key(on.run_id, step, attempt)}/{part}", amount_microusd)

    async def _reserve_in(
        self, tx: Transaction, on: Executing, key: str, amount_microusd: int, *, beyond: bool = False
    ) -> None:
        limit = on.budget_microusd
        await self._usage.reserve_in(
            tx, on.ctx, key, amount_microusd, run_id=on.run_id, run_limit_microusd=limit, beyond=beyond
        )

    async def begin_in(
        self, tx: Transaction, on: Executing, step: int, name: str, kind: str, *, undo: bool = False
    ) -> int:
        """Open an attempt in the caller's transaction. Raises what ``begin_step`` does, but for money."""
        stands, attempt = await store.begin_step(tx, on.held, step, name, kind, self._clock.now(), undo=undo)
        if stands is not Standing.GOES_ON:
            raise _STOPPED_BY[stands]
        return attempt

    async def finish_in(self, tx: Transaction, on: Executing, step: int, attempt: int, result: Any) -> None:
        """Record the result of an attempt that reserved nothing, in the caller's transaction."""
        await store.close_step(tx, on.held, step, attempt, result=result, now=self._clock.now())

    async def unless_stopped_in(self, tx: Transaction, on: Executing) -> None:
        """Raise ``Lost``, or ``Paused`` when somebody has paused the run. In the caller's transaction."""
        if await self.standing_in(tx, on) is Standing.HELD:
            raise Paused

    async def standing_in(self, tx: Transaction, on: Executing) -> Standing:
        """What people want of the run, which is ours until the end of the caller's transaction. Raises ``Lost``."""
        stands = await store.still_ours(tx, on.held)
        if stands is None:
            raise Lost
        return stands

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
        """Record the result and settle the cost in one transaction; nothing when the attempt is not open.

        ``reserved`` False: ``begin_step`` reserved nothing; what it cost all the same is charged, beyond the budget if
        need be. Raises ``Lost``.
        """
        await self._close_step(
            on, step, attempt, result=result, cost_microusd=cost_microusd, model=model, reserved=reserved
        )

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
        """Record a failed attempt and settle what it cost all the same. Raises ``Lost``."""
        await self._close_step(on, step, attempt, error=error, cost_microusd=cost_microusd, reserved=reserved)

    async def _close_step(
        self,
        on: Executing,
        step: int,
        attempt: int,
        *,
        result: Any = None,
        error: dict[str, Any] | None = None,
        cost_microusd: int,
        model: str | None = None,
        reserved: bool,
    ) -> None:
        paid = reserved or cost_microusd > 0
        async with (self._db.tenant_transaction if paid else self._db.tenant_statement)(on.ctx) as tx:
            closed = await store.close_step(
                tx,
                on.held,
                step,
                attempt,
                result=result,
                error=error,
                cost_microusd=cost_microusd,
                model=model,
                now=self._clock.now(),
            )
            if closed and paid:
                key, learn = ledger_key(on.run_id, step, attempt), error is None
                if not reserved:
                    await self._reserve_in(tx, on, key, cost_microusd, beyond=True)
                await self._usage.settle_step_in(
                    tx, key, cost_microusd, model, run_id=on.run_id, step=step, attempt=attempt, learn=learn
                )
                if cost_microusd and (step < 0 or not reserved):
                    await self._tell_overrun(tx, on, step, attempt)
        if not closed:
            async with self._db.tenant_transaction(on.ctx) as tx:
                await self.standing_in(tx, on)
        self._bus.news.of_run(on.ctx.tenant_id, on.run_id)

    async def _tell_overrun(self, tx: Transaction, on: Executing, step: int, attempt: int) -> None:
        overrun = await self._usage.overrun_in(tx, on.ctx, on.run_id)
        if overrun is not None:
            cause = f"{format_usd(overrun.over_microusd)} over the {overrun.account}'s budget"
            facts = {"step": step, "attempt": attempt, "cause": cause, **asdict(overrun)}
            await append_event(tx, on.run_id, self._clock.now(), "overrun", facts)

    async def fail_for_good(self, on: Executing, step: int, name: str, kind: str, error: dict[str, Any]) -> None:
        """Remember that the step is not tried again: later executions of the run are told the same. Raises ``Lost``."""
        async with self._db.tenant_transaction(on.ctx) as tx:
            if not await store.fail_for_good(tx, on.held, step, name, kind, error, self._clock.now()):
                raise Lost

    async def arm_wait(self, on: Executing, wait: Wait) -> None:
        """Write what the run is about to park on; whoever ends the wait deletes it, parked or not yet.

        Raises ``Lost``.
        """
        async with self._db.tenant_transaction(on.ctx) as tx:
            await self.standing_in(tx, on)
            await self.arm_wait_in(tx, on, wait)

    async def arm_wait_in(self, tx: Transaction, on: Executing, wait: Wait) -> None:
        """The same in the caller's transaction. A wait that is armed already stays as it is."""
        await store.arm_wait(tx, on.run_id, wait.step, wait.cause, wait.key, wait.wake_at, self._clock.now())

    async def begin_wait_in(self, tx: Transaction, on: Executing, wait: Wait) -> WaitPhase:
        """Arm a wait that is a step of its own, once; how far it is. In the caller's transaction.

        Raises ``Lost``, and ``Paused`` before a wait that has not begun.
        """
        stands = await self.standing_in(tx, on)
        newest = await store.newest_attempt(tx, on.run_id, wait.step)
        if newest is None or newest.state == "failed":
            if stands is Standing.HELD:
                raise Paused
            attempt = 1 if newest is None else newest.number + 1
            await store.begin_wait(tx, on.run_id, wait.step, attempt, wait.name, wait.cause.value, self._clock.now())
            await self.arm_wait_in(tx, on, wait)
            return WaitPhase.NEW
        return WaitPhase.OPEN if await store.wait_is_open(tx, on.run_id, wait.step) else WaitPhase.OVER

    async def disarm_in(self, tx: Transaction, on: Executing, step: int) -> None:
        """The wait is over without having been ended by anybody. In the caller's transaction."""
        await store.disarm_wait(tx, on.run_id, step)

    async def finish_wait_in(self, tx: Transaction, on: Executing, step: int, result: Any) -> None:
        """What was waited for is there. In the caller's transaction."""
        await store.disarm_wait(tx, on.run_id, step)
        newest = await store.newest_attempt(tx, on.run_id, step)
        if newest is not None:
            await store.close_step(tx, on.held, step, newest.number, result=result, now=self._clock.now())

    async def sleep(self, on: Executing, wait: Wait) -> bool:
        """Whether the timer has run out; False: the run must park."""
        async with self._db.tenant_transaction(on.ctx) as tx:
            over = await self.begin_wait_in(tx, on, wait) is WaitPhase.OVER
            if over:
                await self.finish_wait_in(tx, on, wait.step, None)
        self._bus.news.of_run(on.ctx.tenant_id, on.run_id)
        return over

    async def await_event(self, on: Executing, wait: Wait, name: str, key: str) -> dict[str, Any] | None:
        """``{"payload": …}`` of the event, ``{"timed_out": true}``, or None: the run must park."""
        async with self._db.tenant_transaction(on.ctx) as tx:
            await event_line(tx, name, key)
            recorded = await store.recorded_step(tx, on.run_id, wait.step)
            if recorded is not None:
                answer: dict[str, Any] = recorded.result
                return answer
            phase = await self.begin_wait_in(tx, on, wait)
            found = await store.event_payload(tx, name, key)
            if found is None and phase is not WaitPhase.OVER:
                return None
            result = found or {"timed_out": True}
            await self.finish_wait_in(tx, on, wait.step, result)
            return result

    async def tell(self, on: Executing, said: Sequence[Said], progress: dict[str, Any] | None) -> None:
        """Write what the run says as its next events, and how far it is; nothing when it is somebody else's."""
        async with self._db.tenant_statement(on.ctx) as tx:
            await store.tell(tx, on.held, said, progress, self._clock.now())
        if progress is None:
            self._bus.news.of_run(on.ctx.tenant_id, on.run_id)
        else:
            self._say(on, RunState.RUNNING, None, progress=progress)

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
        async with self._db.tenant_statement(on.ctx) as tx:
            closed, parent = await store.end(tx, on.held, state, output, outcome, error, now)
        if closed is None:
            return False
        self._say(on, state, None)
        self._say_closed(on, closed)
        await self._family.ended(on.ctx, state, parent)
        return True

    async def compensate(self, on: Executing, end: dict[str, Any]) -> dict[int, str]:
        """Begin to undo what the run did, before this end, or go on with it; the steps, undone or not, by name.

        Raises ``Lost``.
        """
        async with self._db.tenant_transaction(on.ctx) as tx:
            await store.lock_reviews(tx, on.run_id)
            await self.standing_in(tx, on)
            closed = await store.compensate(tx, on.held, end, self._clock.now())
            steps = await store.to_undo(tx, on.run_id)
        self._say_closed(on, closed)
        return steps

    async def park(self, on: Executing) -> RunState | None:
        """Give the slot back and wait; the state from then on, None: the run is not ours any more.

        ``queued``: a wait is over already. ``waiting``: somebody, who may have paused the run, ends its wait.
        ``cancelled``: somebody wants the run to stop; with something to undo it is queued once more.
        """
        now, parent, closed = self._clock.now(), None, 0
        async with self._db.tenant_transaction(on.ctx) as tx:
            await store.lock_reviews(tx, on.run_id)
            if await self._queue.release_in(tx, on.held) is None:
                return None
            waits = await store.open_waits(tx, on.run_id)
            if not waits:
                state, cause = await self._requeue(tx, on, now, "woken")
            elif cause := await store.park(tx, on.run_id, waits[0].cause):
                state = RunState.WAITING
                await append_event(tx, on.run_id, now, "waiting", {"cause": cause, "step": waits[0].step})
            else:
                state = RunState.CANCELLED
                for wait in waits:
                    await store.disarm_wait(tx, on.run_id, wait.step)
                closed = await store.close_reviews(tx, on.run_id, now)
                if await store.undoable(tx, on.run_id):
                    state, cause = await self._requeue(tx, on, now, "woken")
                else:
                    await store.finish(tx, on.run_id, state, now)
                parent = await store.parent(tx, on.run_id)
        if state is RunState.QUEUED:
            await self._queue.signal_workers()
        elif state is RunState.WAITING and any(wait.wake_at for wait in waits):
            await self._bus.signal(Topic.SCHEDULER)
        self._say(on, state, cause)
        self._say_closed(on, closed)
        if state is RunState.CANCELLED:
            await self._family.ended(on.ctx, state, parent)
        return state

    async def hand_back(self, on: Executing) -> bool:
        """Give the slot back and queue the run at the head of its lane (a worker is to stop); a paused one waits."""
        async with self._db.tenant_transaction(on.ctx) as tx:
            if await self._queue.release_in(tx, on.held) is None:
                return False
            state, cause = await self._requeue(tx, on, self._clock.now(), "handed_back")
        await self._queue.signal_workers()
        self._say(on, state, cause)
        return True

    async def _requeue(self, tx: Transaction, on: Executing, now: datetime, why: str) -> tuple[RunState, Cause | None]:
        """Where the run stands from then on, and what for."""
        state = await store.requeue(tx, on.run_id, now, why)
        return state, None if state is RunState.QUEUED else Cause.PAUSED

    def _say(self, on: Executing, state: RunState, cause: Cause | None, progress: dict[str, Any] | None = None) -> None:
        data: dict[str, Any] = {
            "run_id": on.run_id,
            "state": state,
            "cause": cause,
            "batch_id": on.batch_id,
            "thread_id": on.thread_id,
        }
        if progress is not None:
            data["progress"] = progress
        self._bus.news.say(on.ctx.tenant_id, "run", data)

    def _say_closed(self, on: Executing, questions: int) -> None:
        """Tell screens that show what the run asked that nobody is asked any more."""
        if questions:
            self._bus.news.unasked(on.ctx.tenant_id, on.run_id)

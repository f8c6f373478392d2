"""What people do to one run, each act in the transaction of its caller: the change, its event, its audit.

    cancel   queued, waiting, dead ──► cancelled      running: it is asked to stop; with something to undo ──► queued
    pause    queued, waiting ──► waiting (held)       running (held): it parks before its next step; undoing: refused
    resume   held ──► queued, or waiting as before    running: it goes on
    retry    failed, cancelled, dead ──► queued       finished steps are not repeated

An act that the run's state does not allow changes nothing and says why. Whoever acts twice at once is served one after
the other: the queue of the tenant is locked first, and the state is looked at after that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, TypeAlias, assert_never

from core.audit.service import AuditService
from core.clock import Clock
from core.db.pool import Transaction
from core.db.queries import load_queries
from core.errors import InvalidInput, Unavailable
from core.ids import RunId
from core.queue.service import QueueService
from core.redis.limits import Limits
from core.runs.model import Cause, RunState
from core.runs.store import append_event
from core.tenancy import TenantContext

SQL = load_queries(__file__, "acts.sql")

_CUT_OFF = {"code": "cut_off", "message": "The run ended first."}


Facts: TypeAlias = Mapping[str, Any]
NONE: Facts = MappingProxyType({})


class Act(StrEnum):
    """What is done."""

    CANCEL = "cancel"
    RETRY = "retry"
    PAUSE = "pause"
    RESUME = "resume"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an act came to. ``was``: the state that it found; ``refusal``: why it changed nothing, None: it was done.

    Of a run that was cancelled: ``places`` in the lines of rate limits that it gives up, each a limit and a step, and
    how many questions to people are ``closed``.
    """

    was: RunState
    refusal: str | None = None
    places: tuple[tuple[str, int], ...] = ()
    closed: int = 0


async def standing(tx: Transaction, run_id: str) -> RunState | None:
    """Where a run stands until the end of the transaction; None: the tenant has no such run."""
    found = await tx.fetchval(SQL["standing"], run_id)
    return None if found is None else RunState(found)


async def begin_anew(tx: Transaction, run_id: str, now: datetime) -> None:
    """Put a run that did not succeed back into state 'queued'; the caller, who holds the queue's lock, pushes it."""
    await tx.execute(SQL["open_steps"], run_id, _CUT_OFF, now)
    await tx.execute(SQL["redo_undone"], run_id)
    await tx.execute(SQL["retry"], run_id, now)


class Acts:
    """Performs acts. After the commit the caller tells workers (``signal``), rate limits (``leave``) and screens."""

    def __init__(self, queue: QueueService, audit: AuditService, limits: Limits, clock: Clock) -> None:
        self._queue = queue
        self._limits = limits
        self._audit = audit
        self._clock = clock

    async def perform_in(
        self, tx: Transaction, ctx: TenantContext, act: Act, run_id: str, facts: Facts = NONE
    ) -> Outcome | None:
        """Perform one; None when the tenant has no such run. ``facts``: what event and audit say besides."""
        now = self._clock.now()
        match act:
            case Act.CANCEL:
                return await self._cancel(tx, ctx, run_id, now, facts)
            case Act.RETRY:
                return await self._retry(tx, ctx, run_id, now, facts)
            case Act.PAUSE:
                return await self._pause(tx, ctx, run_id, now, facts)
            case Act.RESUME:
                return await self._resume(tx, ctx, run_id, now, facts)
            case _:
                assert_never(act)

    async def perform_if_in(
        self, tx: Transaction, ctx: TenantContext, act: Act, run_id: str, was: RunState, facts: Facts
    ) -> Outcome | None:
        """Perform one on a run that is still in the state in which somebody saw it; else it says why not."""
        await tx.execute(SQL["asked_from"], run_id, 0)
        await self._queue.lock_in(tx)
        found = await standing(tx, run_id)
        if found is None or found is was:
            return await self.perform_in(tx, ctx, act, run_id, facts)
        return Outcome(found, f"It was {was} when it was chosen and is {found} now.")

    async def signal(self, act: Act) -> None:
        """Wake whom the act concerns."""
        match act:
            case Act.CANCEL:
                await self._queue.signal_cancel()
                await self._queue.signal_workers()  # it may have something to undo
            case Act.RETRY | Act.RESUME:
                await self._queue.signal_workers()
            case Act.PAUSE:
                pass
            case _:
                assert_never(act)

    async def leave(self, ctx: TenantContext, changed: Mapping[str, Outcome]) -> None:
        """After the commit: runs that were cancelled give up their places in the lines of rate limits.

        Without Redis they are given up when nobody comes for them.
        """
        with contextlib.suppress(Unavailable):
            for run_id, outcome in changed.items():
                for name, step in outcome.places:
                    await self._limits.leave(ctx, name, f"{run_id}/{step}")

    async def _cancel(
        self, tx: Transaction, ctx: TenantContext, run_id: str, now: datetime, facts: Facts
    ) -> Outcome | None:
        places = tuple((row["key"], row["step"]) for row in await tx.fetch(SQL["places"], run_id))
        found = await self._queue.cancel_in(tx, RunId(run_id))
        if found is None:
            return None
        was = RunState(found.was)
        if was.final and was is not RunState.DEAD:
            return Outcome(was, f"The run has ended: {was}.")
        kind = "cancelled" if found.state == RunState.CANCELLED else "cancel_requested"
        await append_event(tx, run_id, now, kind, {"actor": ctx.actor, **facts})
        done = await self._done(tx, ctx, Act.CANCEL, run_id, was, facts)
        return replace(done, places=places, closed=found.closed)

    async def _pause(
        self, tx: Transaction, ctx: TenantContext, run_id: str, now: datetime, facts: Facts
    ) -> Outcome | None:
        found = await tx.fetchrow(SQL["hold"], run_id, now)
        if found is None:
            return None
        was = RunState(found["state"])
        if was.final:
            return Outcome(was, f"The run has ended: {was}.")
        if found["held"]:
            return Outcome(was, "The run is paused already.")
        if found["undoing"]:
            return Outcome(was, "The run is undoing what it did, and does not stop half way. Then it ends.")
        if found["cancelling"]:
            return Outcome(was, "The run is being cancelled.")
        if was is RunState.RUNNING:
            await append_event(tx, run_id, now, "pause_requested", {"actor": ctx.actor, **facts})
        else:
            await append_event(tx, run_id, now, "waiting", {"cause": Cause.PAUSED, "actor": ctx.actor, **facts})
        return await self._done(tx, ctx, Act.PAUSE, run_id, was, facts)

    async def _resume(
        self, tx: Transaction, ctx: TenantContext, run_id: str, now: datetime, facts: Facts
    ) -> Outcome | None:
        found = await tx.fetchrow(SQL["resume"], run_id, now)
        if found is None:
            return None
        was = RunState(found["was"])
        if not found["held"]:
            return Outcome(was, f"The run is not paused; it is {was}.")
        await append_event(tx, run_id, now, "resumed", {"actor": ctx.actor, **facts})
        if found["state"] == RunState.WAITING:
            await append_event(tx, run_id, now, "waiting", {"cause": found["cause"]})
        stands = {"state": found["state"], "cause": found["cause"]}
        return await self._done(tx, ctx, Act.RESUME, run_id, was, {**stands, **facts})

    async def retry_from_in(self, tx: Transaction, ctx: TenantContext, run_id: str, step: int) -> Outcome | None:
        """Retry a run and do again all from a step on, also what was done and answered; what was paid stays paid.

        Roll back unless it was done. Raises ``InvalidInput`` when the run has not come to that step.
        """
        now = self._clock.now()
        await tx.execute(SQL["asked_from"], run_id, step)
        outcome = await self._retry(tx, ctx, run_id, now, {"from_step": step})
        if outcome is not None and outcome.refusal is None:
            await tx.execute(SQL["ask_again"], run_id, step)
            if not await tx.fetchval(SQL["set_aside"], run_id, step):
                raise InvalidInput(f"The run has not come to step {step}.", field="from_step")
        return outcome

    async def _retry(
        self, tx: Transaction, ctx: TenantContext, run_id: str, now: datetime, facts: Facts
    ) -> Outcome | None:
        await self._queue.lock_in(tx)
        was = await standing(tx, run_id)
        if was is None:
            return None
        if not was.final or was is RunState.SUCCEEDED:
            return Outcome(was, f"Only a failed, cancelled or dead run is retried; this one is {was}.")
        await begin_anew(tx, run_id, now)
        await self._queue.push_in(tx, [RunId(run_id)], now, head=True)
        await append_event(tx, run_id, now, "retried", {"actor": ctx.actor, **facts})
        return await self._done(tx, ctx, Act.RETRY, run_id, was, facts)

    async def _done(
        self, tx: Transaction, ctx: TenantContext, act: Act, run_id: str, was: RunState, after: Facts
    ) -> Outcome:
        known = dict(after) or None
        await self._audit.record(tx, ctx, f"run.{act}", f"run:{run_id}", before={"state": was}, after=known)
        return Outcome(was)

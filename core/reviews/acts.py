"""How a review is acted on: lock it, apply a rule, and write the review, the event and the audit in one transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.audit.service import AuditService
from core.clock import Clock
from core.db.pool import Database, Transaction
from core.errors import Forbidden, NotFound
from core.queue.service import QueueService
from core.redis.bus import Bus
from core.reviews import model, store
from core.reviews.model import Asker, Case, Decider, ReviewState, check_decider
from core.tenancy import ActorKind, Scope, TenantContext

NONE = "There is no such review."


@dataclass(frozen=True, slots=True)
class Done:
    """What an act has made of a review."""

    case: Case
    run_id: str
    thread_id: str | None


class Acts:
    """The one way to change an open review."""

    def __init__(self, db: Database, bus: Bus, queue: QueueService, audit: AuditService, clock: Clock) -> None:
        self._db = db
        self._bus = bus
        self._queue = queue
        self._audit = audit
        self._clock = clock

    async def act(
        self,
        ctx: TenantContext,
        review_id: str,
        act: str,
        rule: Callable[[Case, Decider, datetime], Case],
        *,
        facts: dict[str, Any] | None = None,
        decides: bool = True,
        check: Callable[[Transaction, Case, Asker], Awaitable[None]] | None = None,
    ) -> Done:
        """A person's act under its rule. ``decides`` False: also for those who may not decide this one. ``check`` looks
        at more than the rule can. Raises ``NotFound``, ``Forbidden`` and whatever ``rule`` and ``check`` raise.
        """
        ctx.require(Scope.REVIEWS_DECIDE)
        now = self._clock.now()
        async with self._db.tenant_transaction(ctx) as tx:
            locked = await store.lock(tx, review_id)
            if locked is None:
                raise NotFound(NONE)
            asker, thread_id = await store.asker(tx, locked.run_id)
            who = await self.decider(tx, ctx)
            if decides:
                check_decider(locked.case, who, asker)
            if check is not None:
                await check(tx, locked.case, asker)
            case = rule(locked.case, who, now)
            await self._write(tx, ctx, locked, case, act, facts or {})
        done = Done(case, locked.run_id, thread_id)
        await self._after(ctx, review_id, done, "voted" if act == "decide" else act)
        return done

    async def breach(self, ctx: TenantContext, review_id: str) -> str:
        """See ``ReviewService.breach``."""
        ctx.require(Scope.REVIEWS_DECIDE)
        now = self._clock.now()
        async with self._db.tenant_transaction(ctx) as tx:
            locked = await store.lock(tx, review_id)
            if locked is None:
                raise NotFound(NONE)
            if ctx.actor_kind is not ActorKind.SCHEDULER:
                raise Forbidden("Only time does this.")
            case = model.breach(locked.case, ctx.actor, now)
            if case is locked.case:
                return "nothing"
            act = _breached(locked.case, case)
            _, thread_id = await store.asker(tx, locked.run_id)
            await self._write(tx, ctx, locked, case, act, {"pool": case.pool, "level": case.level})
        await self._after(ctx, review_id, Done(case, locked.run_id, thread_id), act)
        return act

    async def _write(
        self, tx: Transaction, ctx: TenantContext, locked: store.Locked, case: Case, act: str, facts: dict[str, Any]
    ) -> None:
        await store.save(tx, locked.review_id, case)
        if case.state is not ReviewState.OPEN:
            # The review is locked before the queue, here and in request: neither can miss the other.
            await self._queue.wake_in(tx, locked.run_id, locked.step)
        told = {"review_id": locked.review_id, "act": act, "by": ctx.actor, "state": case.state.value, **facts}
        await store.tell(tx, locked.run_id, self._clock.now(), told)
        after = {**facts, "run": locked.run_id, "state": case.state.value}
        await self._audit.record(tx, ctx, f"review.{act}", f"review:{locked.review_id}", after=after)

    async def _after(self, ctx: TenantContext, review_id: str, done: Done, act: str) -> None:
        """Tell whoever waits for it, once it is written."""
        closed = done.case.state is not ReviewState.OPEN
        if closed:
            await self._queue.signal_workers()
        await self.publish(ctx, review_id, done.run_id, done.case.state.value if closed else act, done.thread_id)

    async def decider(self, tx: Transaction, ctx: TenantContext) -> Decider:
        """Who acts, as one person however they come in."""
        person = ctx.actor
        if ctx.actor_kind is ActorKind.API_KEY:
            person = await store.key_of(tx, ctx.actor_id) or ctx.actor
        elif ctx.user_id is not None:
            person = f"{ActorKind.USER}:{ctx.user_id}"
        return Decider(ctx.actor, person, ctx.scopes)

    async def publish(self, ctx: TenantContext, review_id: str, run_id: str, state: str, thread_id: str | None) -> None:
        """Tell the user interfaces of the tenant."""
        await self._bus.publish(
            ctx.tenant_id,
            "review",
            {"review_id": review_id, "run_id": run_id, "state": state, "thread_id": thread_id},
        )


def _breached(before: Case, after: Case) -> str:
    if after.level > before.level:
        return "escalated"
    return "overdue" if after.state is ReviewState.OPEN else after.state.value

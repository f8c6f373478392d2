"""Reviews: asked by a run, decided by a person, exactly once.

``request`` opens the review and arms the run's wait in one transaction; ``decide`` closes the review, writes
the audit and wakes the run in one transaction. Whatever crashes in between, a review is open and its run
waits, or it is decided and its run goes on.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from core.audit.service import AuditService
from core.clock import Clock
from core.db.pool import Database
from core.errors import Conflict, Forbidden, NotFound
from core.ids import ReviewId, new_id
from core.queue.service import QueueService
from core.redis.bus import Bus
from core.reviews import store
from core.reviews.model import ReviewView, Verdict, check_decision
from core.runs.execution import Executing, RunExecution, Wait
from core.runs.model import Cause
from core.tenancy import Scope, TenantContext


class ReviewService:
    """The reviews of one region."""

    def __init__(
        self,
        db: Database,
        bus: Bus,
        queue: QueueService,
        execution: RunExecution,
        audit: AuditService,
        clock: Clock,
    ) -> None:
        self._db = db
        self._bus = bus
        self._queue = queue
        self._execution = execution
        self._audit = audit
        self._clock = clock

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
    ) -> Verdict | None:
        """The decision at this step of a run; None: it is asked for and the run's wait is armed.

        With cause ``review`` the question is the step; with any other it stands before a step that cannot go
        on without an answer.
        """
        now = self._clock.now()
        review_id = ReviewId(new_id("rev", now))
        wait = Wait(step, f"review: {pool}", cause)
        async with self._db.tenant_transaction(on.ctx) as tx:
            opened = await store.request(
                tx, review_id, on.run_id, step, pool, title, evidence, choices, now, now + timedelta(seconds=sla_s)
            )
            if cause is Cause.REVIEW:
                await self._execution.begin_wait_in(tx, on, wait)
            verdict = await store.verdict(tx, on.run_id, step)
            if verdict is None:
                await self._execution.arm_wait_in(tx, on, wait)
            elif cause is Cause.REVIEW:
                await self._execution.finish_wait_in(tx, on, step, {"verdict": verdict.verdict})
        if opened is not None:
            await self._publish(on.ctx, opened, on.run_id, "open", on.thread_id)
        return verdict

    async def open(self, ctx: TenantContext, limit: int = 100) -> list[ReviewView]:
        """Open reviews of the tenant, the most urgent first, at most 1,000."""
        ctx.require(Scope.REVIEWS_READ)
        async with self._db.tenant_transaction(ctx) as tx:
            return await store.open_reviews(tx, min(limit, 1_000))

    async def recent(self, ctx: TenantContext, limit: int = 100) -> list[ReviewView]:
        """Reviews of any state, newest first, at most 1,000."""
        ctx.require(Scope.REVIEWS_READ)
        async with self._db.tenant_transaction(ctx) as tx:
            return await store.recent(tx, min(limit, 1_000))

    async def get(self, ctx: TenantContext, review_id: str) -> ReviewView:
        """One review. Raises ``NotFound`` for foreign and missing alike."""
        ctx.require(Scope.REVIEWS_READ)
        async with self._db.tenant_transaction(ctx) as tx:
            found = await store.by_id(tx, review_id)
        if found is None:
            raise NotFound("There is no such review.")
        return found

    async def decide(self, ctx: TenantContext, review_id: str, verdict: str, comment: str = "") -> ReviewView:
        """Decide, and let the run go on.

        Raises ``NotFound``; ``InvalidInput``; ``Forbidden`` without the right or for one's own run;
        ``Conflict`` when it was decided before (``details`` say by whom) or its run has ended.
        """
        ctx.require(Scope.REVIEWS_DECIDE)
        review = await self.get(ctx, review_id)
        check_decision(review.choices, verdict, comment)
        try:
            await self._decide(ctx, review, verdict, comment)
        except Conflict:
            now = await self.get(ctx, review_id)
            raise Conflict(
                f"This review was {now.state} before.",
                state=now.state,
                decided_by=now.decided_by,
                verdict=now.verdict,
            ) from None
        await self._queue.signal_workers()
        await self._publish(ctx, review.review_id, review.run_id, "decided", review.thread_id)
        return await self.get(ctx, review_id)

    async def remind_overdue(self, ctx: TenantContext) -> list[ReviewView]:
        """The open reviews past their SLA, the longest first, at most 1,000; user interfaces are told of each."""
        now = self._clock.now()
        overdue = [review for review in await self.open(ctx, 1_000) if review.due_at <= now]
        for review in overdue:
            await self._publish(ctx, review.review_id, review.run_id, "overdue", review.thread_id)
        return overdue

    async def cancel_of_run(self, ctx: TenantContext, run_id: str) -> None:
        """Close what a run that ended, or was cancelled, had asked."""
        async with self._db.tenant_transaction(ctx) as tx:
            closed = await store.cancel_of_run(tx, run_id, self._clock.now())
        if closed:
            await self._bus.publish(ctx.tenant_id, "review", {"run_id": run_id, "state": "cancelled"})

    async def _decide(self, ctx: TenantContext, review: ReviewView, verdict: str, comment: str) -> None:
        async with self._db.tenant_transaction(ctx) as tx:
            asking = await store.asking(tx, review.review_id)
            if asking is None:
                raise NotFound("There is no such review.")
            if ctx.user_id is not None and asking.submitted_by == ctx.user_id:
                raise Forbidden("Nobody decides about a run they submitted themselves.")
            # The review is locked before the queue, here and in request: neither can miss the other.
            if not await store.decide(tx, review.review_id, verdict, comment, ctx.actor, self._clock.now()):
                raise Conflict
            await self._queue.wake_in(tx, review.run_id, asking.step)
            after = {"verdict": verdict, "run": review.run_id}
            await self._audit.record(tx, ctx, "review.decide", f"review:{review.review_id}", after=after)

    async def _publish(
        self, ctx: TenantContext, review_id: str, run_id: str, state: str, thread_id: str | None
    ) -> None:
        await self._bus.publish(
            ctx.tenant_id,
            "review",
            {"review_id": review_id, "run_id": run_id, "state": state, "thread_id": thread_id},
        )

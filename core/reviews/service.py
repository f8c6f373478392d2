"""Reviews: asked by a run, decided by people, exactly once.

``request`` opens the review and arms the run's wait in one transaction; every act (claim, release, delegate, vote,
escalate, expire) locks the review, applies a rule of ``model``, and writes the review, the run's event and the audit in
one transaction; the act that ends it wakes the run in the same one. Whatever crashes in between, a review is open and
its run waits, or it is closed and its run goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from core.audit.service import AuditService
from core.clock import Clock
from core.db.pool import Database, Transaction
from core.errors import BailiwickError, Forbidden, InvalidInput, NotFound, StepFailed
from core.ids import ReviewId, TenantId, new_id
from core.queue.model import Topic, idle_look_s
from core.queue.service import QueueService
from core.redis.bus import Bus
from core.reviews import model, store
from core.reviews.acts import NONE, Acts
from core.reviews.form import check_answer, check_form
from core.reviews.model import (
    ONE_PERSON,
    BulkResult,
    Case,
    Decider,
    ReviewState,
    ReviewView,
    Terms,
    Verdict,
    Vote,
    check_decider,
    check_decision,
    check_terms,
    priority_of,
)
from core.runs.execution import Executing, RunExecution, Wait, WaitPhase
from core.runs.model import Cause
from core.tenancy import ROLE_SCOPES, ActorKind, Scope, TenantContext, scopes_of

MAX_BULK = 500
ESCALATING = frozenset({Scope.REVIEWS_DECIDE})
"""What the scheduler may do to reviews."""

_LATE = timedelta(seconds=1)  # jobs that are due within a second of an idle look run at it


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
        self._acts = Acts(db, bus, queue, audit, clock)
        self._execution = execution
        self._clock = clock

    # Asked by runs --------------------------------------------------------------------------------------

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
        """The decision at this step of a run; None: it is asked for and the run's wait is armed.

        With cause ``review`` the question is the step; with any other it stands before a step that cannot go
        on without an answer. Raises ``InvalidInput`` for terms nobody could fulfil, ``StepFailed`` when nobody
        decided in time and the terms say that this fails, ``Lost``.
        """
        check_terms(choices, terms)
        if terms.form is not None:
            check_form(terms.form)
        now = self._clock.now()
        due_at = now + timedelta(seconds=sla_s)
        policy = on.ctx.policy
        new = store.NewReview(
            review_id=ReviewId(new_id("rev", now)),
            run_id=on.run_id,
            step=step,
            pool=pool,
            title=title,
            evidence=evidence,
            choices=choices,
            shared=policy.reviewer_pool == "shared",
            priority=priority_of(policy.tier),
            terms=terms,
            now=now,
            due_at=due_at,
        )
        wait = Wait(step, f"review: {pool}", cause)
        async with self._db.tenant_transaction(on.ctx) as tx:
            # The review first and the run after it: the order of every act on a review.
            await store.answered(tx, on.run_id, step)
            if cause is Cause.REVIEW:
                phase = await self._execution.begin_wait_in(tx, on, wait)
            else:
                await self._execution.standing_in(tx, on)
                phase = WaitPhase.OPEN
            opened = await store.request(tx, new, anew=phase is WaitPhase.NEW)
            state, verdict = await store.answered(tx, on.run_id, step)
            if state is ReviewState.OPEN:
                await self._execution.arm_wait_in(tx, on, wait)
            elif verdict is not None and cause is Cause.REVIEW:
                await self._execution.finish_wait_in(tx, on, step, {"verdict": verdict.verdict})
            if opened is not None:
                asked = {"review_id": opened, "act": "asked", "pool": pool, "due_at": due_at.isoformat()}
                await store.tell(tx, on.run_id, now, asked)
        if opened is not None:
            await self._acts.publish(on.ctx, opened, on.run_id, "open", on.thread_id)
            await self._signal(due_at)
        if state is ReviewState.EXPIRED:
            raise StepFailed(f"Nobody decided in time: {title}", step=wait.name, cause="review_expired")
        return verdict

    async def used(self, on: Executing, step: int) -> None:
        """The decision at this step was acted on: the next request at it asks anew. Raises ``Lost``."""
        async with self._db.tenant_transaction(on.ctx) as tx:
            await store.used(tx, on.run_id, step)
            await self._execution.standing_in(tx, on)

    # Read -----------------------------------------------------------------------------------------------

    async def open(self, ctx: TenantContext, limit: int = 100) -> list[ReviewView]:
        """Open reviews of the tenant, the most urgent first, at most 1,000."""
        ctx.require(Scope.REVIEWS_READ)
        async with self._db.tenant_transaction(ctx) as tx:
            return await store.open_reviews(tx, min(limit, 1_000), self._clock.now())

    async def recent(self, ctx: TenantContext, limit: int = 100) -> list[ReviewView]:
        """Reviews of any state, newest first, at most 1,000."""
        ctx.require(Scope.REVIEWS_READ)
        async with self._db.tenant_transaction(ctx) as tx:
            return await store.recent(tx, min(limit, 1_000), self._clock.now())

    async def find(
        self,
        ctx: TenantContext,
        *,
        state: ReviewState | None = None,
        pool: str | None = None,
        of_run: str | None = None,
        overdue: bool = False,
        limit: int = 100,
    ) -> list[ReviewView]:
        """Reviews that fit every filter given, open ones first and of these the most urgent, at most 1,000."""
        ctx.require(Scope.REVIEWS_READ)
        now = self._clock.now()
        async with self._db.tenant_transaction(ctx) as tx:
            due_before = now if overdue else None
            return await store.listed(tx, state, pool, of_run, due_before, min(limit, 1_000), now)

    async def mine(self, ctx: TenantContext, limit: int = 100) -> list[ReviewView]:
        """Open reviews as the caller should look at them: their own claims first, then what nobody works on.

        Out of the tenant's 1,000 most urgent ones.
        """
        ctx.require(Scope.REVIEWS_READ)
        now = self._clock.now()
        async with self._db.tenant_transaction(ctx) as tx:
            who = await self._acts.decider(tx, ctx)
            found = await store.open_reviews(tx, 1_000, now)
        return model.next_for(found, who.person, now)[:limit]

    async def get(self, ctx: TenantContext, review_id: str) -> ReviewView:
        """One review. Raises ``NotFound`` for foreign and missing alike."""
        ctx.require(Scope.REVIEWS_READ)
        async with self._db.tenant_transaction(ctx) as tx:
            found = await store.by_id(tx, review_id, self._clock.now())
        if found is None:
            raise NotFound(NONE)
        return found

    async def deciders(self, ctx: TenantContext) -> dict[str, str]:
        """Names by user id of the people of the tenant who decide reviews: those to whom one may delegate."""
        ctx.require(Scope.REVIEWS_DECIDE)
        roles = [role for role, scopes in ROLE_SCOPES.items() if Scope.REVIEWS_DECIDE in scopes]
        async with self._db.tenant_transaction(ctx) as tx:
            return await store.deciders(tx, roles)

    async def remind_overdue(self, ctx: TenantContext) -> list[ReviewView]:
        """The open reviews past their SLA, the longest first, at most 1,000; user interfaces are told of each."""
        now = self._clock.now()
        overdue = [review for review in await self.open(ctx, 1_000) if review.due_at <= now]
        for review in overdue:
            await self._acts.publish(ctx, review.review_id, review.run_id, "overdue", review.thread_id)
        return overdue

    # Acts of people -------------------------------------------------------------------------------------

    async def claim(self, ctx: TenantContext, review_id: str) -> ReviewView:
        """Say that one works on it, for half an hour; again: for half an hour from now.

        Raises ``NotFound``, ``Forbidden``, ``Conflict`` when it is closed or every seat is taken (``details`` say by
        whom and until when).
        """
        await self._acts.act(ctx, review_id, "claim", lambda case, who, now: model.claim(case, who.person, now))
        return await self.get(ctx, review_id)

    async def release(self, ctx: TenantContext, review_id: str) -> ReviewView:
        """Give one's claim back; admins end everybody's. Raises ``NotFound``, ``Forbidden``, ``Conflict``."""
        everybody = Scope.TENANT_WRITE in ctx.scopes
        await self._acts.act(
            ctx,
            review_id,
            "release",
            lambda case, who, now: model.release(case, who.person, now, everybody=everybody),
            decides=False,
        )
        return await self.get(ctx, review_id)

    async def delegate(self, ctx: TenantContext, review_id: str, user_id: str) -> ReviewView:
        """Give one's seat to a colleague. Raises ``NotFound``, ``Forbidden``, ``Conflict``, and ``InvalidInput`` when
        there is no such colleague or they may not decide it."""
        colleague = f"{ActorKind.USER}:{user_id}"

        async def check(tx: Transaction, case: Case, asker: model.Asker) -> None:
            roles = await store.colleague(tx, user_id)
            if roles is None or Scope.REVIEWS_DECIDE not in scopes_of(tuple(roles)):
                raise InvalidInput("There is no colleague of that id who decides reviews.", field="user_id")
            try:
                check_decider(case, Decider(colleague, colleague, scopes_of(tuple(roles))), asker)
            except Forbidden as error:
                raise InvalidInput(f"They may not decide this: {error.message}", field="user_id") from None

        await self._acts.act(
            ctx,
            review_id,
            "delegate",
            lambda case, who, now: model.delegate(case, who.person, colleague, now),
            facts={"to": colleague},
            check=check,
        )
        return await self.get(ctx, review_id)

    async def decide(
        self,
        ctx: TenantContext,
        review_id: str,
        verdict: str,
        comment: str = "",
        answer: dict[str, Any] | None = None,
    ) -> ReviewView:
        """Decide, or vote when it takes several; with the last vote needed the run goes on.

        Raises ``NotFound``; ``InvalidInput``, also for every fault of the form; ``Forbidden`` without the right or for
        one's own run; ``Conflict`` when it was decided before (``details`` say by whom), its run has ended, one has
        voted before or colleagues have claimed it.
        """
        await self._vote(ctx, review_id, verdict, comment, answer)
        return await self.get(ctx, review_id)

    async def decide_many(
        self,
        ctx: TenantContext,
        review_ids: Sequence[str],
        verdict: str,
        comment: str = "",
        answer: dict[str, Any] | None = None,
    ) -> list[BulkResult]:
        """One verdict for at most 500 cases, each by itself and exactly once; what became of each, in order."""
        ctx.require(Scope.REVIEWS_DECIDE)
        if len(review_ids) > MAX_BULK:
            raise InvalidInput(f"At most {MAX_BULK} cases at once.", field="review_ids")
        results = []
        for review_id in dict.fromkeys(review_ids):
            try:
                done = await self._vote(ctx, review_id, verdict, comment, answer)
                results.append(BulkResult(review_id, "voted" if done is ReviewState.OPEN else "decided"))
            except BailiwickError as error:
                results.append(BulkResult(review_id, error.code, error.message))
        return results

    async def _vote(
        self, ctx: TenantContext, review_id: str, verdict: str, comment: str, answer: dict[str, Any] | None
    ) -> ReviewState:
        def vote(case: Case, who: Decider, now: datetime) -> Case:
            check_decision(case.choices, verdict, comment)
            checked = check_answer(case.terms.form, answer) if case.state is ReviewState.OPEN else None
            return model.vote(case, who, Vote(who.person, verdict, comment, now, checked), now)

        done = await self._acts.act(ctx, review_id, "decide", vote, facts={"verdict": verdict})
        return done.case.state

    # Time -----------------------------------------------------------------------------------------------

    async def next_breach(self) -> datetime | None:
        """When the next open review of any tenant must escalate or expire."""
        async with self._db.control_transaction() as tx:
            return await store.next_breach(tx)

    async def due(self, limit: int = 500) -> list[tuple[TenantId, ReviewId]]:
        """Open reviews of all tenants that must escalate or expire now, the longest first."""
        async with self._db.control_transaction() as tx:
            return await store.due(tx, self._clock.now(), limit)

    async def breach(self, ctx: TenantContext, review_id: str) -> str:
        """Nobody decided in time; what that led to: ``escalated``, ``overdue`` (nothing more will), ``expired`` or
        ``decided``; ``nothing`` when its time has not come.

        For the scheduler. Raises ``NotFound``, ``Forbidden``.
        """
        return await self._acts.breach(ctx, review_id)

    async def _signal(self, next_at: datetime) -> None:
        # What comes after the scheduler's next idle look is found then: no need to wake it.
        now = self._clock.now()
        if next_at <= now + timedelta(seconds=idle_look_s(now)) + _LATE:
            await self._bus.signal(Topic.SCHEDULER)

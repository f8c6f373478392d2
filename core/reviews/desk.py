"""Where people find the cases they may decide: their own organisation's, or those of the shared pools.

Cases of an organisation whose policy says ``reviewer_pool: shared`` are also before people of the platform with the
role ``pool-reviewer``. They see those cases and nothing else of those organisations, and each act is one in the
organisation: its run's event, its audit, under its row-level security. A case that was asked while the policy said
``dedicated``, or that needs a role of the organisation, is not theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core.clock import Clock
from core.db.pool import Database
from core.errors import Forbidden, InvalidInput, NotFound
from core.reviews import store
from core.reviews.acts import NONE
from core.reviews.model import BulkResult, ReviewState, ReviewView, next_for
from core.reviews.service import ReviewService
from core.tenancy import PLATFORM, ActorKind, Scope, TenantContext
from core.tenants.service import TenantService

_ACTING = frozenset({Scope.REVIEWS_READ, Scope.REVIEWS_DECIDE})


class Desk:
    """The reviews of whoever asks. What it does not say here is said by ``ReviewService``."""

    def __init__(self, db: Database, reviews: ReviewService, tenants: TenantService, clock: Clock) -> None:
        self._db = db
        self._reviews = reviews
        self._tenants = tenants
        self._clock = clock

    async def open(self, ctx: TenantContext, limit: int = 100) -> list[ReviewView]:
        """Open reviews, at most 1,000, the most urgent first.

        Of shared pools: what is overdue before what is not, then by class (enterprise, standard, free), then by due
        time.
        """
        return await (self._shared(ctx, limit) if _shares(ctx) else self._reviews.open(ctx, limit))

    async def mine(self, ctx: TenantContext, limit: int = 100) -> list[ReviewView]:
        """Open reviews as the caller should look at them: their own claims first, then what nobody works on."""
        if not _shares(ctx):
            return await self._reviews.mine(ctx, limit)
        return next_for(await self._shared(ctx, 1_000), ctx.actor, self._clock.now())[:limit]

    async def recent(self, ctx: TenantContext, limit: int = 100) -> list[ReviewView]:
        """Reviews of any state, newest first, at most 1,000; of shared pools those that the caller decided."""
        if not _shares(ctx):
            return await self._reviews.recent(ctx, limit)
        ctx.require(Scope.REVIEWS_READ)
        async with self._db.tenant_transaction(ctx) as tx:
            return await store.shared_decided(tx, ctx.actor, min(limit, 1_000), self._clock.now())

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
        """Reviews that fit every filter given; of shared pools out of the 1,000 that ``open`` and ``recent`` show."""
        if not _shares(ctx):
            return await self._reviews.find(
                ctx, state=state, pool=pool, of_run=of_run, overdue=overdue, limit=min(limit, 1_000)
            )
        now = self._clock.now()
        found = await self.open(ctx, 1_000) if state in (None, ReviewState.OPEN) else []
        found += await self.recent(ctx, 1_000) if state is not ReviewState.OPEN else []
        return [
            view
            for view in found
            if pool in (None, view.pool)
            and of_run in (None, view.run_id)
            and (state is None or view.state == state)
            and (not overdue or view.due_at <= now)
        ][:limit]

    async def get(self, ctx: TenantContext, review_id: str) -> ReviewView:
        """One review. Raises ``NotFound`` for what is not the caller's to see."""
        return await self._reviews.get(await self._acting(ctx, review_id), review_id)

    async def deciders(self, ctx: TenantContext) -> dict[str, str]:
        """Names by user id of those to whom one may delegate; empty for shared pools."""
        return {} if _shares(ctx) else await self._reviews.deciders(ctx)

    # Acts -----------------------------------------------------------------------------------------------

    async def claim(self, ctx: TenantContext, review_id: str) -> ReviewView:
        """Say that one works on it."""
        return await self._reviews.claim(await self._acting(ctx, review_id), review_id)

    async def release(self, ctx: TenantContext, review_id: str) -> ReviewView:
        """Give one's claim back."""
        return await self._reviews.release(await self._acting(ctx, review_id), review_id)

    async def delegate(self, ctx: TenantContext, review_id: str, user_id: str) -> ReviewView:
        """Give one's seat to a colleague. Raises ``InvalidInput`` for a case of a shared pool."""
        acting = await self._acting(ctx, review_id)
        if _shares(ctx):
            raise InvalidInput("A case of a shared pool is not handed over: release it, and a colleague takes it.")
        return await self._reviews.delegate(acting, review_id, user_id)

    async def decide(
        self,
        ctx: TenantContext,
        review_id: str,
        verdict: str,
        comment: str = "",
        answer: dict[str, Any] | None = None,
    ) -> ReviewView:
        """Decide, or vote when it takes several."""
        return await self._reviews.decide(await self._acting(ctx, review_id), review_id, verdict, comment, answer)

    async def decide_many(
        self,
        ctx: TenantContext,
        review_ids: Sequence[str],
        verdict: str,
        comment: str = "",
        answer: dict[str, Any] | None = None,
    ) -> list[BulkResult]:
        """One verdict for at most 500 cases, each by itself and exactly once; what became of each, in order."""
        if not _shares(ctx):
            return await self._reviews.decide_many(ctx, review_ids, verdict, comment, answer)
        results = []
        for review_id in dict.fromkeys(review_ids):
            try:
                acting = await self._acting(ctx, review_id)
            except NotFound as error:
                results.append(BulkResult(review_id, error.code, error.message))
            else:
                results += await self._reviews.decide_many(acting, [review_id], verdict, comment, answer)
        return results

    # Inside ---------------------------------------------------------------------------------------------

    async def _shared(self, ctx: TenantContext, limit: int) -> list[ReviewView]:
        ctx.require(Scope.REVIEWS_READ)
        now = self._clock.now()
        async with self._db.tenant_transaction(ctx) as tx:
            return await store.shared_open(tx, min(limit, 1_000), now)

    async def _acting(self, ctx: TenantContext, review_id: str) -> TenantContext:
        """The context in which this person acts on this review. Raises ``NotFound``, ``Forbidden``."""
        if not _shares(ctx):
            return ctx
        ctx.require(Scope.REVIEWS_READ)
        if ctx.actor_kind is not ActorKind.USER:
            raise Forbidden("Cases of shared pools are decided by people who are logged in.")
        async with self._db.tenant_transaction(ctx) as tx:
            tenant_id = await store.shared_of(tx, review_id)
        if tenant_id is None:
            raise NotFound(NONE)
        return await self._tenants.context_for(
            tenant_id, actor_kind=ctx.actor_kind, actor_id=ctx.actor_id, scopes=_ACTING & ctx.scopes
        )


def _shares(ctx: TenantContext) -> bool:
    return ctx.tenant_id == PLATFORM

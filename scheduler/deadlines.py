"""Deadlines of reviews: what nobody has decided in time escalates, expires, or is told to be overdue.

The wake-up is computed: the job says when the next review is due, and a review that is due before the next idle look
signals the scheduler when it is asked. A review that cannot be dealt with (its tenant moved) does not hold up others.
"""

from __future__ import annotations

import structlog
from prometheus_client import CollectorRegistry, Counter

from core.bootstrap import Platform
from core.errors import NotFound, WrongRegion
from core.ids import ReviewId, TenantId
from core.reviews.service import ESCALATING
from core.tenancy import ActorKind

_BATCH = 500

log = structlog.get_logger(__name__)


class Deadlines:
    """The job."""

    def __init__(self, platform: Platform, registry: CollectorRegistry) -> None:
        self._tenants = platform.tenants
        self._reviews = platform.reviews
        self._clock = platform.clock
        self._breaches = Counter(
            "bailiwick_review_breaches",
            "Reviews nobody decided in time, by what followed.",
            ("act",),
            registry=registry,
        )

    async def run(self) -> float | None:
        """Deal with what is due; seconds until the next one is, None: there is none."""
        while (next_at := await self._reviews.next_breach()) is not None:
            left_s = (next_at - self._clock.now()).total_seconds()
            if left_s > 0:
                return left_s
            due = await self._reviews.due(_BATCH)
            dealt_with = [await self._breach(tenant_id, review_id) for tenant_id, review_id in due]
            if not any(dealt_with):
                return 1.0
        return None

    async def _breach(self, tenant_id: TenantId, review_id: ReviewId) -> bool:
        try:
            ctx = await self._tenants.context_for(
                tenant_id, actor_kind=ActorKind.SCHEDULER, actor_id="reviews", scopes=ESCALATING
            )
            act = await self._reviews.breach(ctx, review_id)
        except (NotFound, WrongRegion) as error:
            log.warning("review.not_escalated", tenant_id=tenant_id, review_id=review_id, error=error.message)
            return False
        if act != "nothing":
            self._breaches.labels(act).inc()
            log.info("review.breached", tenant_id=tenant_id, review_id=review_id, act=act)
        return True

"""Starts the runs of events that triggers listen for: a batch at a time, all tenants in turn.

Each takes a few milliseconds and stands for itself: what fails stays to be started, the others go on, and the job
fails, so that it is tried again after the maintenance loop's pause. See ``core.triggers.service``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter

from core.bootstrap import Platform
from core.tenancy import ActorKind
from core.triggers.model import ToStart
from core.triggers.service import STARTING

BATCH = 200
AT_ONCE = 4


class Starter:
    """The job ``triggers`` of the leading scheduler."""

    def __init__(self, platform: Platform, registry: CollectorRegistry) -> None:
        self._platform = platform
        self._started = Counter(
            "bailiwick_trigger_events", "Events of triggers that were dealt with or put off.", registry=registry
        )

    async def run(self) -> float | None:
        """Start what is due, at most 200; seconds until there is more, None: nothing is to be started.

        Raises what the first of those that failed raised, after all others have been started.
        """
        triggers = self._platform.triggers
        next_at = await triggers.next_due()
        if next_at is None:
            return None
        left_s = (next_at - self._platform.clock.now()).total_seconds()
        if left_s > 0:
            return left_s
        batch = await triggers.due(BATCH)
        failed = [error for error in await self._start(batch) if error is not None]
        if failed:
            raise failed[0]
        return 0.0  # there may be more; the other jobs come in between

    async def _start(self, batch: Sequence[ToStart]) -> list[BaseException | None]:
        ends: list[BaseException | None] = []
        for first in range(0, len(batch), AT_ONCE):
            together = (self._start_one(one) for one in batch[first : first + AT_ONCE])
            ends += await asyncio.gather(*together, return_exceptions=True)
        return ends

    async def _start_one(self, one: ToStart) -> None:
        ctx = await self._platform.tenants.context_for(
            one.tenant_id, actor_kind=ActorKind.TRIGGER, actor_id=one.trigger_id, scopes=STARTING
        )
        await self._platform.triggers.start(ctx, one)
        self._started.inc()

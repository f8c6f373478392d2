"""Starts the runs of events that triggers listen for: a batch at a time, all tenants in turn.

Those of one tenant start one after the other, in the order in which the events came, those of several tenants at
the same time. Each stands for itself: what fails stays to be started, the others go on, and the job fails, so that
it is tried again after the maintenance loop's pause. See ``core.triggers.service``.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter

from core.bootstrap import Platform
from core.ids import TenantId
from core.tenancy import ActorKind
from core.triggers.model import ToStart
from core.triggers.service import STARTING

BATCH = 100
AT_ONCE = 4


class Starter:
    """The job ``triggers`` of the leading scheduler."""

    def __init__(self, platform: Platform, registry: CollectorRegistry) -> None:
        self._platform = platform
        self._started = Counter(
            "bailiwick_trigger_events", "Events of triggers that were dealt with or put off.", registry=registry
        )

    async def run(self) -> float | None:
        """Start what is due, at most 100; seconds until there is more, None: nothing is to be started.

        Raises what the first of those that failed raised, after all others have been started.
        """
        triggers = self._platform.triggers
        next_at = await triggers.next_due()
        if next_at is None:
            return None
        left_s = (next_at - self._platform.clock.now()).total_seconds()
        if left_s > 0:
            return left_s
        failed = await self._start(await triggers.due(BATCH))
        if failed:
            raise failed[0]
        return 0.0  # there may be more; the other jobs come in between

    async def _start(self, batch: Sequence[ToStart]) -> list[Exception]:
        by_tenant: defaultdict[TenantId, list[ToStart]] = defaultdict(list)
        for one in batch:
            by_tenant[one.tenant_id].append(one)
        at_once = asyncio.Semaphore(AT_ONCE)
        ends = await asyncio.gather(*(self._start_in_order(events, at_once) for events in by_tenant.values()))
        return [error for errors in ends for error in errors]

    async def _start_in_order(self, events: Sequence[ToStart], at_once: asyncio.Semaphore) -> list[Exception]:
        errors: list[Exception] = []
        async with at_once:
            for one in events:
                try:
                    await self._start_one(one)
                except Exception as error:
                    errors.append(error)
        return errors

    async def _start_one(self, one: ToStart) -> None:
        ctx = await self._platform.tenants.context_for(
            one.tenant_id, actor_kind=ActorKind.TRIGGER, actor_id=one.trigger_id, scopes=STARTING
        )
        await self._platform.triggers.start(ctx, one)
        self._started.inc()

"""How runs enter the queue: replays are answered, the door decides, runs and queue entries are written, or nothing is.

In the caller's transaction, which must end without a commit when one of these raises. Locks the tenant's day, then its
place in the queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.clock import Clock
from core.db.pool import Database, Transaction
from core.errors import Conflict, InvalidInput
from core.ids import RunId, new_id
from core.queue.service import QueueService
from core.runs import store
from core.runs.door import Door
from core.runs.forking import give_steps_in
from core.runs.model import Cause, Lane, RunRequest, RunView, Standstill, check_request, queued_cause
from core.runs.submission import Catalog, WorkflowInfo, new_run, queued_view, replayed_id
from core.tenancy import TenantContext
from core.usage.service import UsageService
from core.versions.service import VersionService


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request whose workflow exists and takes its input."""

    request: RunRequest
    info: WorkflowInfo
    document: dict[str, Any]


class Entry:
    """The way into the queue of one process. ``queue_limit``: runs that may be queued on the whole platform."""

    def __init__(
        self,
        db: Database,
        queue: QueueService,
        usage: UsageService,
        catalog: Catalog,
        versions: VersionService,
        clock: Clock,
        queue_limit: int,
    ) -> None:
        self._db = db
        self._versions = versions
        self._queue = queue
        self._door = Door(queue, usage, queue_limit)
        self._catalog = catalog
        self._clock = clock

    async def prepared(self, ctx: TenantContext, requests: Sequence[RunRequest]) -> list[Prepared]:
        """Requests, looked at, in their order: each with its version, and its input as that version reads it.

        Raises ``InvalidInput``, ``PayloadTooLarge`` and ``WorkflowUnknown``.
        """
        routes = await self._versions.routes()
        used = await self._versions_before(ctx, [one for one in requests if one.workflow in routes])
        prepared = []
        for request in requests:
            check_request(request)
            version = request.version or used.get(request.idempotency_key or "")  # a replay is read as what it repeats
            if version is None:
                key = request.idempotency_key or new_id("run", self._clock.now())
                version = self._versions.version_for(
                    routes, request.workflow, ctx.tenant_id, key, of_a_run=request.parent_run_id is not None
                )
            info = self._catalog.resolve(request.workflow, version)
            prepared.append(Prepared(request, info, self._catalog.validate(info, request.input)))
        return prepared

    async def _versions_before(self, ctx: TenantContext, requests: Sequence[RunRequest]) -> dict[str, str]:
        """The version of each run that was submitted before under one of the keys."""
        keys = [one.idempotency_key for one in requests if one.idempotency_key]
        if not keys:
            return {}
        async with self._db.tenant_transaction(ctx) as tx:
            return await store.versions_by_key(tx, keys)

    async def insert_in(
        self, tx: Transaction, ctx: TenantContext, prepared: Sequence[Prepared], *, at_most_microusd: int | None = None
    ) -> tuple[list[RunId], list[RunView]]:
        """All runs in the order of the requests, and those that are new as they stand now.

        ``at_most_microusd``: no run's budget is more. Raises what ``Door.admit_in`` does, ``IdempotencyConflict`` and
        ``Conflict``.
        """
        keys = [one.request.idempotency_key for one in prepared if one.request.idempotency_key]
        if len(set(keys)) != len(keys):
            raise InvalidInput("Two runs of one batch have the same idempotency key.")
        known = await store.by_idempotency_keys(tx, keys) if keys else {}
        now = self._clock.now()
        fresh = [one for one in prepared if one.request.idempotency_key not in known]
        standstill = Standstill(Cause.SHARE)
        if fresh:
            lowest = max(one.info.lane if one.request.lane is None else one.request.lane for one in fresh)
            of_a_run = all(one.request.parent_run_id for one in fresh)
            place = await self._door.admit_in(tx, ctx, Lane(lowest), len(fresh), now, of_a_run=of_a_run)
            standstill = await self.standstill_at(tx, place)
        run_ids: list[RunId] = []
        new: list[store.NewRun] = []
        for one in prepared:
            if one.request.idempotency_key in known:
                run_ids.append(replayed_id(one.request, known[one.request.idempotency_key]))
                continue
            new.append(new_run(ctx, one.request, one.info, one.document, now, at_most_microusd))
            run_ids.append(new[-1].run_id)
        if new:
            if await store.insert_runs(tx, ctx, new, now) < len(new):
                raise Conflict("The same submission is under way.", retry_after_s=1.0)
            await self._queue.push_in(tx, [run.run_id for run in new], now)
            for run in new:
                if run.request.fork is not None:
                    await give_steps_in(tx, ctx, run.request.fork, run.run_id, now)
        return run_ids, [queued_view(ctx, run, standstill, now) for run in new]

    async def standstill_at(self, tx: Transaction, place: store.QueueRow) -> Standstill:
        """Why the queued runs of a tenant that stands there have not started."""
        live = await self._queue.live_in(tx)
        cause = queued_cause(place.paused, place.running, place.cap, live.slots, blocked=place.blocked)
        return Standstill(cause, live.codes, place.full)

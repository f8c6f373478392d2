"""Runs that a run spawns, and how it learns what became of them.

Spawning is one transaction: the children enter the queue as any submission does, and the step that spawned them is
recorded with their ids; so a crash leaves both or neither. Their idempotency keys are made of the parent's id, the
step, the attempt and their number in it. Waiting holds no slot: see ``core/db/migrations/0019_children.sql``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.clock import Clock
from core.db.pool import Database, Transaction
from core.db.queries import load_queries
from core.errors import InvalidInput
from core.ids import RunId
from core.queue.model import Topic
from core.queue.service import QueueService
from core.redis.bus import Bus
from core.runs.acts import begin_anew
from core.runs.entry import Entry
from core.runs.execution import Executing, Lost, RunExecution, Wait, WaitPhase
from core.runs.model import RunRequest, RunState
from core.runs.store import append_event
from core.usage.service import UsageService

SQL = load_queries(__file__, "children.sql")

MAX_CHILDREN = 1_000
"""Runs that one step may spawn."""

MAX_DEPTH = 5
"""Runs that may be above another one."""


@dataclass(frozen=True, slots=True)
class ChildEnd:
    """How a child stands: ``output`` when it succeeded, ``error`` when it failed."""

    run_id: RunId
    workflow: str
    state: RunState
    output: Any
    error: dict[str, Any] | None


def check_count(count: int) -> None:
    """Raise ``InvalidInput`` for more children than one step may spawn."""
    if count > MAX_CHILDREN:
        raise InvalidInput(f"One step spawns at most {MAX_CHILDREN} runs; {count} were given.", limit=MAX_CHILDREN)


def check_depth(above: int) -> None:
    """Raise ``InvalidInput`` for children of a run that has so many above it."""
    if above >= MAX_DEPTH:
        raise InvalidInput(
            f"This run has {above} runs above it and spawns none: more would be endless.", limit=MAX_DEPTH
        )


def child_of(on: Executing, step: int, key: str, request: RunRequest) -> RunRequest:
    """The request for a child of a step; ``key`` tells it from the others of its parent."""
    return RunRequest(
        workflow=request.workflow,
        input=request.input,
        version=request.version,
        lane=request.lane,
        idempotency_key=f"{on.run_id}/{key}",
        thread_id=on.thread_id,
        parent_run_id=on.run_id,
        parent_step=step,
        source="run",
    )


class ChildRuns:
    """Children of the runs that workers execute."""

    def __init__(
        self,
        db: Database,
        bus: Bus,
        queue: QueueService,
        usage: UsageService,
        entry: Entry,
        execution: RunExecution,
        clock: Clock,
    ) -> None:
        self._db = db
        self._bus = bus
        self._queue = queue
        self._usage = usage
        self._entry = entry
        self._execution = execution
        self._clock = clock

    async def spawn(self, on: Executing, step: int, name: str, requests: Sequence[RunRequest]) -> list[str]:
        """Submit the children and record the step, once; their ids, in order.

        Each may spend what its workflow may and the parent has left. Raises what a submission raises, ``InvalidInput``
        beyond the limits of a family, ``Cancelled`` and ``Lost``; nothing is written then.
        """
        check_count(len(requests))
        async with self._db.tenant_transaction(on.ctx) as tx:
            place = await tx.fetchrow(SQL["place"], on.run_id, step)
        if place is None:
            raise Lost
        check_depth(place["above"])
        attempt = place["attempts"] + 1  # a retry from an earlier step spawns others
        children = [child_of(on, step, f"{step}/{attempt}/{n}", request) for n, request in enumerate(requests)]
        prepared = await self._entry.prepared(on.ctx, children)
        async with self._db.tenant_transaction(on.ctx) as tx:
            balance = await self._usage.balance_in(tx, on.ctx, on.run_id, run_limit_microusd=on.budget_microusd)
            run_ids, _ = await self._entry.insert_in(tx, on.ctx, prepared, at_most_microusd=balance.left_microusd)
            await self._execution.record_in(tx, on, step, name, "spawn", run_ids)
        await self._bus.signal(Topic.WORKERS)
        return list(run_ids)

    async def ends(self, on: Executing, wait: Wait, of_step: int, run_ids: Sequence[str]) -> list[ChildEnd] | None:
        """How the children of a step ended, in the order of their ids; None: the run must park. Raises ``Lost``.

        The step that waits is recorded when all have succeeded. Those that had not when the run was retried are
        queued again.
        """
        again: list[RunId] = []
        ends: list[ChildEnd] | None = None
        async with self._db.tenant_transaction(on.ctx) as tx:
            await self._queue.push_in(tx, [])  # whoever ends a child holds this lock: it has ended, or will wake us
            if await self._execution.begin_wait_in(tx, on, wait) is WaitPhase.NEW and on.claim > 1:
                again = await self._retry_in(tx, on, run_ids, self._clock.now())
            if await tx.fetchval(SQL["awaits"], on.run_id, of_step):
                await self._execution.arm_wait_in(tx, on, wait)
            else:
                ends = await _stand(tx, run_ids)
                await self._execution.disarm_in(tx, on, wait.step)
                if all(end.state is RunState.SUCCEEDED for end in ends):
                    await self._execution.finish_wait_in(tx, on, wait.step, len(ends))
        if again:
            await self._bus.signal(Topic.WORKERS)
        return ends

    async def stand(self, on: Executing, run_ids: Sequence[str]) -> list[ChildEnd]:
        """How runs stand, in the order of their ids."""
        async with self._db.tenant_transaction(on.ctx) as tx:
            return await _stand(tx, run_ids)

    async def _retry_in(self, tx: Transaction, on: Executing, run_ids: Sequence[str], now: datetime) -> list[RunId]:
        undone = [RunId(row["run_id"]) for row in await tx.fetch(SQL["undone"], on.run_id, list(run_ids))]
        for run_id in undone:
            await begin_anew(tx, run_id, now)
            await append_event(tx, run_id, now, "retried", {"actor": f"run:{on.run_id}"})
        await self._queue.push_in(tx, undone)
        return undone


async def _stand(tx: Transaction, run_ids: Sequence[str]) -> list[ChildEnd]:
    rows = await tx.fetch(SQL["ends"], list(run_ids))
    return [ChildEnd(**{**row, "run_id": RunId(row["run_id"]), "state": RunState(row["state"])}) for row in rows]

"""Runs that a run spawns, and how it learns what became of them.

Spawning is one transaction: the children enter the queue as any submission does, and the step that spawned them is
recorded with their ids; so a crash leaves both or neither. Their idempotency keys are made of the parent's id, the
step, the attempt and their number in it. Waiting holds no slot: see ``core/db/migrations/0019_children.sql``.

A step with a window spawns some of its children, and more whenever some have ended:

    (none) ──spawn──► started, {"key", "next", "of"} ──spawn──► … ──the last ones──► done, the ids in order
                           │ look: so many may be spawned now; or none, and the parent parks until a child ends
                           └ a child ended other than succeeded: no more are spawned, and when all open ones have ended
                             the step fails for good. A retry of the parent goes on with it.

How far it is stands in its record, written with the children: whoever executes the parent next goes on from there. A
look takes the queue's lock, as every end does, so it has seen an end or is woken by it. It costs the same however many
children there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True)
class Spawning:
    """A step that spawns ``of`` children, of which at most ``at_once`` are open together."""

    step: int
    name: str
    of: int = 1
    at_once: int = 1


@dataclass(frozen=True, slots=True)
class Look:
    """What a step that spawns may do now: spawn those ``numbers``, or (None) nothing: the run must park.

    ``numbers`` empty: all are there. ``ends``: a child did not succeed, and none is open any more; how all ended.
    """

    numbers: Sequence[int] | None = None
    ends: Sequence[ChildEnd] = ()


@dataclass(frozen=True, slots=True)
class Brood:
    """How far a step that spawns is. ``key``: the middle part of its children's idempotency keys; ``next``: the number
    of the first one that may be missing; ``kept``: numbers of those that the run was given. ``attempt``: of the step,
    which is ``open``."""

    key: str
    next: int
    kept: Mapping[str, str]
    attempt: int
    open: bool

    def missing(self, of: int, after: int = -1) -> list[int]:
        """Numbers of the children that are still to be spawned."""
        return [number for number in range(max(self.next, after + 1), of) if str(number) not in self.kept]

    def record(self, following: int, of: int) -> dict[str, Any]:
        """What the record of the step says until all are spawned."""
        told: dict[str, Any] = {"key": self.key, "next": following, "of": of}
        return told | ({"kept": dict(self.kept)} if self.kept else {})


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

    async def look(self, on: Executing, spawning: Spawning, wait: Wait) -> Look:
        """Which children may be spawned now. When none may, ``wait`` is armed and ends with the next child that ends.

        Children that had not succeeded when the run was retried are queued again. Raises ``Lost`` and ``Paused``.
        """
        again: list[RunId] = []
        async with self._db.tenant_transaction(on.ctx) as tx:
            brood = _brood(spawning.step, await self._place_in(tx, on, spawning.step))
            if brood.next == 0:
                return Look(brood.missing(spawning.of)[: spawning.at_once])
            await self._queue.lock_in(tx)  # whoever ends a child holds this lock: it has ended, or will wake us
            phase = await self._execution.begin_wait_in(tx, on, wait)
            if phase is WaitPhase.NEW and on.claim > 1:
                run_ids = await _ids(tx, on, spawning)
                again = await self._retry_in(tx, on, run_ids, self._clock.now())
            (stands,) = await tx.fetch(SQL["stands"], on.run_id, spawning.step, f"{on.run_id}/{brood.key}/")
            found = await self._looked_in(tx, on, spawning, brood, dict(stands))
            await self._execution.disarm_in(tx, on, wait.step)
            if found.numbers is None and not found.ends:
                await self._execution.arm_wait_in(tx, on, _until(wait, spawning, failed=stands["failed"]))
        if again:
            await self._bus.signal(Topic.WORKERS)
        return found

    async def _looked_in(
        self, tx: Transaction, on: Executing, spawning: Spawning, brood: Brood, stands: Mapping[str, Any]
    ) -> Look:
        if stands["failed"]:
            return Look() if stands["open"] else Look(ends=await _stand(tx, await _ids(tx, on, spawning)))
        missing = brood.missing(spawning.of)
        room = max(0, spawning.at_once - stands["open"])
        return Look(missing[:room]) if room or not missing else Look()

    async def spawn(
        self, on: Executing, spawning: Spawning, numbers: Sequence[int], requests: Sequence[RunRequest]
    ) -> list[str] | None:
        """Submit children and record how far the step is, once; the ids of all, in order, when these were the last.

        Each may spend what its workflow may and the parent has left. Raises what a submission raises, ``InvalidInput``
        beyond the limits of a family, ``Cancelled``, ``Paused`` and ``Lost``; nothing is written then.
        """
        check_count(len(requests))
        step = spawning.step
        async with self._db.tenant_transaction(on.ctx) as tx:
            place = await self._place_in(tx, on, step)
            if place["state"] == "done" and not place["aside"]:
                return list(place["result"])  # written before, by a call that was not told so
        check_depth(place["above"])
        brood = _brood(step, place)
        if any(number < brood.next for number in numbers):
            return None
        children = [
            child_of(on, step, f"{brood.key}/{number}", request)
            for number, request in zip(numbers, requests, strict=True)
        ]
        prepared = await self._entry.prepared(on.ctx, children)
        async with self._db.tenant_transaction(on.ctx) as tx:
            balance = await self._usage.balance_in(tx, on.ctx, on.run_id, run_limit_microusd=on.budget_microusd)
            await self._entry.insert_in(tx, on.ctx, prepared, at_most_microusd=balance.left_microusd)
            spawned = await self._record_in(tx, on, spawning, brood, max(numbers, default=brood.next - 1))
        await self._bus.signal(Topic.WORKERS)
        return spawned

    async def _record_in(
        self, tx: Transaction, on: Executing, spawning: Spawning, brood: Brood, last: int
    ) -> list[str] | None:
        """Write that the children up to this number are there; the ids of all when none is missing."""
        step, attempt = spawning.step, brood.attempt
        if on.claim > 1:
            await self._execution.disarm_in(tx, on, step)  # it may have waited for a quota
        if brood.open:
            await self._execution.unless_stopped_in(tx, on)
        else:
            attempt = await self._execution.begin_in(tx, on, step, spawning.name, "spawn")
        await tx.execute(SQL["spawned"], on.run_id, step, attempt, brood.record(last + 1, spawning.of))
        if brood.missing(spawning.of, last):
            return None
        run_ids = await _ids(tx, on, spawning)
        await self._execution.finish_in(tx, on, step, attempt, run_ids)
        return run_ids

    async def _place_in(self, tx: Transaction, on: Executing, step: int) -> Mapping[str, Any]:
        place = await tx.fetchrow(SQL["place"], on.run_id, step)
        if place is None:
            raise Lost
        return dict(place)

    async def ends(self, on: Executing, wait: Wait, run_ids: Sequence[str]) -> list[ChildEnd] | None:
        """How the children of a step, the wait's key, ended, in the order of their ids; None: the run must park.

        The step that waits is recorded when all have succeeded. Those that had not when the run was retried are
        queued again.
        """
        again: list[RunId] = []
        ends: list[ChildEnd] | None = None
        async with self._db.tenant_transaction(on.ctx) as tx:
            await self._queue.lock_in(tx)  # whoever ends a child holds this lock: it has ended, or will wake us
            if await self._execution.begin_wait_in(tx, on, wait) is WaitPhase.NEW and on.claim > 1:
                again = await self._retry_in(tx, on, run_ids, self._clock.now())
            if await tx.fetchval(SQL["awaits"], on.run_id, int(wait.key or 0)):
                await self._execution.disarm_in(tx, on, wait.step)  # it may be armed for any child
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
        await self._queue.push_in(tx, undone, now)
        return undone


def _brood(step: int, place: Mapping[str, Any]) -> Brood:
    """How far the step is: what an attempt that did not end left, unless it was set aside, or the beginning."""
    attempt, told = place["attempt"], place["result"]
    if place["aside"] or not isinstance(told, dict):
        return Brood(f"{step}/{attempt + 1}", 0, {}, attempt, open=False)  # a retry from an earlier step spawns others
    return Brood(told["key"], told["next"], told.get("kept", {}), attempt, open=place["state"] == "started")


def _until(wait: Wait, spawning: Spawning, *, failed: bool) -> Wait:
    """What ends the wait: any child that ends; once one has failed, the last."""
    return replace(wait, key=str(spawning.step) if failed else f"{spawning.step}/any")


async def _ids(tx: Transaction, on: Executing, spawning: Spawning) -> list[str]:
    return [row["run_id"] for row in await tx.fetch(SQL["brood"], on.run_id, spawning.step, spawning.of)]


async def _stand(tx: Transaction, run_ids: Sequence[str]) -> list[ChildEnd]:
    rows = await tx.fetch(SQL["ends"], list(run_ids))
    return [ChildEnd(**{**row, "run_id": RunId(row["run_id"]), "state": RunState(row["state"])}) for row in rows]

"""The fair queue, as workers and the scheduler use it.

A worker goes ``absent`` → ``live`` (first heartbeat) → ``draining`` (claims nothing more) → ``absent``
(leaves, holding nothing). One that falls silent for 8 s is dead: ``recover`` queues its runs again at the
head of their lanes, and whatever it still tries to write about them is refused, because its claim of them is over. A
run that takes too many workers with it is not queued again but dead. While the database is away nobody can speak, so
silence is counted from the moment at which whoever looks for it could see the database again.
A worker says which code it has and is given runs of that code; what no live worker has stays queued until one comes.
Wake-ups travel through Redis; without it workers look by themselves every second.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from core.clock import Clock
from core.db.pool import Database, Transaction
from core.errors import Unavailable
from core.ids import RunId, WorkerId
from core.queue import store
from core.queue.estimate import StartsIn, starts_in
from core.queue.model import ALIVE, ALIVE_IDLE, DEAD_AFTER_S, HEADROOM, Claims, Held, Live, Requeued, Stopped, Topic
from core.redis.bus import Bus

_DEAD_AFTER = timedelta(seconds=DEAD_AFTER_S)
_NOBODY_IS_DEAD = datetime.min.replace(tzinfo=UTC)
_USES_KEPT = timedelta(days=7)
_FORGET_BATCH = 10_000
_DEPTH_TTL = timedelta(seconds=1)
RATE_OVER = timedelta(minutes=1)
"""The past over which rates are measured."""


class QueueService:
    """Claim, release, wake, recover: each one transaction, each safe to repeat."""

    def __init__(self, db: Database, bus: Bus, clock: Clock, *, headroom: float = HEADROOM) -> None:
        self._headroom = headroom
        self._db = db
        self._bus = bus
        self._clock = clock
        self._depth: tuple[datetime, int] | None = None
        self._rate: tuple[datetime, float] | None = None
        self._level: tuple[datetime, int, float | None] | None = None
        self._live: tuple[datetime, Live] | None = None
        self._blind = False
        self._sees_since = _NOBODY_IS_DEAD

    async def claim(self, worker_id: WorkerId, limit: int) -> Claims:
        """Up to ``limit`` runs that this worker must now execute, such as it has the code of; when to claim again."""
        async with self._db.control_statement() as tx:
            claims, others_wanted = await store.claim(tx, worker_id, limit, self._headroom, self._clock.now())
        if others_wanted:
            await self.signal_workers()
        return claims

    async def push_in(
        self, tx: Transaction, run_ids: Sequence[RunId], queued_at: datetime, *, head: bool = False
    ) -> None:
        """Queue runs in the caller's transaction, as of the moment that they say. Call ``signal_workers`` after the
        commit."""
        await store.push(tx, run_ids, head, queued_at)

    async def lock_in(self, tx: Transaction) -> None:
        """Keep all else that moves the tenant's runs away until the transaction ends; before any run is locked."""
        await store.push(tx, (), False, self._clock.now())

    async def release_in(self, tx: Transaction, held: Held) -> float | None:
        """Give a slot back in the caller's transaction; None: the run is somebody else's now."""
        return await store.release(tx, held, self._clock.now())

    async def wake_in(self, tx: Transaction, run_id: RunId, step: int) -> bool:
        """End a wait in the caller's transaction. Call ``signal_workers`` after the commit."""
        return await store.wake(tx, run_id, step, self._clock.now())

    async def cancel_in(self, tx: Transaction, run_id: RunId) -> Stopped | None:
        """Cancel a run in the caller's transaction; what that found and left, None: there is no such run.

        Tell after the commit that what it asked is over (``News.unasked``).
        """
        return await store.cancel(tx, run_id, self._clock.now())

    async def signal_workers(self) -> None:
        """Wake idle workers: something was queued or a slot became free."""
        await self._bus.signal(Topic.WORKERS)

    async def wake_due(self, limit: int = 500) -> list[Requeued]:
        """Queue every parked run whose time has come, and wake workers for them."""
        async with self._db.control_transaction() as tx:
            woken = await store.wake_due(tx, self._clock.now(), limit)
        for run in woken:
            self._bus.news.of_run(run.tenant_id, run.run_id)
        if woken:
            await self.signal_workers()
        return woken

    async def next_wake(self) -> datetime | None:
        """When the next wait is over by itself."""
        async with self._db.control_transaction() as tx:
            return await store.next_wake(tx)

    async def heartbeat(
        self, worker_id: WorkerId, slots: int, *, draining: bool = False, codes: Sequence[str] | None = None
    ) -> int:
        """Say that a worker lives and how many slots it has; how many of them hold runs.

        ``codes``: the code it has (``code_of``). It claims runs of that code and no others; None: whatever there is.
        """
        async with self._db.control_transaction() as tx:
            return await store.heartbeat(tx, worker_id, slots, draining, self._clock.now(), codes)

    async def leave(self, worker_id: WorkerId) -> bool:
        """A worker goes; False when it still holds runs (they are recovered later)."""
        async with self._db.control_transaction() as tx:
            return await store.leave(tx, worker_id, self._clock.now())

    async def recover(self, worker_id: WorkerId | None = None, keep: Iterable[str] = ()) -> list[Requeued]:
        """Take back the runs of all dead workers; of ``worker_id``: only its own, those that are not among ``keep``."""
        now = self._clock.now()
        dead_before = _NOBODY_IS_DEAD
        # A clock that went back may say that it begins to see in the future.
        begins = timedelta(0) <= now - self._sees_since < _DEAD_AFTER
        if worker_id is None and not self._blind and not begins:
            dead_before = now - _DEAD_AFTER
        try:
            async with self._db.control_transaction() as tx:
                lost = await store.recover(tx, worker_id, list(keep), dead_before, now)
        except Unavailable:
            self.forgive_silence()
            raise
        if self._blind:
            self._blind, self._sees_since = False, now
        await self._tell(lost)
        return lost

    async def until_death_s(self) -> float | None:
        """Seconds until the worker that has been silent for the longest is taken for dead, if it stays silent.

        None: no worker holds runs.
        """
        async with self._db.control_transaction() as tx:
            heard = await store.longest_silent(tx)
        return None if heard is None else (heard + _DEAD_AFTER - self._clock.now()).total_seconds()

    def forgive_silence(self) -> None:
        """The database was away, or perhaps was: silence until the next ``recover`` that sees it counts for nothing."""
        self._blind = True

    async def give_back(self, held: Held, why: dict[str, Any] | None = None) -> Requeued | None:
        """A worker gives back a run whose execution broke (``why``, as JSON), or could not go on for want of a server.

        The run is queued again at the head of its lane, or dead if that has happened too often. None: that claim of it
        is over.
        """
        async with self._db.control_transaction() as tx:
            run = await store.give_back(tx, held, why, self._clock.now())
        await self._tell([] if run is None else [run])
        return run

    async def _tell(self, runs: list[Requeued]) -> None:
        for run in runs:
            cause = "paused" if run.state == "waiting" else None
            await self._bus.publish(run.tenant_id, "run", {"run_id": run.run_id, "state": run.state, "cause": cause})
            if run.closed:
                self._bus.news.unasked(run.tenant_id, run.run_id)
        if runs:
            await self.signal_workers()

    async def anything_moves(self) -> bool:
        """Whether a run is queued or executes: only then can a worker die holding one."""
        async with self._db.control_transaction() as tx:
            return await store.anything_moves(tx)

    async def cancelled_here(self, worker_id: WorkerId) -> list[RunId]:
        """Runs that this worker executes and somebody wants to stop."""
        async with self._db.control_transaction() as tx:
            return await store.cancelled_here(tx, worker_id)

    async def signal_cancel(self) -> None:
        """Tell workers to look at ``cancelled_here``."""
        await self._bus.signal(Topic.CANCEL)

    async def set_platform_cap(self, cap: int | None) -> int | None:
        """Hold at most ``cap`` slots on the whole platform (None: as many as workers have); what it was."""
        async with self._db.control_transaction() as tx:
            was = await store.set_platform_cap(tx, cap)
        await self.signal_workers()
        return was

    async def faults(self) -> list[str]:
        """Where the counts by which the queue decides differ from what is there: nothing, ever."""
        async with self._db.control_transaction() as tx:
            return await store.faults(tx)

    async def forget_flows(self) -> int:
        """Forget users who have nothing queued and whose share has long been evened out; how many flows."""
        async with self._db.control_transaction() as tx:
            return await store.forget_flows(tx, _FORGET_BATCH)

    async def forget_uses(self) -> int:
        """Forget who held a slot when, after the seven days for which plots show it; how many uses."""
        before = self._clock.now() - _USES_KEPT
        return await self._db.in_batches(lambda tx: store.forget_uses(tx, before, _FORGET_BATCH), _FORGET_BATCH)

    async def forget_gaps(self) -> int:
        """Forget when nobody had the code of a version, as far as no queued run waited for it; how many gaps."""
        async with self._db.control_transaction() as tx:
            return await store.forget_gaps(tx, self._clock.now() - _USES_KEPT, _FORGET_BATCH)

    async def live_in(self, tx: Transaction, *, fresh: bool = False) -> Live:
        """The workers that were heard of in the last minute, or are idle and not due to speak yet.

        At most a second old unless ``fresh``.
        """
        now = self._clock.now()
        # "Nobody has any code" is believed for no time: it turns false with the first worker that comes.
        known = self._live if self._live is not None and self._live[1].codes != frozenset() else None
        if fresh or known is None or not timedelta(0) <= now - known[0] < _DEPTH_TTL:
            known = self._live = (now, await store.live(tx, now - ALIVE, now - ALIVE_IDLE))
        return known[1]

    async def depth_in(self, tx: Transaction) -> int:
        """Runs queued on the whole platform: at most a second old, and what this process has admitted since."""
        now = self._clock.now()
        if self._depth is None or not timedelta(0) <= now - self._depth[0] < _DEPTH_TTL:
            self._depth = (now, await store.depth(tx))
        return self._depth[1]

    def admitted(self, runs: int) -> None:
        """So many more are about to be queued: else a second of submissions would not know of each other."""
        if self._depth is not None:
            self._depth = (self._depth[0], self._depth[1] + runs)

    async def starts_in(self, tx: Transaction, run_id: RunId, *, any_tenant: bool = False) -> StartsIn | None:
        """When a queued run will probably start; None: it is not queued, or unknowable.

        Of the transaction's tenant; ``any_tenant``: of all, in an operator's transaction. What others want is known
        for a second.
        """
        now = self._clock.now()
        place = await store.place(tx, run_id, now, any_tenant=any_tenant)
        if place is None:
            return None
        codes = (await self.live_in(tx)).codes
        if codes is not None and place.code not in codes:
            return None
        slots = await store.shared_slots(tx, now - ALIVE, now - ALIVE_IDLE, self._headroom)
        known = self._level
        if known is None or known[1] != slots or not timedelta(0) <= now - known[0] < _DEPTH_TTL:
            known = self._level = (now, slots, await store.fair_level(tx, slots))
        return starts_in(place, slots, known[2])

    async def starts_per_s_in(self, tx: Transaction) -> float:
        """Runs of the transaction's tenant that left the queue per second, over the last minute."""
        return await store.tenant_starts(tx, self._clock.now() - RATE_OVER) / RATE_OVER.total_seconds()

    async def platform_starts_per_s_in(self, tx: Transaction) -> float:
        """Runs of all tenants that left the queue per second, over the last minute; at most a second old."""
        now = self._clock.now()
        if self._rate is None or not timedelta(0) <= now - self._rate[0] < _DEPTH_TTL:
            self._rate = (now, await store.platform_starts(tx, now - RATE_OVER) / RATE_OVER.total_seconds())
        return self._rate[1]

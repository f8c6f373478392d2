"""The leader's alarm clock: APScheduler, and the only door to it.

It holds nothing that is true: rows say what is due, the alarm only says when to look, and looking twice, late
or in vain does no harm. So its store is memory, one alarm per schedule or poller, set from the rows at every
reconciliation and again by each firing. Cron text is read in one place, ``core.schedules.timing``; an alarm is
a plain moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta

import structlog
from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger

from core.clock import Clock
from core.errors import BailiwickError
from core.ids import TenantId
from core.schedules.model import Due

AT_ONCE = 16
AT_ONCE_PER_TENANT = 2
_FIRST_RETRY_S, _LAST_RETRY_S = 2.0, 300.0

log = structlog.get_logger(__name__)

Fire = Callable[[Due], Awaitable[datetime | None]]
"""Deal with what is due; when to look at it again, None: not before a reconciliation says so."""


class Timetable:
    """Alarms until a horizon. At most 16 firings at a time, 2 of a tenant: a slow one delays only its own."""

    def __init__(self, fire: Fire, clock: Clock) -> None:
        self._fire = fire
        self._clock = clock
        self._alarms = AsyncIOScheduler(
            jobstores={"default": MemoryJobStore()}, executors={"default": AsyncIOExecutor()}, timezone=UTC
        )
        self._armed: dict[str, Due] = {}
        self._firing: set[str] = set()
        self._meanwhile: dict[str, Due] = {}
        self._failures: dict[str, int] = {}
        self._horizon = datetime.min.replace(tzinfo=UTC)
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._tenants: dict[TenantId, asyncio.Semaphore] = {}

    def start(self) -> None:
        """Begin to ring; needs a running event loop."""
        self._alarms.start()

    def stop(self) -> None:
        """Ring no more; firings under way are cancelled."""
        self._alarms.shutdown(wait=False)

    def next_at(self) -> datetime | None:
        """The soonest alarm; now when a firing is under way."""
        if self._firing:
            return self._clock.now()
        return min((due.due_at for due in self._armed.values()), default=None)

    def set(self, dues: Iterable[Due], horizon: datetime) -> None:
        """These are all alarms before the horizon; others are forgotten."""
        self._horizon = horizon
        wanted = {_key(due): due for due in dues}
        for key in [key for key in self._armed if key not in wanted]:
            self._disarm(key)
        self._failures = {key: count for key, count in self._failures.items() if key in wanted}
        for key, due in wanted.items():
            if key in self._firing:
                self._meanwhile[key] = due
            elif key not in self._failures:
                self._arm(key, due)

    def _arm(self, key: str, due: Due) -> None:
        if due.due_at >= self._horizon or self._armed.get(key) == due:
            return
        self._armed[key] = due
        self._alarms.add_job(
            self._ring,
            DateTrigger(due.due_at),
            args=(key, due),
            id=key,
            replace_existing=True,
            misfire_grace_time=None,  # however late: what is due is looked at
            max_instances=2,
        )

    def _disarm(self, key: str) -> None:
        del self._armed[key]
        if self._alarms.get_job(key) is not None:
            self._alarms.remove_job(key)

    async def _ring(self, key: str, due: Due) -> None:
        if self._armed.get(key) is not due or key in self._firing:
            return
        del self._armed[key]
        self._firing.add(key)
        try:
            async with self._tenants.setdefault(due.tenant_id, asyncio.Semaphore(AT_ONCE_PER_TENANT)), self._slots:
                again = await self._attempt(key, due)
        finally:
            self._firing.discard(key)
        # What a reconciliation said while we fired may be older or newer than our own answer: looking there
        # once too often tells.
        if (newer := self._meanwhile.pop(key, None)) is not None and key not in self._failures:
            self._arm(key, newer)
        elif again is not None:
            self._arm(key, Due(due.kind, due.id, due.tenant_id, again))

    async def _attempt(self, key: str, due: Due) -> datetime | None:
        try:
            again = await self._fire(due)
        except BailiwickError as error:
            log.warning("timetable.firing_failed", due=key, tenant_id=due.tenant_id, error=error.message)
        except Exception:
            log.exception("timetable.firing_broke", due=key, tenant_id=due.tenant_id)
        else:
            self._failures.pop(key, None)
            return again
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        return self._clock.now() + timedelta(seconds=min(_FIRST_RETRY_S * 2.0 ** (failures - 1), _LAST_RETRY_S))


def _key(due: Due) -> str:
    return f"{due.kind}:{due.id}"

"""Of all scheduler processes of an installation, one leads; if it dies, another one does within seconds.

    standing by ──lock free──► leading ──connection to Postgres lost──► resigned ──something to do──► standing by

The lock lives on a connection of its own, so it ends with the process, however that ends. Two leaders at once
(the old one has not noticed yet) are harmless: whatever they fire is idempotent. One that lost its connection
stops at once, and stands again only when it knows of something to do or is signalled: a serverless database
that went to sleep closes connections, and coming back at once would keep it awake for ever. For the same
reason run a single scheduler against such a database: one that stands by waits inside a statement.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

import structlog
from prometheus_client import CollectorRegistry, Gauge

from core.db.lock import LEADER, exclusive
from core.errors import Unavailable
from core.redis.bus import Bus

_RETRY_S = 0.5
_SLOWEST_RETRY_S = 10.0

log = structlog.get_logger(__name__)


class Duties(Protocol):
    """What a leader does."""

    async def run(self) -> None:
        """Do it until cancelled."""
        ...

    def idle_s(self) -> float:
        """Seconds until something has to be done again; 0.0 when that is not known."""
        ...


class Leader:
    """Stands for leadership for ever, and performs the duties while it has it."""

    def __init__(
        self, dsn: str, bus: Bus, duties: Duties, registry: CollectorRegistry, *, topics: tuple[str, ...]
    ) -> None:
        self._dsn = dsn
        self._bus = bus
        self._duties = duties
        self._topics = topics
        self.leading = False
        gauge = Gauge("bailiwick_scheduler_leading", "1 while this process leads.", registry=registry)
        gauge.set_function(lambda: float(self.leading))

    async def run(self) -> None:
        """Until cancelled."""
        retry_s = _RETRY_S
        async with self._bus.listen(*self._topics) as signals:
            while True:
                try:
                    async with exclusive(self._dsn, LEADER, name="bailiwick-leader") as lost:
                        retry_s = _RETRY_S
                        await self._lead(lost)
                    log.warning("leader.resigned", reason="the connection to Postgres was lost")
                    # Without Redis a wait is short, so this stays a wait of at most a second then.
                    await signals.wait(max(_RETRY_S, self._duties.idle_s()))
                except Unavailable as error:
                    log.warning("leader.cannot_stand", error=error.message, retry_in_s=retry_s)
                    await asyncio.sleep(retry_s)
                    retry_s = min(2 * retry_s, _SLOWEST_RETRY_S)

    async def _lead(self, lost: asyncio.Event) -> None:
        log.info("leader.elected")
        self.leading = True
        duties = asyncio.create_task(self._duties.run(), name="duties")
        losing = asyncio.create_task(lost.wait())
        try:
            await asyncio.wait({duties, losing}, return_when=asyncio.FIRST_COMPLETED)
            if duties.done():
                duties.result()  # duties never end by themselves: this raises what broke them
        finally:
            self.leading = False
            for task in (duties, losing):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

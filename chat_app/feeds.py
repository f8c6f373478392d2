"""The events of runs as they come, read once for all who follow a run in this process.

    nobody follows ──first──► reading ──news──► reading … ──last one leaves, or the run ends──► nobody follows

One ear per tenant hears on the bus which runs there is news of; one reader per followed run then reads what is new,
once, and wakes its followers. A follower keeps nothing but its position: one that is slower than the run takes the
last 200 events (at most 1 MiB) from what the reader keeps, and older ones page by page from Postgres. So nothing is
lost or told twice, whoever is slow or comes back, and nobody's slowness fills memory.

Without Redis the ear says every 5 s that something may have happened, and everybody reads. Of a run that executes the
log is also read when nothing was heard for 5 s: a worker that died may have taken its last words along.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from chat_app.routes.run_models import EventOut
from core.clock import Clock
from core.errors import BailiwickError
from core.ids import TenantId
from core.queue.model import idle_look_s
from core.redis.bus import RESYNC, Bus, Event
from core.redis.news import NEWS
from core.runs.log import PAGE, LogPage, RunLog
from core.runs.model import RunEvent, RunState
from core.tenancy import TenantContext
from core.tenants.model import IDENTITY

LOOK_S = 5.0
COMMENT_EVERY_S = 15.0
_KEPT_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Told:
    """One event of a run, and the bytes of it that are sent to whoever may see all of it."""

    event: RunEvent
    sent: str


def sent(event: RunEvent, document: str) -> str:
    """An event as it stands in a stream."""
    return f"id: {event.seq}\nevent: {event.kind}\ndata: {document}\n\n"


class RunFeed:
    """One run and its followers. ``page`` is what was read last."""

    def __init__(self, log: RunLog, ctx: TenantContext, run_id: str, clock: Clock) -> None:
        self.followers = 0
        self.page: LogPage | None = None
        self._log = log
        self._ctx = ctx
        self._run_id = run_id
        self._clock = clock
        self._kept: deque[Told] = deque()
        self._bytes = 0
        self._floor = self._newest = 0  # all events after the one and up to the other are kept
        self._news = asyncio.Event()
        self._grown = asyncio.Event()
        self._problem: BailiwickError | None = None
        self._stopped = False

    @property
    def broken(self) -> bool:
        """Whether it is read no more."""
        return self._problem is not None

    def hear(self) -> None:
        """There may be something new."""
        self._news.set()

    def stop(self) -> None:
        """Send everybody away."""
        self._stopped = True
        self._wake()

    async def read(self, after: int) -> None:
        """Read what is new until cancelled, from a position on. A problem is told to every follower."""
        try:
            while True:
                self._news.clear()
                page = await self._log.page(self._ctx, self._run_id, self._newest if self.page else after)
                self._keep(page, after)
                if len(page.events) < PAGE:
                    await self._wait(page.state)
        except BailiwickError as error:
            self._problem = error
            self._wake()

    async def follow(self, after: int) -> AsyncIterator[list[Told]]:
        """What comes after a position, until the run has ended or the process stops; [] every 15 s without anything.

        Raises ``NotFound``, and ``Unavailable`` when Postgres goes away.
        """
        while not self._stopped:
            grown = self._grown
            found = self._since(after)
            if found is None:
                page = await self._log.page(self._ctx, self._run_id, after)
                found = [_told(event) for event in page.events]
            if found:
                after = found[-1].event.seq
                yield found
            elif self._problem is not None:
                raise self._problem
            elif self.page is not None and self.page.state.final and after >= self.page.newest:
                return
            elif not await _within(grown, COMMENT_EVERY_S):
                yield []

    def _since(self, after: int) -> list[Told] | None:
        """What is kept after a position; None: it is further back."""
        if self.page is None or after >= self._newest:
            return []
        return None if after < self._floor else [told for told in self._kept if told.event.seq > after]

    def _keep(self, page: LogPage, after: int) -> None:
        if self.page is None:
            self._floor = self._newest = min(after, page.newest)
        for event in page.events:
            told = _told(event)
            self._kept.append(told)
            self._bytes += len(told.sent)
            self._newest = event.seq
        while len(self._kept) > PAGE or self._bytes > _KEPT_BYTES:
            gone = self._kept.popleft()
            self._bytes -= len(gone.sent)
            self._floor = gone.event.seq
        if page.events or self.page is None or page.state is not self.page.state:
            self.page = page
            self._wake()

    async def _wait(self, state: RunState) -> None:
        executing = state is RunState.RUNNING
        await _within(self._news, LOOK_S if executing else idle_look_s(self._clock.now()))

    def _wake(self) -> None:
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()


@dataclass(slots=True)
class _Ear:
    """What one tenant's followers hear. ``identities``: how often somebody's rights may have changed."""

    tasks: tuple[asyncio.Task[None], ...] = ()
    runs: dict[str, RunFeed] = field(default_factory=dict)
    identities: int = 0
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, event: Event) -> None:
        """An event of the tenant."""
        if event.kind in (RESYNC, IDENTITY):
            self.identities += 1
        touched = self.runs if event.kind == RESYNC else event.data.get("runs", ()) if event.kind == NEWS else ()
        for run_id in (*touched, event.data.get("run_id")):
            if (feed := self.runs.get(str(run_id))) is not None:
                feed.hear()


@dataclass(frozen=True, slots=True)
class Following:
    """A run that is followed."""

    feed: RunFeed
    ear: _Ear

    @property
    def identities(self) -> int:
        """Changes when somebody of the tenant may have lost a right."""
        return self.ear.identities


class RunFeeds:
    """All feeds of one process."""

    def __init__(self, bus: Bus, log: RunLog, clock: Clock, stopping: asyncio.Event) -> None:
        self._bus = bus
        self._stopping = stopping
        self._log = log
        self._clock = clock
        self._ears: dict[TenantId, _Ear] = {}
        self._readers: dict[RunFeed, asyncio.Task[None]] = {}

    @asynccontextmanager
    async def following(self, ctx: TenantContext, run_id: str, after: int) -> AsyncIterator[Following]:
        """Follow a run; it is read as long as somebody does."""
        ear = self._ears.setdefault(ctx.tenant_id, _Ear())
        feed = ear.runs.get(run_id)
        if feed is None or feed.broken:
            feed = ear.runs[run_id] = RunFeed(self._log, ctx, run_id, self._clock)
        feed.followers += 1
        try:
            if not ear.tasks:
                listening = asyncio.create_task(self._listen(ctx.tenant_id, ear), name="feed-ear")
                ear.tasks = (listening, asyncio.create_task(self._hang_up(ear), name="feed-end"))
            await ear.ready.wait()  # what happens from here on is heard
            if feed not in self._readers:
                self._readers[feed] = asyncio.create_task(feed.read(after), name="feed-reader")
            yield Following(feed, ear)
        finally:
            feed.followers -= 1
            if not feed.followers:
                await self._forget(ctx.tenant_id, ear, run_id, feed)

    async def _listen(self, tenant_id: TenantId, ear: _Ear) -> None:
        async with self._bus.subscribe(tenant_id) as events:
            ear.ready.set()
            async for event in events:
                ear.hear(event)

    async def _hang_up(self, ear: _Ear) -> None:
        await self._stopping.wait()
        for feed in ear.runs.values():
            feed.stop()

    async def _forget(self, tenant_id: TenantId, ear: _Ear, run_id: str, feed: RunFeed) -> None:
        gone = [self._readers.pop(feed, None)]
        if ear.runs.get(run_id) is feed:
            del ear.runs[run_id]
        if not ear.runs and self._ears.get(tenant_id) is ear:
            del self._ears[tenant_id]
            gone += ear.tasks
        tasks = [task for task in gone if task is not None]
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)


def _told(event: RunEvent) -> Told:
    return Told(event, sent(event, EventOut.of(event).model_dump_json()))


async def _within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for it, at most so long; whether it came."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()

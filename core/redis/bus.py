"""Wake-ups between processes and live events for user interfaces, over Redis pub/sub.

One listening connection per process serves all listeners; it is made when the first one comes and remade
for ever when it breaks (0.1 s, doubling, at most 2 s). What was sent in between is lost, so every listener
is told: a wake-up listener wakes, an event reader gets one ``RESYNC`` event; both then read the database.

    listening connection:   none ──first listener──► connected ──broken──► reconnecting ──► connected …

What a process could not send is told late: it tries again (0.1 s, doubling, at most 2 s) to wake the listeners of each
topic, and to send one ``RESYNC`` to each tenant's readers. They may have been connected all the time, and would wait
for what never comes. A process that dies before it could tells nobody: listeners look by themselves, seldom.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, Self

import structlog
from redis.asyncio.client import PubSub

from core.clock import Clock
from core.errors import Unavailable
from core.ids import TenantId
from core.redis.connection import LOST, Connection
from core.redis.news import News, Told

RESYNC = "resync"
"""Kind of the event that says: events may be missing here, read again what you show."""

_SLOW_WAIT_S = 1.0
_SLOW_RESYNC_S = 5.0
_READER_QUEUE = 1_000
_CONFIRMATION_S = 2.0
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.1, 2.0
_PROBE_S = 20.0
_WAKE_UP = b"1"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a tenant, for screens. ``data`` is JSON; ``at`` is the sender's time."""

    kind: str
    data: dict[str, Any]
    at: datetime


class _Receiver(Protocol):
    def deliver(self, payload: bytes) -> None:
        """A message came."""

    def interrupted(self) -> None:
        """Messages may be missing."""


@dataclass(slots=True)
class _Channel:
    receivers: set[_Receiver] = field(default_factory=set)
    confirmed: asyncio.Event = field(default_factory=asyncio.Event)
    missed: bool = False


class Signals:
    """Wake-ups of some topics, counted as one: several signals before a wait are one wake-up."""

    def __init__(self, channels: list[_Channel]) -> None:
        self._channels = channels
        self._woken = asyncio.Event()

    async def wait(self, timeout_s: float) -> bool:
        """Sleep until a signal, at most ``timeout_s``; whether there was one since the last wait.

        While Redis is gone it sleeps at most one second, so that its callers poll slowly instead.
        """
        connected = all(channel.confirmed.is_set() for channel in self._channels)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s if connected else min(timeout_s, _SLOW_WAIT_S)):
                await self._woken.wait()
        woken = self._woken.is_set()
        self._woken.clear()
        return woken

    def deliver(self, payload: bytes) -> None:  # noqa: ARG002 - a wake-up carries nothing
        """A signal came."""
        self._woken.set()

    def interrupted(self) -> None:
        """Signals may have been lost: better to look."""
        self._woken.set()


class Events:
    """A tenant's live events, as an asynchronous iterator without an end.

    A reader that is too slow gets one ``RESYNC`` instead of what it missed; while Redis is gone there is one
    every five seconds, so that screens go on by reading again.
    """

    def __init__(self, channel: _Channel, clock: Clock) -> None:
        self._channel = channel
        self._clock = clock
        self._queue: asyncio.Queue[Event] = asyncio.Queue(_READER_QUEUE)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        connected = self._channel.confirmed.is_set()
        try:
            async with asyncio.timeout(None if connected else _SLOW_RESYNC_S):
                return await self._queue.get()
        except TimeoutError:
            return self._resync()

    def deliver(self, payload: bytes) -> None:
        """An event came."""
        content = json.loads(payload)
        event = Event(content["kind"], content["data"], datetime.fromisoformat(content["at"]))
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self.interrupted()

    def interrupted(self) -> None:
        """Events were lost: what is queued says less than reading again."""
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(self._resync())

    def _resync(self) -> Event:
        return Event(RESYNC, {}, self._clock.now())


class Bus:
    """Signals and events of one process. Close it when the process ends."""

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self.connection = connection
        self._clock = clock
        self.news = News(self._publish_news)
        self._channels: dict[str, _Channel] = {}
        self._pubsub: PubSub | None = None
        self._gone = asyncio.Event()
        self._commands = asyncio.Lock()
        self._reader: asyncio.Task[None] | None = None
        self._late: dict[str, bytes] = {}  # by channel: what tells its listeners that they missed something
        self._telling: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, url: str, clock: Clock, *, region: str) -> Self:
        """Never fails: Redis may come later, or not at all."""
        return cls(Connection.open(url, region=region), clock)

    async def close(self) -> None:
        """Tell what is still to be told, stop listening and close every connection."""
        await self.news.settled()
        for task in (self._reader, self._telling):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        await self.connection.close()

    async def healthy(self) -> bool:
        """Whether Redis answers now."""
        return await self.connection.answers()

    def hears(self) -> bool:
        """Whether wake-ups reach this process, or nobody in it listens; else listeners look by themselves."""
        return self._reader is None or self._pubsub is not None

    async def signal(self, topic: str) -> None:
        """Wake everybody who listens to this topic. Never raises; without Redis others hear it when it is back."""
        await self._send((self.connection.keys.topic(topic), _WAKE_UP))

    async def publish(self, tenant_id: TenantId, kind: str, data: dict[str, Any]) -> None:
        """Tell a tenant's screens. Never raises; without Redis others are told to read again when it is back."""
        await self._send((self.connection.keys.events(tenant_id), self._event(kind, data)))

    async def _publish_news(self, told: Told) -> None:
        await self._send(
            *((self.connection.keys.topic(topic), _WAKE_UP) for topic in told.topics),
            *(
                (self.connection.keys.events(tenant_id), self._event(kind, data))
                for tenant_id, events in told.events.items()
                for kind, data in events
            ),
        )

    def _event(self, kind: str, data: dict[str, Any]) -> bytes:
        return json.dumps({"kind": kind, "data": data, "at": self._clock.now().isoformat()}).encode()

    async def _send(self, *messages: tuple[str, bytes]) -> None:
        try:
            await self._publish(messages)
        except Unavailable:
            for channel, payload in messages:
                self._deliver_here(channel, payload)
                self._late[channel] = _WAKE_UP if payload == _WAKE_UP else self._event(RESYNC, {})
            if self._telling is None:
                self._telling = asyncio.create_task(self._tell_late(), name="redis-late")

    async def _publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        client = self.connection.client
        if len(messages) == 1:
            await self.connection.call(client.publish(*messages[0]))
        else:
            pipeline = client.pipeline(transaction=False)
            for channel, payload in messages:
                pipeline.publish(channel, payload)
            await self.connection.call(pipeline.execute())

    async def _tell_late(self) -> None:
        pause_s = _FIRST_PAUSE_S
        try:
            while self._late:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LAST_PAUSE_S)
                late, self._late = self._late, {}
                try:
                    await self._publish(list(late.items()))
                except Unavailable:
                    self._late = late | self._late
        finally:
            self._telling = None

    @asynccontextmanager
    async def listen(self, *topics: str) -> AsyncIterator[Signals]:
        """Hear the signals of these topics that are sent from now on."""
        names = [self.connection.keys.topic(topic) for topic in topics]
        signals = Signals([self._channel(name) for name in names])
        async with self._receiving(names, signals):
            yield signals

    @asynccontextmanager
    async def subscribe(self, tenant_id: TenantId) -> AsyncIterator[Events]:
        """Hear a tenant's events that are published from now on."""
        name = self.connection.keys.events(tenant_id)
        events = Events(self._channel(name), self._clock)
        async with self._receiving([name], events):
            yield events

    def _channel(self, name: str) -> _Channel:
        return self._channels.setdefault(name, _Channel())

    @asynccontextmanager
    async def _receiving(self, names: list[str], receiver: _Receiver) -> AsyncIterator[None]:
        for name in names:
            self._channel(name).receivers.add(receiver)
        try:
            await self._confirmed(names)
            yield
        finally:
            for name in names:
                self._channel(name).receivers.discard(receiver)
            await self._unsubscribe(names)

    async def _confirmed(self, names: list[str]) -> None:
        """Return when Redis listens for us, or cannot: then the receiver is told as soon as it does."""
        if self._reader is None:
            self._reader = asyncio.create_task(self._read_for_ever(), name="redis-listener")
        channels = [self._channel(name) for name in names]

        async def all_confirmed() -> None:
            await self._subscribe(names)
            for channel in channels:
                await channel.confirmed.wait()

        tasks = [asyncio.create_task(all_confirmed()), asyncio.create_task(self._gone.wait())]
        try:
            await asyncio.wait(tasks, timeout=_CONFIRMATION_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for channel in channels:
            channel.missed |= not channel.confirmed.is_set()

    async def _subscribe(self, names: list[str]) -> None:
        # The lock keeps the order of commands the order of decisions: else an unsubscription decided before
        # a new listener came could be sent after that listener's subscription.
        async with self._commands:
            wanted = [name for name in names if not self._channel(name).confirmed.is_set()]
            if self._pubsub is not None and wanted:
                with contextlib.suppress(*LOST):
                    await self._pubsub.subscribe(*wanted)

    async def _unsubscribe(self, names: list[str]) -> None:
        async with self._commands:
            unused = [name for name in names if name in self._channels and not self._channels[name].receivers]
            for name in unused:
                del self._channels[name]
            if self._pubsub is not None and unused:
                with contextlib.suppress(*LOST):
                    await self._pubsub.unsubscribe(*unused)

    async def _read_for_ever(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                async with contextlib.aclosing(self.connection.pubsub()) as pubsub:
                    try:
                        await self._connect(pubsub)
                        pause_s = _FIRST_PAUSE_S
                        await self._read(pubsub)
                    finally:
                        self._disconnected()
            except LOST as error:
                self._gone.set()
                log.warning("redis.listener_lost", error=str(error), retry_in_s=pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LAST_PAUSE_S)

    async def _connect(self, pubsub: PubSub) -> None:
        # One channel is always there: without any, redis-py would refuse to read.
        await pubsub.subscribe(self.connection.keys.topic("bus"))
        self._pubsub = pubsub
        self._gone.clear()
        await self._subscribe(list(self._channels))

    def _disconnected(self) -> None:
        if self._pubsub is None:
            return
        self._pubsub = None
        for channel in self._channels.values():
            channel.confirmed.clear()
            channel.missed = True
            for receiver in channel.receivers:
                receiver.interrupted()

    async def _read(self, pubsub: PubSub) -> None:
        probed = False
        while True:
            message = await pubsub.get_message(timeout=_PROBE_S)
            if message is not None:
                probed = False
                self._received(message["type"], message["channel"], message["data"])
            elif probed:
                raise ConnectionError("no answer to a ping")
            else:
                await pubsub.ping()
                probed = True

    def _received(self, kind: str, name: bytes | None, payload: bytes) -> None:
        channel = self._channels.get(name.decode()) if name is not None else None
        if channel is None:
            return
        if kind == "message":
            for receiver in channel.receivers:
                receiver.deliver(payload)
        elif kind == "subscribe":
            channel.confirmed.set()
            if channel.missed:
                channel.missed = False
                for receiver in channel.receivers:
                    receiver.interrupted()

    def _deliver_here(self, name: str, payload: bytes) -> None:
        if (channel := self._channels.get(name)) is not None:
            for receiver in channel.receivers:
                receiver.deliver(payload)

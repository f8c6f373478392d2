"""Acts that an attacker can repeat at will, written to the audit without letting anybody fill the disk.

    nothing ──first──► written at once ──more within a minute──► counted ──minute over──► one entry with the count ──► …

So there are at most two entries a minute for each kind of act of each actor, written one after the other in the order
of the acts: they stand in the audit in that order, and hold one connection to the database at most. A process that dies
loses what it had counted in that minute; what it counted stands for acts of which the first is written. What was to be
written when the database is away is lost, too, and its number told in the log.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from core.errors import Unavailable

TOGETHER_S = 60.0
_MOST = 10_000

log = structlog.get_logger(__name__)
Key = tuple[str, ...]
Write = Callable[[int], Awaitable[None]]
"""Writes that an act happened so many times."""


class Floods:
    """What one process counts. ``settled`` before it ends."""

    def __init__(self, together_s: float = TOGETHER_S) -> None:
        self._together_s = together_s
        self._counts: dict[Key, tuple[int, Write]] = {}
        self._waiting: deque[tuple[Write, int]] = deque()
        self._writing: asyncio.Task[None] | None = None
        self._counting: asyncio.Task[None] | None = None

    def tell(self, key: Key, write: Write) -> None:
        """It happened. Beyond 10,000 different keys in a minute the log alone is told."""
        known = self._counts.get(key)
        if known is not None:
            self._counts[key] = (known[0] + 1, write)
            return
        if len(self._counts) >= _MOST:
            log.warning("audit.flooded", key=key)
            return
        self._counts[key] = (0, write)
        self._queue(write, 1)
        if self._counting is None:
            self._counting = asyncio.create_task(self._count(), name="floods")

    async def settled(self) -> None:
        """Write what is counted, and wait until all is written."""
        if self._counting is not None:
            self._counting.cancel()
            await asyncio.wait({self._counting})
            self._counting = None
        self._write_counts()
        self._counts.clear()
        if self._writing is not None:
            await asyncio.wait({self._writing})

    async def _count(self) -> None:
        while self._counts:
            await asyncio.sleep(self._together_s)
            self._write_counts()
        self._counting = None

    def _write_counts(self) -> None:
        for key, (count, write) in list(self._counts.items()):
            if count:
                self._counts[key] = (0, write)
                self._queue(write, count)
            else:
                del self._counts[key]

    def _queue(self, write: Write, count: int) -> None:
        self._waiting.append((write, count))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_waiting(), name="floods-writing")

    async def _write_waiting(self) -> None:
        while self._waiting:
            write, count = self._waiting.popleft()
            try:
                await write(count)
            except Unavailable as problem:
                count += sum(waiting for _, waiting in self._waiting)
                self._waiting.clear()
                log.warning("audit.not_written", problem=repr(problem), count=count)
            except Exception as problem:
                log.warning("audit.not_written", problem=repr(problem), count=count)
        self._writing = None

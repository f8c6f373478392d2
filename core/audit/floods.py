"""Acts that an attacker can repeat at will, written to the audit without letting anybody fill the disk.

    nothing ──first──► written at once ──more within a minute──► counted ──minute over──► one entry with the count ──► …

So there are at most two entries a minute for each kind of act of each actor. A process that dies loses what it had
counted in that minute; what it counted stands for acts of which the first is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

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
        self._tasks: set[asyncio.Task[None]] = set()
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
        self._spawn(write, 1)
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
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _count(self) -> None:
        while self._counts:
            await asyncio.sleep(self._together_s)
            self._write_counts()
        self._counting = None

    def _write_counts(self) -> None:
        for key, (count, write) in list(self._counts.items()):
            if count:
                self._counts[key] = (0, write)
                self._spawn(write, count)
            else:
                del self._counts[key]

    def _spawn(self, write: Write, count: int) -> None:
        task = asyncio.create_task(_written(write, count))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _written(write: Write, count: int) -> None:
    try:
        await write(count)
    except Exception as problem:
        log.warning("audit.not_written", problem=repr(problem), count=count)

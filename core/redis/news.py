"""What happens to runs, told to screens and workers without holding up whoever makes it happen.

    quiet ──first word──► sent at once; for 15 ms what follows is kept ──► sent together ──► … ──► quiet

So one event travels at once, and a process that makes hundreds in a second sends tens of messages. A wake-up of workers
does not wait behind events, only behind another wake-up. Of steps only which runs there is news of is told: what it is,
the listener reads. A process that dies loses at most those 15 ms, and a Redis that is gone all of it: listeners look by
themselves then (``core.redis.bus``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from core.ids import TenantId

NEWS = "news"
"""Kind of the event that names runs whose own events have grown: ``{"runs": [run_id, …]}``."""

TOGETHER_S = 0.015
_RUNS_IN_A_MESSAGE = 200

Happened: TypeAlias = tuple[str, dict[str, Any]]
"""An event: kind and data."""


@dataclass(frozen=True, slots=True)
class Told:
    """What is sent together: the topics of wake-ups, and for each tenant events."""

    topics: Sequence[str]
    events: Mapping[TenantId, Sequence[Happened]]


class News:
    """What this process has to tell. ``send`` sends it in one round trip."""

    def __init__(self, send: Callable[[Told], Awaitable[None]]) -> None:
        self._send = send
        self._runs: dict[TenantId, dict[str, None]] = {}
        self._events: dict[TenantId, list[Happened]] = {}
        self._topics: dict[str, None] = {}
        self._woke_at = float("-inf")  # by the clock of the event loop
        self._at_once = asyncio.Event()
        self._sending: asyncio.Task[None] | None = None

    def of_run(self, tenant_id: TenantId, run_id: str) -> None:
        """Tell soon that something happened to a run. Call it after the commit."""
        self._runs.setdefault(tenant_id, {})[run_id] = None
        self._begin()

    def say(self, tenant_id: TenantId, kind: str, data: dict[str, Any]) -> None:
        """Publish soon what ``Bus.publish`` would publish at once."""
        self._events.setdefault(tenant_id, []).append((kind, data))
        self._begin()

    def unasked(self, tenant_id: TenantId, run_id: str) -> None:
        """Tell soon that nobody is asked any more what a run had asked. Call it after the commit."""
        self.say(tenant_id, "review", {"run_id": run_id, "state": "cancelled"})

    def wake(self, topic: str) -> None:
        """Signal soon what ``Bus.signal`` would signal at once: now, if nothing was in the last 15 ms."""
        self._topics[topic] = None
        if asyncio.get_running_loop().time() - self._woke_at >= TOGETHER_S:
            self._at_once.set()
        self._begin()

    async def settled(self) -> None:
        """Wait until all is sent."""
        while self._sending is not None:
            await self._sending

    def _begin(self) -> None:
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all(), name="news")

    async def _send_all(self) -> None:
        try:
            while self._runs or self._events or self._topics:
                self._at_once.clear()
                await self._send(self._taken())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TOGETHER_S):
                        await self._at_once.wait()
        finally:
            self._sending = None

    def _taken(self) -> Told:
        if self._topics:
            self._woke_at = asyncio.get_running_loop().time()
        topics, self._topics = list(self._topics), {}
        told, self._events = self._events, {}
        runs, self._runs = self._runs, {}
        for tenant_id, its in runs.items():
            ids = list(its)
            for start in range(0, len(ids), _RUNS_IN_A_MESSAGE):
                part = (NEWS, {"runs": ids[start : start + _RUNS_IN_A_MESSAGE]})
                told.setdefault(tenant_id, []).append(part)
        return Told(topics, told)

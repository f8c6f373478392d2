"""What happens to runs, told to screens without holding up whoever makes it happen.

    quiet ──first word──► sent at once; for 15 ms what follows is kept ──► sent together ──► … ──► quiet

So one event travels at once, and a process that makes hundreds in a second sends tens of messages. Only which runs
there is news of is told: what it is, the listener reads. A process that dies loses at most those 15 ms, and a Redis
that is gone all of it: listeners look by themselves then (``core.redis.bus``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

from core.ids import TenantId

NEWS = "news"
"""Kind of the event that names runs whose own events have grown: ``{"runs": [run_id, …]}``."""

TOGETHER_S = 0.015
_RUNS_IN_A_MESSAGE = 200

Told: TypeAlias = Mapping[TenantId, Sequence[tuple[str, dict[str, Any]]]]
"""For each tenant events: kind and data."""


class News:
    """What this process has to tell. ``send`` sends it in one round trip."""

    def __init__(self, send: Callable[[Told], Awaitable[None]]) -> None:
        self._send = send
        self._runs: dict[TenantId, dict[str, None]] = {}
        self._events: dict[TenantId, list[tuple[str, dict[str, Any]]]] = {}
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

    async def settled(self) -> None:
        """Wait until all is sent."""
        while self._sending is not None:
            await self._sending

    def _begin(self) -> None:
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all(), name="news")

    async def _send_all(self) -> None:
        try:
            while self._runs or self._events:
                await self._send(self._taken())
                await asyncio.sleep(TOGETHER_S)
        finally:
            self._sending = None

    def _taken(self) -> Told:
        told, self._events = self._events, {}
        runs, self._runs = self._runs, {}
        for tenant_id, its in runs.items():
            ids = list(its)
            for start in range(0, len(ids), _RUNS_IN_A_MESSAGE):
                part = (NEWS, {"runs": ids[start : start + _RUNS_IN_A_MESSAGE]})
                told.setdefault(tenant_id, []).append(part)
        return told

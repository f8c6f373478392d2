"""Rate limits per tenant, shared by all processes: exact, in one round trip, in Lua (``window.lua``).

``RateLimit(limit, window_s)`` means that no ``window_s`` seconds, wherever they begin, hold more than
``limit`` calls; a call that could be made without breaking that is made. The times of the last ``limit``
calls are kept, so the next one is free a window after the oldest of them.

Without Redis nothing is allowed (``Unavailable``): what the limit protects belongs to somebody else, so
callers park and ask again. A Redis that comes back empty knows of no calls: the window begins anew.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from core.redis.connection import Connection
from core.tenancy import RateLimit, TenantContext

KEPT_FREE_S = 60
"""How long a call waits for the holder that was told its time; never longer than the limit's window."""

REMEMBERED_S = 600
"""How long after the time it was told a holder keeps its place in the order."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = 1_000_000


class Limits:
    """The rate limits of an installation."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._script = connection.client.register_script(Path(__file__).with_name("window.lua").read_text("utf-8"))

    async def take(
        self, ctx: TenantContext, name: str, rate: RateLimit, now: datetime, *, holder: str | None = None
    ) -> float:
        """Take one call: 0.0 when it is to be made now, else the seconds after which to ask again.

        Without ``holder`` nothing is kept: whoever asks first after that time gets the call. With one (a
        name stable across attempts, e.g. run and step) the caller stands in a line: each is told the time of
        a call of its own, so a long line does not wake all at once, and for ``KEPT_FREE_S`` after it nobody
        who came later gets that call. Those behind one that is late may be told a later time when they ask.

        Clocks of processes may differ: the limit follows the one that is ahead, so as much as they differ,
        measured by one clock, a window may be shorter. Raises ``Unavailable`` when Redis does not answer.
        """
        arguments: list[str | int] = [
            (now - _EPOCH) // timedelta(microseconds=1),
            rate.window_s * _SECOND,
            rate.limit,
            min(rate.window_s, KEPT_FREE_S) * _SECOND,
            REMEMBERED_S * _SECOND,
        ]
        if holder is not None:
            arguments.append(holder)
        names = self._connection.keys.limit(ctx.tenant_id, name)
        wait_us = await self._connection.call(self._script(keys=names, args=arguments))
        return int(wait_us) / _SECOND

    async def leave(self, ctx: TenantContext, name: str, holder: str) -> None:
        """Give up a place in the line: those behind it get its call. Raises ``Unavailable``."""
        _, line, told = self._connection.keys.limit(ctx.tenant_id, name)
        for place in (line, told):
            await self._connection.call(self._connection.client.zrem(place, holder))

"""Rate limits per tenant, shared by all processes: exact, in one round trip, in Lua (``gcra.lua``).

``RateLimit(limit, window_s)`` allows a burst of ``limit`` calls, and gives one back every
``window_s / limit`` seconds. Without Redis nothing is allowed (``Unavailable``): what the limit protects
belongs to somebody else, so callers park and ask again. When Redis comes back empty every limit is full.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from core.redis.connection import Connection
from core.tenancy import RateLimit, TenantContext

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PLACE_KEPT_MS = 60_000


class Limits:
    """The rate limits of an installation."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._script = connection.client.register_script(Path(__file__).with_name("gcra.lua").read_text("utf-8"))

    async def take(
        self, ctx: TenantContext, name: str, rate: RateLimit, now: datetime, *, holder: str | None = None
    ) -> float:
        """Take one call: 0.0 when it may be made now, else the seconds after which to ask again.

        Without ``holder`` nothing is reserved: whoever asks first after that time gets the call. With one
        (a name stable across attempts, e.g. run and step) the caller keeps a place of its own: asking again
        at that time succeeds for certain, up to 60 s later, and a long line advances one by one instead of
        waking all at once. Clocks of processes may differ; the limit follows the one that is ahead.

        Raises ``Unavailable`` when Redis does not answer.
        """
        keys = self._connection.keys
        names = [keys.limit(ctx.tenant_id, name, rate)]
        if holder is not None:
            names.append(keys.place(ctx.tenant_id, name, rate, holder))
        now_us = (now - _EPOCH) // timedelta(microseconds=1)
        args = [now_us, rate.window_s * 1_000_000, rate.limit, _PLACE_KEPT_MS]
        wait_us = await self._connection.call(self._script(keys=names, args=args))
        return int(wait_us) / 1_000_000

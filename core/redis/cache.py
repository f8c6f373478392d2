"""Values worth keeping for a while and no harm to lose. A tenant never sees another's.

Without Redis every ``get`` misses and every ``set`` does nothing; neither raises.
"""

from __future__ import annotations

from core.errors import Unavailable
from core.redis.connection import Connection
from core.tenancy import TenantContext

MAX_VALUE_BYTES = 1_000_000


class Cache:
    """Text by key, per tenant and per space (the kind of value, a short constant of the caller)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def get(self, ctx: TenantContext, space: str, key: str) -> str | None:
        """The value, or None: never set, expired, or Redis is gone."""
        name = self._connection.keys.cache(ctx.tenant_id, space, key)
        try:
            value = await self._connection.call(self._connection.client.get(name))
        except Unavailable:
            return None
        return value.decode() if isinstance(value, bytes) else value

    async def set(self, ctx: TenantContext, space: str, key: str, value: str, *, ttl_s: float) -> None:
        """Keep a value for ``ttl_s`` seconds. Values above 1 MB are not kept."""
        encoded = value.encode()
        if len(encoded) > MAX_VALUE_BYTES:
            return
        name = self._connection.keys.cache(ctx.tenant_id, space, key)
        try:
            await self._connection.call(self._connection.client.set(name, encoded, px=max(1, int(ttl_s * 1000))))
        except Unavailable:
            return

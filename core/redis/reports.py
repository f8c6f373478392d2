"""What calls to endpoints came to, told to all processes: the ``Reports`` of ``core.shared_breaker``.

One stream for each endpoint, across tenants: who failed or was answered when, by the server's clock. The last 500 are
kept, for ten minutes after the last one. A lease for whoever tries an endpoint that failed.

Without Redis, and after it comes back empty, each process learns by itself: callers expect ``Unavailable``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core.ids import TenantId
from core.redis.connection import Connection
from core.shared_breaker import Report

KEPT = 500
"""Reports of an endpoint: more than that say nothing new."""

_KEPT_MS = 600_000


class EndpointReports:
    """The reports of an installation."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def exchange(self, endpoint: str, told: Sequence[Report]) -> list[Report]:
        """Report these of an endpoint; what is known of it, oldest first, in one round trip. Raises ``Unavailable``."""
        name = self._connection.keys.reports(endpoint)
        batch = self._connection.client.pipeline(transaction=True)
        for one in told:
            said: dict[Any, Any] = {
                "tenant": one.tenant,
                "works": int(one.works),
                "probe": int(one.probe),
                "ago": repr(one.ago_s),
            }
            batch.xadd(name, said, maxlen=KEPT, approximate=False)
        if told:
            batch.pexpire(name, _KEPT_MS)
        batch.xrange(name)
        batch.time()
        *_, rows, (seconds, micros) = await self._connection.call(batch.execute())
        now_s = seconds + micros / 1e6
        return [_report(now_s, number, said) for number, said in rows]

    async def take_probe(self, endpoint: str, tenant: str | None, lease_s: float) -> bool:
        """Whether nobody else tries the endpoint, for that tenant or for all. Raises ``Unavailable``."""
        name = self._probe(endpoint, tenant)
        return bool(await self._connection.call(self._connection.client.set(name, 1, nx=True, px=int(lease_s * 1000))))

    async def end_probe(self, endpoint: str, tenant: str | None) -> None:
        """Let somebody else try. Raises ``Unavailable``."""
        await self._connection.call(self._connection.client.delete(self._probe(endpoint, tenant)))

    def _probe(self, endpoint: str, tenant: str | None) -> str:
        return self._connection.keys.probe(endpoint, None if tenant is None else TenantId(tenant))


def _report(now_s: float, number: bytes, said: dict[bytes, bytes]) -> Report:
    at_s = int(number.partition(b"-")[0]) / 1e3
    ago_s = max(0.0, now_s - at_s) + float(said[b"ago"])
    return Report(said[b"tenant"].decode(), said[b"works"] == b"1", ago_s, said[b"probe"] == b"1")

"""Tenants and their policies, as one process knows them: at most a second old.

    unknown ──asked for──► being read ──► known ──a second later, or changed by this process──► unknown

Whoever asks while a tenant is being read gets that answer, too: a worker that claims a hundred runs of a tenant reads
its policy once. When the database does not answer, all who wait are told so, and the next one reads again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from datetime import datetime

from core.clock import Clock
from core.db.pool import Database
from core.errors import NotFound
from core.ids import TenantId
from core.tenants import store
from core.tenants.model import TenantView

TTL_S = 1.0
_MOST = 10_000


class KnownTenants:
    """The tenants of one process, at most 10,000."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._known: OrderedDict[TenantId, tuple[datetime, TenantView]] = OrderedDict()
        self._reading: dict[TenantId, asyncio.Task[TenantView]] = {}

    async def get(self, tenant_id: TenantId) -> TenantView:
        """A tenant and its policy. Raises ``NotFound`` and ``Unavailable``."""
        known = self._known.get(tenant_id)
        if known is not None and abs((self._clock.now() - known[0]).total_seconds()) < TTL_S:
            self._known.move_to_end(tenant_id)
            return known[1]
        reading = self._reading.get(tenant_id)
        if reading is None:
            reading = self._reading[tenant_id] = asyncio.create_task(self._read(tenant_id), name="policy")
        return await asyncio.shield(reading)

    def forget(self, tenant_id: TenantId) -> None:
        """Read it anew when it is asked for again; what is being read now may be what it was before."""
        self._known.pop(tenant_id, None)
        self._reading.pop(tenant_id, None)

    async def _read(self, tenant_id: TenantId) -> TenantView:
        now = self._clock.now()
        try:
            async with self._db.control_statement() as tx:
                found = await store.tenant(tx, tenant_id)
        finally:
            wanted = self._reading.get(tenant_id) is asyncio.current_task()
            if wanted:
                del self._reading[tenant_id]
        if found is None:
            raise NotFound("There is no such tenant.")
        if wanted:
            self._known[tenant_id] = (now, found)
            self._known.move_to_end(tenant_id)
            if len(self._known) > _MOST:
                self._known.popitem(last=False)
        return found

"""Every name used in Redis, in one place.

All names begin with region and logical database, because several installations may share a server and
pub/sub channels, unlike keys, are shared by all logical databases. Names of a tenant's things carry the
tenant in braces, so that a Redis Cluster keeps them on one node and one script may use several.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from core.ids import TenantId
from core.tenancy import TENANT_ID


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of one installation."""

    region: str
    database: int

    def topic(self, name: str) -> str:
        """Channel of a wake-up shared by all tenants: it carries no data."""
        return f"{self._prefix}:topic:{name}"

    def events(self, tenant_id: TenantId) -> str:
        """Channel of a tenant's live events."""
        return f"{self._tenant(tenant_id)}:events"

    def limit(self, tenant_id: TenantId, name: str) -> tuple[str, str, str]:
        """What one of a tenant's rate limits keeps: its calls, its line, and what those in it were told.

        The rate is no part of the names: a limit that is changed remembers the calls that were made.
        """
        limit = f"{self._tenant(tenant_id)}:limit:{_digest(name)}"
        return f"{limit}:calls", f"{limit}:line", f"{limit}:told"

    def cache(self, tenant_id: TenantId, space: str, key: str) -> str:
        """One cached value. ``key`` may be long: only its hash becomes part of the name."""
        return f"{self._tenant(tenant_id)}:cache:{space}:{_digest(key)}"

    def reports(self, endpoint: str) -> str:
        """What calls of all tenants to an endpoint came to: whether it answers, and nothing of what was said."""
        return f"{self._prefix}:endpoint:{_digest(endpoint)}:reports"

    def probe(self, endpoint: str, tenant_id: TenantId | None) -> str:
        """The lease of whoever tries an endpoint: for a tenant, or for all."""
        owner = self._prefix if tenant_id is None else self._tenant(tenant_id)
        return f"{owner}:endpoint:{_digest(endpoint)}:probe"

    @property
    def _prefix(self) -> str:
        return f"bailiwick:{self.region}:{self.database}"

    def _tenant(self, tenant_id: TenantId) -> str:
        if TENANT_ID.fullmatch(tenant_id) is None:
            raise ValueError(f"{tenant_id!r} is no tenant's id: its keys could look like another's.")
        return f"{self._prefix}:{{{tenant_id}}}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

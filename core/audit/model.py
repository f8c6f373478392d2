"""Entries of the audit: who did what to which subject, under which policy version."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.ids import TenantId


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One act. ``seq`` and ``sealed`` tell whether it is part of the hash chain yet."""

    tenant_id: TenantId
    at: datetime
    actor: str
    act: str
    subject: str
    before: Any
    after: Any
    policy_version: int
    seq: int | None

    @property
    def sealed(self) -> bool:
        """Whether the entry has its place in the chain."""
        return self.seq is not None

"""Entries of the audit: who did what to which subject, under which policy version; and what became of their chain."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
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


class Fault(StrEnum):
    """What is wrong with the first entry at which a chain breaks."""

    CHANGED = "changed"  # its content, or its place, is not what was sealed
    REMOVED = "removed"  # it is missing
    INSERTED = "inserted"  # it has a number outside of the chain
    UNEXPLAINED = "unexplained"  # the entries before it are missing, and no act says that retention removed them
    REWRITTEN = "rewritten"  # it fits, but it is not the one whose hash is kept outside


@dataclass(frozen=True, slots=True)
class Break:
    """The first entry at which a chain breaks. ``entry`` None: it is missing."""

    seq: int
    fault: Fault
    entry: AuditEntry | None


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain at some moment: what an auditor keeps outside, so that nothing before it can be undone."""

    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class Chain:
    """What was found of one tenant's chain.

    ``kept_after``: retention has removed the entries up to this number (0: none). ``fitting``: sealed entries that
    fit, from the first one kept to the first that does not. ``compared``: whether ``head`` was held against one kept
    outside; False also when that one is older than all that is kept.
    """

    tenant_id: TenantId
    kept_after: int
    fitting: int
    unsealed: int
    head: Head
    broken: Break | None
    compared: bool = False

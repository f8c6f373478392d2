"""What core needs others to supply, as Protocols. The applications wire the real thing in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from core.ids import MemoryId, ThreadId
from core.tenancy import TenantContext


@dataclass(frozen=True, slots=True)
class Recalled:
    """A memory that answers a query.

    Attributes:
        kind: what sort of memory it is, e.g. ``note`` or ``triple``.
        score: how well it fits; higher is better, comparable within one answer only.
        source_thread: the conversation it was learned from, when it was one.
    """

    memory_id: MemoryId
    text: str
    kind: str
    score: float
    source_thread: ThreadId | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Utterance:
    """One side of a turn, as memory learns from it.

    Attributes:
        role: ``user`` or ``assistant``.
        entry_id: the message in its conversation, where it is one.
    """

    role: str
    text: str
    entry_id: str | None = None


class MemoryPort(Protocol):
    """Long-term memory of a tenant."""

    async def recall(self, ctx: TenantContext, query: str, limit: int = 8) -> list[Recalled]:
        """What is known about ``query``, best first. Needs ``memory:read``."""
        ...

    async def remember(self, ctx: TenantContext, statement: str, *, thread_id: ThreadId | None) -> list[Recalled]:
        """Learn a statement now; what was stored. Needs ``memory:write``."""
        ...

    async def learn(
        self,
        ctx: TenantContext,
        messages: Sequence[Utterance],
        *,
        thread_id: ThreadId | None,
        said_at: datetime | None = None,
        source_key: str | None = None,
    ) -> int:
        """Learn from a turn of a conversation; the number of memories stored or renewed. Needs ``memory:write``.

        ``said_at``: when it was said, if not now. ``source_key``: a step that is repeated learns nothing twice.
        """
        ...

    async def drain(self, ctx: TenantContext) -> int:
        """Make up for what was postponed while a model or the graph was away; how many changes."""
        ...

    async def forget(self, ctx: TenantContext, memory_id: MemoryId) -> bool:
        """Stop knowing something; False when there is no such memory."""
        ...

    async def list(self, ctx: TenantContext, limit: int = 50) -> list[Recalled]:
        """The newest memories."""
        ...

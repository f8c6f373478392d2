"""Storing drafts and deleting memories, each inside one transaction in which the tenant's writers take turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from core.db.pool import Transaction
from core.ids import MemoryId, UserId, new_id
from memory import store
from memory.model import Draft, Kind, Provenance, Rival, Vector, supersede
from memory.store import Gone


@dataclass(slots=True)
class Kept:
    """What became of drafts.

    Attributes:
        known: the memory that stands for each draft, in their order.
        stored: new ones.
        confirmed: ones that said the same before.
        closed: ones that are no longer so.
    """

    known: list[MemoryId] = field(default_factory=list)
    stored: list[MemoryId] = field(default_factory=list)
    confirmed: list[MemoryId] = field(default_factory=list)
    closed: list[MemoryId] = field(default_factory=list)


async def keep(
    tx: Transaction,
    drafts: Sequence[Draft],
    embeddings: Sequence[tuple[str, Vector] | None],
    origin: Provenance,
    now: datetime,
) -> Kept:
    """Store each draft, unless its owner was told the same before; close what it contradicts."""
    await store.line_up(tx)
    kept = Kept()
    followed: list[MemoryId] = []
    for draft, embedding in zip(drafts, embeddings, strict=True):
        owner = None if draft.shared else origin.user_id
        same = await store.confirm(tx, owner, draft, origin.said_at)
        if same is not None:
            kept.confirmed.append(same)
            kept.known.append(same)
            continue
        memory_id = MemoryId(new_id("mem", now))
        succession = supersede(origin.said_at, await _rivals(tx, owner, draft, kept.stored))
        await store.insert(tx, memory_id, owner, draft, origin, succession, embedding, now)
        await store.close(tx, succession.closes, origin.said_at, memory_id)
        kept.stored.append(memory_id)
        kept.known.append(memory_id)
        kept.closed += succession.closes
        followed += [memory_id, *succession.closes] if draft.kind is Kind.TRIPLE else succession.closes
    await store.enqueue(tx, followed)
    return kept


async def erase(tx: Transaction, asker: UserId | None, memory_ids: Sequence[MemoryId]) -> list[Gone]:
    """Delete memories the asker may see, and let the graph follow."""
    if not memory_ids:
        return []
    await store.line_up(tx)
    gone = await store.forget(tx, asker, memory_ids)
    await store.enqueue(tx, [one.memory_id for one in gone if one.kind is Kind.TRIPLE])
    return gone


async def _rivals(tx: Transaction, owner: UserId | None, draft: Draft, besides: Sequence[MemoryId]) -> list[Rival]:
    """What a draft contradicts: by its own form, and by what the model says it replaces."""
    found: dict[MemoryId, Rival] = {}
    if draft.triple is not None and draft.exclusive:
        found |= {one.memory_id: one for one in await store.rivals(tx, owner, draft.triple, besides)}
    if draft.replaces:
        found |= {one.memory_id: one for one in await store.replaceable(tx, owner, draft.replaces, besides)}
    return list(found.values())

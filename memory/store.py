"""Rows of memories. Every statement is narrowed to what the asker may see: the tenant's, and their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from core.db.pool import Row, Transaction
from core.db.queries import load_queries
from core.ids import MemoryId, TenantId, ThreadId, UserId
from memory.graph import Change, Node
from memory.model import Draft, Kind, Memory, Provenance, Rival, Succession, Triple, Vector
from memory.ranking import Candidate, Corpus

SQL = load_queries(__file__)


@dataclass(frozen=True, slots=True)
class Found:
    """A candidate for an answer, with what the answer shows of it."""

    candidate: Candidate
    kind: Kind
    thread_id: ThreadId | None
    learned_at: datetime


@dataclass(frozen=True, slots=True)
class Gone:
    """What is known of a memory after it was deleted."""

    memory_id: MemoryId
    kind: Kind
    user_id: UserId | None
    thread_id: ThreadId | None


async def line_up(tx: Transaction) -> None:
    """Wait for this tenant's other writers; the turn ends with the transaction."""
    await tx.fetchval(SQL["line_up"])


async def already_learned(tx: Transaction, source_key: str) -> int:
    """How many memories a step stored before."""
    return int(await tx.fetchval(SQL["already_learned"], source_key))


async def insert(
    tx: Transaction,
    memory_id: MemoryId,
    owner: UserId | None,
    draft: Draft,
    origin: Provenance,
    succession: Succession,
    embedding: tuple[str, Vector] | None,
    now: datetime,
) -> bool:
    """Store a draft; False when its owner has been told the same. ``embedding`` is the model's name and the vector."""
    triple = draft.triple
    keys = triple.key if triple else (None, None, None)
    parts = (triple.subject, triple.predicate, triple.object) if triple else (None, None, None)
    model, vector = embedding or (None, None)
    stored = await tx.fetchval(
        SQL["insert_memory"],
        memory_id,
        owner,
        draft.kind.value,
        draft.text,
        *parts,
        *keys,
        draft.context,
        draft.content_hash,
        None if vector is None else to_text(vector),
        model,
        origin.thread_id,
        draft.message_id,
        origin.model,
        origin.actor,
        origin.user_id,
        now,
        origin.source_key,
        origin.said_at,
        succession.valid_to,
        succession.closed_by,
    )
    return stored is not None


async def confirm(tx: Transaction, owner: UserId | None, draft: Draft, said_at: datetime) -> MemoryId | None:
    """The valid memory that says the same, now confirmed; None when there is none."""
    keys = draft.triple.key if draft.triple else (None, None, None)
    rows = await tx.fetch(SQL["confirm"], owner, draft.content_hash, draft.kind.value, *keys, said_at)
    return MemoryId(rows[0]["memory_id"]) if rows else None


async def rivals(tx: Transaction, owner: UserId | None, triple: Triple, besides: Sequence[MemoryId]) -> list[Rival]:
    """Valid memories that a new triple contradicts."""
    subject, predicate, object_ = triple.key
    rows = await tx.fetch(SQL["rivals"], owner, subject, predicate, object_, list(besides))
    return [Rival(MemoryId(row["memory_id"]), row["valid_from"]) for row in rows]


async def replaceable(
    tx: Transaction, owner: UserId | None, named: Sequence[MemoryId], besides: Sequence[MemoryId]
) -> list[Rival]:
    """Those of the named memories that a new one of this owner may replace."""
    rows = await tx.fetch(SQL["replaceable"], owner, list(named), list(besides))
    return [Rival(MemoryId(row["memory_id"]), row["valid_from"]) for row in rows]


async def close(tx: Transaction, memory_ids: Sequence[MemoryId], valid_to: datetime, successor: MemoryId) -> None:
    """End the validity of memories."""
    await tx.execute(SQL["close"], list(memory_ids), valid_to, successor)


async def enqueue(tx: Transaction, memory_ids: Sequence[MemoryId]) -> None:
    """Let the graph follow these memories."""
    for memory_id in memory_ids:
        await tx.execute(SQL["enqueue"], memory_id)


async def candidates(
    tx: Transaction,
    asker: UserId | None,
    at: datetime,
    query: str,
    embedding: tuple[str, Vector] | None,
    per_signal: int,
    hops: dict[MemoryId, int],
) -> tuple[list[Found], Corpus]:
    """What may answer a query, and the statistics to rank it by."""
    model, vector = embedding or (None, None)
    rows = await tx.fetch(
        SQL["candidates"],
        asker,
        at,
        None if vector is None else to_text(vector),
        model,
        query,
        per_signal,
        list(hops),
    )
    if not rows:
        return [], Corpus(0, 0.0, {})
    first = rows[0]
    corpus = Corpus(
        total=first["total"],
        average_length=first["average_length"],
        frequencies=first["frequencies"],
        similarity_mean=first["similarity_mean"],
        similarity_deviation=first["similarity_deviation"],
    )
    return [_found(row, hops) for row in rows], corpus


async def by_id(tx: Transaction, asker: UserId | None, memory_ids: Sequence[MemoryId]) -> list[Memory]:
    """Memories by id, those of others left out."""
    return [_memory(row) for row in await tx.fetch(SQL["memories_by_id"], asker, list(memory_ids))]


async def newest(tx: Transaction, asker: UserId | None, at: datetime, limit: int) -> list[Memory]:
    """Valid memories, newest first."""
    return [_memory(row) for row in await tx.fetch(SQL["newest"], asker, at, limit)]


async def forget(tx: Transaction, asker: UserId | None, memory_ids: Sequence[MemoryId]) -> list[Gone]:
    """Delete memories the asker may see."""
    return [
        Gone(MemoryId(row["memory_id"]), Kind(row["kind"]), row["user_id"], row["thread_id"])
        for row in await tx.fetch(SQL["forget"], asker, list(memory_ids))
    ]


async def of_thread(tx: Transaction, asker: UserId | None, thread_id: ThreadId) -> list[MemoryId]:
    """What was learned from a conversation."""
    return [MemoryId(row["memory_id"]) for row in await tx.fetch(SQL["of_thread"], asker, thread_id)]


async def of_user(tx: Transaction, user_id: UserId) -> list[MemoryId]:
    """What belongs to one person."""
    return [MemoryId(row["memory_id"]) for row in await tx.fetch(SQL["of_user"], user_id)]


async def depersonalise(tx: Transaction, user_id: UserId) -> list[MemoryId]:
    """Remove the traces of a person from what they taught the whole tenant; which memories had them."""
    return [MemoryId(row["memory_id"]) for row in await tx.fetch(SQL["depersonalise"], user_id)]


async def unembedded(tx: Transaction, model: str, limit: int) -> list[tuple[MemoryId, str]]:
    """Ids and texts that have no embedding by this model."""
    return [(MemoryId(row["memory_id"]), row["text"]) for row in await tx.fetch(SQL["unembedded"], model, limit)]


async def embed(tx: Transaction, model: str, vectors: Sequence[tuple[MemoryId, Vector]]) -> None:
    """Give memories their embeddings."""
    await tx.execute_many(SQL["embed"], [(memory_id, to_text(vector), model) for memory_id, vector in vectors])


async def try_graph_lock(tx: Transaction) -> bool:
    """The right to write this tenant's graph until the transaction ends."""
    return bool(await tx.fetchval(SQL["try_graph_lock"]))


async def graph_position(tx: Transaction) -> tuple[int, int]:
    """The last change applied to the graph, and the last one given out."""
    row = await tx.fetchrow(SQL["graph_position"])
    return (row["applied_position"], row["last_position"]) if row else (0, 0)


async def waiting(tx: Transaction, limit: int) -> list[Change]:
    """The oldest changes that the graph has not followed."""
    return [_change(row) for row in await tx.fetch(SQL["waiting"], limit)]


async def applied(tx: Transaction, position: int) -> None:
    """The graph has followed up to ``position``."""
    await tx.execute(SQL["applied"], position)


async def anything_waiting(tx: Transaction) -> bool:
    """Whether the graph has something to follow."""
    return bool(await tx.fetchval(SQL["anything_waiting"]))


async def enqueue_all(tx: Transaction) -> None:
    """Let the graph follow every triple again."""
    await tx.execute(SQL["enqueue_all"])


async def tenants_behind(tx: Transaction) -> list[TenantId]:
    """Tenants with something that waits."""
    return [TenantId(row["tenant_id"]) for row in await tx.fetch(SQL["tenants_behind"])]


def to_text(vector: Vector) -> str:
    """A vector as Postgres reads it."""
    return "[" + ",".join(f"{value:.7g}" for value in vector) + "]"


def _found(row: Row, hops: dict[MemoryId, int]) -> Found:
    memory_id = MemoryId(row["memory_id"])
    candidate = Candidate(
        memory_id=memory_id,
        text=row["text"],
        matched=row["matched"],
        length=row["length"],
        similarity=row["similarity"],
        confirmed_at=row["confirmed_at"],
        hops=hops.get(memory_id),
    )
    return Found(candidate, Kind(row["kind"]), row["thread_id"], row["learned_at"])


def _memory(row: Row) -> Memory:
    triple = Triple(row["subject"], row["predicate"], row["object"]) if row["kind"] == Kind.TRIPLE else None
    return Memory(
        memory_id=MemoryId(row["memory_id"]),
        user_id=row["user_id"],
        kind=Kind(row["kind"]),
        text=row["text"],
        triple=triple,
        thread_id=row["thread_id"],
        message_id=row["message_id"],
        model=row["model"],
        learned_by=row["learned_by"],
        learned_at=row["learned_at"],
        confirmed_at=row["confirmed_at"],
        valid_from=row["valid_from"],
        valid_to=row["valid_to"],
        superseded_by=row["superseded_by"],
    )


def _change(row: Row) -> Change:
    memory_id = MemoryId(row["memory_id"])
    if row["subject"] is None:
        return Change(row["position"], memory_id, None)
    node = Node(
        memory_id=memory_id,
        owner=row["owner"],
        subject=row["subject"],
        predicate=row["predicate"],
        object=row["object"],
        subject_key=row["subject_key"],
        object_key=row["object_key"],
        valid_from=row["valid_from"],
        valid_to=row["valid_to"],
        thread_id=row["thread_id"],
        learned_at=row["learned_at"],
    )
    return Change(row["position"], memory_id, node)

"""Rows of conversations."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from core.conversations.model import (
    Batch,
    Content,
    Cursor,
    Element,
    Entry,
    EntryKind,
    Feedback,
    Message,
    Thread,
)
from core.db.pool import Row, Transaction
from core.db.queries import load_queries
from core.ids import ThreadId, UserId

SQL = load_queries(__file__)


async def open_thread(tx: Transaction, thread_id: ThreadId, user_id: UserId, now: datetime) -> bool:
    """Make the thread unless it is there, and hold it; False: it is another user's, or was deleted. Undo it then."""
    await tx.execute(SQL["open_thread"], thread_id, user_id, now)
    return await tx.fetchval(SQL["opened_thread"], thread_id, user_id) is not None


async def own_thread(tx: Transaction, thread_id: ThreadId, user_id: UserId) -> Thread | None:
    """The thread, if it is this user's."""
    row = await tx.fetchrow(SQL["own_thread"], thread_id, user_id)
    return None if row is None else _thread(row)


async def update_thread(
    tx: Transaction,
    thread_id: ThreadId,
    user_id: UserId,
    name: str | None,
    tags: list[str] | None,
    metadata: dict[str, Any],
) -> bool:
    """Change what is given; False when there is no such thread of this user."""
    return await tx.execute(SQL["update_thread"], thread_id, user_id, name, tags, metadata) > 0


async def touch_thread(tx: Transaction, thread_id: ThreadId, user_id: UserId, at: datetime) -> None:
    """Move the thread to the top of the list."""
    await tx.execute(SQL["touch_thread"], thread_id, user_id, at)


async def delete_thread(tx: Transaction, thread_id: ThreadId, user_id: UserId, now: datetime) -> bool:
    """Delete the thread with everything in it, for good."""
    return await tx.execute(SQL["delete_thread"], thread_id, user_id, now) > 0


async def purge(tx: Transaction, now: datetime, limit: int) -> int:
    """Forget up to ``limit`` ids of deleted threads that policies keep no longer, of all tenants; how many."""
    return int(await tx.fetchval(SQL["purge"], now, limit))


async def list_threads(
    tx: Transaction, user_id: UserId, pattern: str | None, feedback: int | None, after: Cursor | None, limit: int
) -> list[Thread]:
    """A page of the user's threads, newest message first."""
    place = (after.updated_at, after.thread_id) if after else (None, None)
    return [_thread(row) for row in await tx.fetch(SQL["list_threads"], user_id, pattern, feedback, *place, limit)]


async def save_entry(tx: Transaction, entry: Entry) -> bool:
    """Insert or replace; False when the id belongs to another thread."""
    touched = await tx.execute(
        SQL["save_entry"],
        entry.entry_id,
        entry.thread_id,
        entry.parent_id,
        entry.kind,
        entry.name,
        entry.input,
        entry.output,
        entry.is_error,
        entry.extra,
        entry.created_at,
        entry.started_at,
        entry.ended_at,
    )
    return touched > 0


async def entries(tx: Transaction, thread_id: ThreadId) -> list[Entry]:
    """Everything said and done in a thread, oldest first."""
    return [_entry(row) for row in await tx.fetch(SQL["entries"], thread_id)]


async def thread_of_entry(tx: Transaction, entry_id: str, user_id: UserId) -> ThreadId | None:
    """Where an entry of this user is."""
    found = await tx.fetchval(SQL["thread_of_entry"], entry_id, user_id)
    return None if found is None else ThreadId(found)


async def delete_entry(tx: Transaction, thread_id: ThreadId, entry_id: str) -> bool:
    """Delete an entry with its elements and feedback."""
    await tx.execute(SQL["delete_entry_elements"], thread_id, entry_id)
    return await tx.execute(SQL["delete_entry"], thread_id, entry_id) > 0


async def recent_messages(tx: Transaction, thread_id: ThreadId, without: str, limit: int) -> list[Message]:
    """The last messages, oldest of them first."""
    rows = await tx.fetch(SQL["recent_messages"], thread_id, without, limit)
    return [
        Message(row["entry_id"], EntryKind(row["kind"]), row["output"], tuple(row["attachments"]))
        for row in reversed(rows)
    ]


async def favourites(tx: Transaction, user_id: UserId, limit: int) -> list[Entry]:
    """Messages the user marked, newest first."""
    return [_entry(row) for row in await tx.fetch(SQL["favourites"], user_id, limit)]


async def save_element(tx: Transaction, element: Element, content: bytes | None, now: datetime) -> bool:
    """Insert or replace; False when the id belongs to another thread."""
    touched = await tx.execute(
        SQL["save_element"],
        element.element_id,
        element.thread_id,
        element.entry_id,
        element.kind,
        element.name,
        element.mime,
        element.props,
        element.extra,
        content,
        now,
    )
    return touched > 0


async def elements(tx: Transaction, thread_id: ThreadId) -> list[Element]:
    """Files and cards of a thread, oldest first."""
    return [_element(row) for row in await tx.fetch(SQL["elements"], thread_id)]


async def element(tx: Transaction, thread_id: ThreadId, element_id: str) -> Element | None:
    """One of them."""
    row = await tx.fetchrow(SQL["element"], thread_id, element_id)
    return None if row is None else _element(row)


async def content(tx: Transaction, thread_id: ThreadId, element_id: str) -> Content | None:
    """The bytes of an element."""
    return _content(await tx.fetchrow(SQL["content"], thread_id, element_id))


async def attachment(tx: Transaction, thread_id: ThreadId, name: str) -> Content | None:
    """The newest file of that name in the thread."""
    return _content(await tx.fetchrow(SQL["attachment"], thread_id, name))


async def thread_of_element(tx: Transaction, element_id: str, user_id: UserId) -> ThreadId | None:
    """Where an element of this user is."""
    found = await tx.fetchval(SQL["thread_of_element"], element_id, user_id)
    return None if found is None else ThreadId(found)


async def delete_element(tx: Transaction, thread_id: ThreadId, element_id: str) -> bool:
    """Delete one element."""
    return await tx.execute(SQL["delete_element"], thread_id, element_id) > 0


async def save_feedback(tx: Transaction, thread_id: ThreadId, feedback: Feedback, now: datetime) -> str:
    """Keep the last opinion about a message; its id."""
    kept: str = await tx.fetchval(
        SQL["save_feedback"],
        feedback.entry_id,
        feedback.feedback_id,
        thread_id,
        feedback.value,
        feedback.comment,
        now,
    )
    return kept


async def feedback(tx: Transaction, thread_id: ThreadId) -> list[Feedback]:
    """All opinions about messages of a thread."""
    rows = await tx.fetch(SQL["feedback"], thread_id)
    return [Feedback(row["feedback_id"], row["entry_id"], row["value"], row["comment"]) for row in rows]


async def delete_feedback(tx: Transaction, feedback_id: str, user_id: UserId) -> bool:
    """Take an opinion back."""
    return await tx.execute(SQL["delete_feedback"], feedback_id, user_id) > 0


async def add_batch(tx: Transaction, batch: Batch, user_id: UserId) -> None:
    """Remember a batch; asking twice changes nothing."""
    await tx.execute(SQL["add_batch"], batch.batch_id, batch.thread_id, user_id, batch.label, batch.created_at)


async def batches(tx: Transaction, user_id: UserId, thread_id: ThreadId | None, limit: int) -> list[Batch]:
    """Batches of one thread, or of all of the user's, newest first."""
    if thread_id is None:
        rows = await tx.fetch(SQL["batches_of_user"], user_id, limit)
    else:
        rows = await tx.fetch(SQL["batches_of_thread"], user_id, thread_id, limit)
    return [Batch(row["batch_id"], ThreadId(row["thread_id"]), row["label"], row["created_at"]) for row in rows]


def _thread(row: Row) -> Thread:
    return Thread(
        thread_id=ThreadId(row["thread_id"]),
        user_id=UserId(row["user_id"]),
        name=row["name"],
        metadata=row["metadata"],
        tags=tuple(row["tags"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _entry(row: Row) -> Entry:
    return Entry(
        entry_id=row["entry_id"],
        thread_id=ThreadId(row["thread_id"]),
        kind=row["kind"],
        name=row["name"],
        input=row["input"],
        output=row["output"],
        created_at=row["created_at"],
        parent_id=row["parent_id"],
        is_error=row["is_error"],
        extra=row["extra"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
    )


def _element(row: Row) -> Element:
    return Element(
        element_id=row["element_id"],
        thread_id=ThreadId(row["thread_id"]),
        entry_id=row["entry_id"],
        kind=row["kind"],
        name=row["name"],
        mime=row["mime"],
        props=row["props"],
        extra=row["extra"],
        has_content=row["has_content"],
    )


def _content(row: Row | None) -> Content | None:
    return None if row is None else Content(row["name"], row["mime"], row["content"], row["digest"])

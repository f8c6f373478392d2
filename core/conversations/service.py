"""Use-cases of conversations. A thread belongs to one user of one tenant; nobody else sees that it exists.

Every method needs the scope ``chat`` and a person (``ctx.user_id``); operators have neither here. A thread
that is missing and one that is somebody else's are both ``NotFound``.

    new ──first write──► open ──deleted──► deleted, its id kept ──the audit's retention has passed──► new

Writes are idempotent (same id, same row), so a lost answer may be repeated. On a crash the thread holds what
was written before it; a message being streamed is written when it ends. What is written to a thread that was
deleted meanwhile is refused as ``NotFound``: it does not come back with a late answer.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from core.audit.service import AuditService
from core.clock import Clock
from core.conversations import store
from core.conversations.model import (
    MAX_PAGE,
    Batch,
    Content,
    Conversation,
    Cursor,
    Element,
    Entry,
    Feedback,
    Message,
    Thread,
    check_content,
    clean_text,
    like_pattern,
)
from core.db.pool import Database, Transaction
from core.errors import Forbidden, NotFound
from core.ids import ThreadId, UserId, new_id
from core.tenancy import Scope, TenantContext

_NAME_LENGTH = 120
_PURGE_AT_ONCE = 1_000


class ConversationService:
    """Threads, entries, elements, feedback and batches of the caller."""

    def __init__(self, db: Database, audit: AuditService, clock: Clock) -> None:
        self._db = db
        self._audit = audit
        self._clock = clock

    async def save_thread(
        self,
        ctx: TenantContext,
        thread_id: ThreadId,
        *,
        name: str | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        opens: bool = True,
    ) -> None:
        """Change what is given; a ``None`` inside metadata removes its key. ``opens``: make the thread if it is new."""
        user_id = _person(ctx)
        if name is not None:
            name = clean_text(" ".join(name.split()), _NAME_LENGTH) or None
        async with self._db.tenant_transaction(ctx) as tx:
            if opens:
                await self._open(tx, thread_id, user_id)
            await store.update_thread(tx, thread_id, user_id, name, tags, metadata or {})

    async def thread(self, ctx: TenantContext, thread_id: ThreadId) -> Thread:
        """The thread alone."""
        async with self._db.tenant_transaction(ctx) as tx:
            return await self._own(tx, thread_id, _person(ctx))

    async def conversation(self, ctx: TenantContext, thread_id: ThreadId) -> Conversation:
        """The thread with all entries, elements (without bytes) and feedback."""
        async with self._db.tenant_transaction(ctx) as tx:
            thread = await self._own(tx, thread_id, _person(ctx))
            return Conversation(
                thread,
                tuple(await store.entries(tx, thread_id)),
                tuple(await store.elements(tx, thread_id)),
                tuple(await store.feedback(tx, thread_id)),
            )

    async def threads(
        self,
        ctx: TenantContext,
        *,
        search: str | None = None,
        feedback: int | None = None,
        cursor: str | None = None,
        limit: int = 20,
    ) -> tuple[list[Thread], str | None]:
        """A page of the caller's threads, newest message first, and the cursor of the next page.

        ``search`` is looked for in names and messages, taken literally. At most 100 per page. Raises
        ``InvalidInput`` for a cursor that is not ours.
        """
        user_id = _person(ctx)
        limit = max(1, min(limit, MAX_PAGE))
        pattern = like_pattern(clean_text(search)) if search else None
        after = Cursor.parse(cursor) if cursor else None
        async with self._db.tenant_transaction(ctx) as tx:
            found = await store.list_threads(tx, user_id, pattern, feedback, after, limit + 1)
        page = found[:limit]
        more = len(found) > limit
        return page, str(Cursor(page[-1].updated_at, page[-1].thread_id)) if more else None

    async def delete_thread(self, ctx: TenantContext, thread_id: ThreadId) -> None:
        """Delete the thread with everything in it, for good; that this was done stays in the audit.

        Its id is not opened again before the audit tells of this no more. The runs it started are not part of it.
        """
        async with self._db.tenant_transaction(ctx) as tx:
            if not await store.delete_thread(tx, thread_id, _person(ctx), self._clock.now()):
                raise _missing()
            await self._audit.record(tx, ctx, "thread.delete", f"thread:{thread_id}")

    async def purge(self) -> int:
        """Forget the ids of deleted threads of which audits tell no more, in all tenants; how many."""
        now = self._clock.now()
        return await self._db.in_batches(lambda tx: store.purge(tx, now, _PURGE_AT_ONCE), _PURGE_AT_ONCE)

    async def save_entry(self, ctx: TenantContext, entry: Entry) -> None:
        """Write an entry, or replace it; opens the thread if it is new. Texts are cut at 200,000 characters."""
        user_id = _person(ctx)
        entry = replace(entry, input=clean_text(entry.input), output=clean_text(entry.output))
        async with self._db.tenant_transaction(ctx) as tx:
            await self._open(tx, entry.thread_id, user_id)
            if not await store.save_entry(tx, entry):
                raise _missing()
            if entry.is_message:
                await store.touch_thread(tx, entry.thread_id, user_id, self._clock.now())

    async def delete_entry(self, ctx: TenantContext, entry_id: str) -> bool:
        """Delete an entry with its elements and feedback; False when there was none."""
        async with self._db.tenant_transaction(ctx) as tx:
            thread_id = await store.thread_of_entry(tx, entry_id, _person(ctx))
            return thread_id is not None and await store.delete_entry(tx, thread_id, entry_id)

    async def messages(
        self, ctx: TenantContext, thread_id: ThreadId, *, without: str = "", limit: int = 40
    ) -> list[Message]:
        """The last messages of the thread, oldest first, without the entry named; empty for a new thread."""
        user_id = _person(ctx)
        async with self._db.tenant_transaction(ctx) as tx:
            if await store.own_thread(tx, thread_id, user_id) is None:
                return []
            return await store.recent_messages(tx, thread_id, without, limit)

    async def favourites(self, ctx: TenantContext, limit: int = 100) -> list[Entry]:
        """Messages the caller marked, newest first."""
        async with self._db.tenant_transaction(ctx) as tx:
            return await store.favourites(tx, _person(ctx), limit)

    async def save_element(self, ctx: TenantContext, element: Element, content: bytes | None = None) -> None:
        """Write an element, or replace it; bytes stored before are kept when none are given.

        Raises ``PayloadTooLarge`` over 5 MiB and ``InvalidInput`` for a type that is not accepted.
        """
        user_id = _person(ctx)
        if content is not None:
            element = replace(element, mime=check_content(element.name, element.mime, len(content)))
        async with self._db.tenant_transaction(ctx) as tx:
            await self._open(tx, element.thread_id, user_id)
            if not await store.save_element(tx, element, content, self._clock.now()):
                raise _missing()

    async def element(self, ctx: TenantContext, thread_id: ThreadId, element_id: str) -> Element:
        """One element."""
        async with self._db.tenant_transaction(ctx) as tx:
            await self._own(tx, thread_id, _person(ctx))
            found = await store.element(tx, thread_id, element_id)
        if found is None:
            raise NotFound("There is no such file or card.")
        return found

    async def content(self, ctx: TenantContext, thread_id: ThreadId, element_id: str) -> Content:
        """The bytes of one element."""
        async with self._db.tenant_transaction(ctx) as tx:
            await self._own(tx, thread_id, _person(ctx))
            found = await store.content(tx, thread_id, element_id)
        if found is None:
            raise NotFound("There is no such file.")
        return found

    async def attachment(self, ctx: TenantContext, thread_id: ThreadId, name: str) -> Content:
        """The newest file of that name in the thread."""
        async with self._db.tenant_transaction(ctx) as tx:
            await self._own(tx, thread_id, _person(ctx))
            found = await store.attachment(tx, thread_id, name)
        if found is None:
            raise NotFound(f"No file named {name} is attached to this conversation.")
        return found

    async def delete_element(self, ctx: TenantContext, element_id: str) -> bool:
        """Delete one element; False when there was none."""
        async with self._db.tenant_transaction(ctx) as tx:
            thread_id = await store.thread_of_element(tx, element_id, _person(ctx))
            return thread_id is not None and await store.delete_element(tx, thread_id, element_id)

    async def save_feedback(self, ctx: TenantContext, entry_id: str, value: int, comment: str | None) -> str:
        """Say what a message was worth (1 helpful, 0 not); the last opinion counts. Returns the feedback's id."""
        now = self._clock.now()
        async with self._db.tenant_transaction(ctx) as tx:
            thread_id = await store.thread_of_entry(tx, entry_id, _person(ctx))
            if thread_id is None:
                raise NotFound("There is no such message.")
            text = clean_text(comment, 5_000) if comment else None
            feedback = Feedback(new_id("fbk", now), entry_id, 1 if value else 0, text)
            return await store.save_feedback(tx, thread_id, feedback, now)

    async def delete_feedback(self, ctx: TenantContext, feedback_id: str) -> bool:
        """Take an opinion back; False when there was none."""
        async with self._db.tenant_transaction(ctx) as tx:
            return await store.delete_feedback(tx, feedback_id, _person(ctx))

    async def add_batch(self, ctx: TenantContext, thread_id: ThreadId, batch_id: str, label: str) -> None:
        """Remember that the thread started this batch of runs. Asking twice changes nothing."""
        user_id = _person(ctx)
        now: datetime = self._clock.now()
        async with self._db.tenant_transaction(ctx) as tx:
            await self._open(tx, thread_id, user_id)
            await store.add_batch(tx, Batch(batch_id, thread_id, clean_text(label, 200), now), user_id)

    async def batches(self, ctx: TenantContext, thread_id: ThreadId | None = None, limit: int = 20) -> list[Batch]:
        """Batches of one thread, or of all the caller's threads, newest first."""
        async with self._db.tenant_transaction(ctx) as tx:
            return await store.batches(tx, _person(ctx), thread_id, limit)

    async def _open(self, tx: Transaction, thread_id: ThreadId, user_id: UserId) -> None:
        if not await store.open_thread(tx, thread_id, user_id, self._clock.now()):
            raise _missing()

    @staticmethod
    async def _own(tx: Transaction, thread_id: ThreadId, user_id: UserId) -> Thread:
        thread = await store.own_thread(tx, thread_id, user_id)
        if thread is None:
            raise _missing()
        return thread


def _person(ctx: TenantContext) -> UserId:
    ctx.require(Scope.CHAT)
    if ctx.user_id is None:
        raise Forbidden("Conversations belong to people; this identity is not one.")
    return ctx.user_id


def _missing() -> NotFound:
    return NotFound("There is no such conversation, or it was deleted. Begin a new one.")

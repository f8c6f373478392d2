"""Chainlit's storage interface over our conversations.

Chainlit calls it with ids alone; for whom is decided by the seat of the connection, never by an argument.
Chainlit writes in tasks that it does not await: writes of one entry, and names of one thread, are kept in the order in
which they were begun, and a write that fails is logged, not raised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, cast
from weakref import WeakValueDictionary

import structlog
from chainlit.data.base import BaseDataLayer
from chainlit.data.utils import queue_until_user_message
from chainlit.element import Element as ShownElement
from chainlit.element import ElementDict
from chainlit.step import StepDict
from chainlit.types import Feedback as GivenFeedback
from chainlit.types import FeedbackDict, PageInfo, PaginatedResponse, Pagination, ThreadDict, ThreadFilter
from chainlit.user import PersistedUser, User

from chat_app.downloads import file_url
from chat_app.session import current_seat, identifier_of
from core.agents.guardrails import attachment_name
from core.clock import Clock
from core.conversations.model import Element, Entry, Feedback, Thread
from core.conversations.service import ConversationService
from core.errors import BailiwickError, NotFound
from core.ids import ThreadId

P = ParamSpec("P")
_after_first_message: Callable[[], Callable[..., Any]] = queue_until_user_message
log = structlog.get_logger(__name__)

_ENTRY_FIELDS = frozenset(
    {"id", "threadId", "parentId", "type", "name", "input", "output", "isError", "createdAt", "start", "end"}
)
_NOT_KEPT = _ENTRY_FIELDS | {"streaming", "feedback"}
_ELEMENT_EXTRA = ("display", "size", "page", "language", "autoPlay", "playerConfig")
_SESSION_KEYS = frozenset({"chat_profile", "chat_settings", "client_type"})


def _unawaited(
    method: Callable[Concatenate[Any, P], Awaitable[None]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, None]]:
    """For writes that Chainlit starts and forgets: after the first message, with failures in the log."""

    @wraps(method)
    async def write(self: Any, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            await method(self, *args, **kwargs)
        except BailiwickError as error:
            log.warning("chat.not_kept", what=method.__name__, code=error.code, message=error.message)

    deferred: Callable[Concatenate[Any, P], Coroutine[Any, Any, None]] = _after_first_message()(write)
    return deferred


class ConversationLayer(BaseDataLayer):
    """``BaseDataLayer`` on ``ConversationService``."""

    def __init__(self, conversations: ConversationService, clock: Clock) -> None:
        self._conversations = conversations
        self._clock = clock
        self._order: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    # People ---------------------------------------------------------------------------------------------

    async def get_user(self, identifier: str) -> PersistedUser | None:
        """The person at this connection, if that is who is meant."""
        identity = current_seat().identity
        if identifier != identifier_of(identity):
            return None
        return PersistedUser(
            id=identity.user_id,
            createdAt=self._clock.now().isoformat(),
            identifier=identifier,
            display_name=identity.name,
            metadata={"tenant": identity.tenant_name, "roles": [role.value for role in identity.roles]},
        )

    async def create_user(self, user: User) -> PersistedUser | None:
        """People are made by admins, not by the chat: the one who is there."""
        return await self.get_user(user.identifier)

    # Threads --------------------------------------------------------------------------------------------

    async def get_thread_author(self, thread_id: str) -> str:
        """The person at this connection when the thread is theirs, else nobody."""
        seat = current_seat()
        try:
            await self._conversations.thread(seat.ctx, ThreadId(thread_id))
        except NotFound:
            return ""
        return identifier_of(seat.identity)

    async def get_thread(self, thread_id: str) -> ThreadDict | None:
        """A thread with everything in it; None when it is not this person's."""
        seat = current_seat()
        try:
            found = await self._conversations.conversation(seat.ctx, ThreadId(thread_id))
        except NotFound:
            return None
        thread = _thread_dict(found.thread, identifier_of(seat.identity))
        opinions = {one.entry_id: one for one in found.feedback}
        thread["steps"] = [_step_dict(entry, opinions.get(entry.entry_id)) for entry in found.entries]
        thread["elements"] = [_element_dict(element) for element in found.elements]
        return thread

    async def list_threads(self, pagination: Pagination, filters: ThreadFilter) -> PaginatedResponse[ThreadDict]:
        """A page of this person's threads, newest message first."""
        seat = current_seat()
        page, cursor = await self._conversations.threads(
            seat.ctx,
            search=filters.search,
            feedback=filters.feedback,
            cursor=pagination.cursor,
            limit=pagination.first,
        )
        author = identifier_of(seat.identity)
        info = PageInfo(hasNextPage=cursor is not None, startCursor=None, endCursor=cursor)
        return PaginatedResponse(pageInfo=info, data=[_thread_dict(thread, author) for thread in page])

    async def update_thread(
        self,
        thread_id: str,
        name: str | None = None,
        user_id: str | None = None,  # noqa: ARG002 - the seat decides
        metadata: dict[str, Any] | None = None,
        tags: list[str] | None = None,
    ) -> None:
        """Name, tags, and what Chainlit wants back when the thread is resumed.

        Only what comes with a name opens a thread: what a page leaves behind when it is closed is not worth one.
        """
        kept = {key: value for key, value in (metadata or {}).items() if key in _SESSION_KEYS}
        seat, opens = current_seat(), name is not None
        async with self._in_order(thread_id):
            await self._conversations.save_thread(
                seat.ctx, ThreadId(thread_id), name=name, tags=tags, metadata=kept, opens=opens
            )

    async def delete_thread(self, thread_id: str) -> None:
        """Delete it with everything in it."""
        await self._conversations.delete_thread(current_seat().ctx, ThreadId(thread_id))

    # Entries --------------------------------------------------------------------------------------------

    @_unawaited
    async def create_step(self, step_dict: StepDict) -> None:
        """Write an entry, or replace it."""
        async with self._in_order(step_dict["id"]):
            await self._conversations.save_entry(current_seat().ctx, entry_of(step_dict, self._clock.now()))

    @_unawaited
    async def update_step(self, step_dict: StepDict) -> None:
        """Write an entry, or replace it."""
        async with self._in_order(step_dict["id"]):
            await self._conversations.save_entry(current_seat().ctx, entry_of(step_dict, self._clock.now()))

    @_unawaited
    async def delete_step(self, step_id: str) -> None:
        """Delete an entry with its files and cards."""
        async with self._in_order(step_id):
            await self._conversations.delete_entry(current_seat().ctx, step_id)

    async def get_favorite_steps(self, user_id: str) -> list[StepDict]:  # noqa: ARG002 - the seat decides
        """Messages this person marked."""
        return [_step_dict(entry, None) for entry in await self._conversations.favourites(current_seat().ctx)]

    # Elements -------------------------------------------------------------------------------------------

    @_unawaited
    async def create_element(self, element: ShownElement) -> None:
        """Write a file with its bytes, or a card with its props. Addresses on the web are never fetched.

        A file is kept under the name by which it is announced to the model, so that its tools find it.
        """
        async with self._in_order(element.id):
            content = None if element.type == "custom" else await asyncio.to_thread(_bytes_of, element)
            shown = element.to_dict()
            await self._conversations.save_element(
                current_seat().ctx,
                Element(
                    element_id=element.id,
                    thread_id=ThreadId(element.thread_id),
                    entry_id=element.for_id,
                    kind=element.type,
                    name=attachment_name(element.name),
                    mime=element.mime,
                    props=shown.get("props"),
                    extra={key: shown[key] for key in _ELEMENT_EXTRA if shown.get(key) is not None},  # type: ignore[literal-required]
                ),
                content,
            )

    async def get_element(self, thread_id: str, element_id: str) -> ElementDict | None:
        """One file or card; None when it is not this person's."""
        try:
            found = await self._conversations.element(current_seat().ctx, ThreadId(thread_id), element_id)
        except NotFound:
            return None
        return _element_dict(found)

    @_unawaited
    async def delete_element(self, element_id: str, thread_id: str | None = None) -> None:  # noqa: ARG002
        """Delete one file or card."""
        async with self._in_order(element_id):
            await self._conversations.delete_element(current_seat().ctx, element_id)

    # Feedback -------------------------------------------------------------------------------------------

    async def upsert_feedback(self, feedback: GivenFeedback) -> str:
        """Keep the last opinion about a message, as soon as the message is kept; its id."""
        async with self._in_order(feedback.forId):
            return await self._conversations.save_feedback(
                current_seat().ctx, feedback.forId, feedback.value, feedback.comment
            )

    async def delete_feedback(self, feedback_id: str) -> bool:
        """Take an opinion back."""
        return await self._conversations.delete_feedback(current_seat().ctx, feedback_id)

    # The rest -------------------------------------------------------------------------------------------

    async def build_debug_url(self) -> str:
        """There is no debugger."""
        return ""

    async def close(self) -> None:
        """The platform closes its own connections."""

    def _in_order(self, key: str) -> asyncio.Lock:
        return self._order.setdefault(key, asyncio.Lock())


def entry_of(step: StepDict, now: datetime) -> Entry:
    """What Chainlit shows as a message or a piece of work, as it is kept; ``now`` when it has no time of its own."""
    return Entry(
        entry_id=step["id"],
        thread_id=ThreadId(step["threadId"]),
        kind=step["type"],
        name=step.get("name") or "",
        input=step.get("input") or "",
        output=step.get("output") or "",
        created_at=_moment(step.get("createdAt")) or now,
        parent_id=step.get("parentId"),
        is_error=bool(step.get("isError")),
        extra={key: value for key, value in step.items() if key not in _NOT_KEPT and value is not None},
        started_at=_moment(step.get("start")),
        ended_at=_moment(step.get("end")),
    )


def _bytes_of(element: ShownElement) -> bytes | None:
    if element.path:
        return Path(element.path).read_bytes()
    return element.content.encode() if isinstance(element.content, str) else element.content


def _moment(text: str | None) -> datetime | None:
    """Chainlit's times are UTC, with or without saying so."""
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _thread_dict(thread: Thread, author: str) -> ThreadDict:
    return ThreadDict(
        id=thread.thread_id,
        # Chainlit sorts and groups the list by this field: the time of the newest message.
        createdAt=thread.updated_at.isoformat(),
        name=thread.name,
        userId=thread.user_id,
        userIdentifier=author,
        tags=list(thread.tags),
        metadata=thread.metadata,
        steps=[],
        elements=[],
    )


def _step_dict(entry: Entry, feedback: Feedback | None) -> StepDict:
    step: dict[str, Any] = {
        **entry.extra,
        "id": entry.entry_id,
        "threadId": entry.thread_id,
        "parentId": entry.parent_id,
        "type": entry.kind,
        "name": entry.name,
        "input": entry.input,
        "output": entry.output,
        "isError": entry.is_error,
        "streaming": False,
        "createdAt": entry.created_at.isoformat(),
        "start": entry.started_at.isoformat() if entry.started_at else None,
        "end": entry.ended_at.isoformat() if entry.ended_at else None,
    }
    step.setdefault("metadata", {})
    if feedback is not None:
        value: Any = feedback.value
        step["feedback"] = FeedbackDict(
            forId=entry.entry_id, id=feedback.feedback_id, value=value, comment=feedback.comment
        )
    return cast(StepDict, step)


def _element_dict(element: Element) -> ElementDict:
    shown: dict[str, Any] = {
        "display": "inline",
        **element.extra,
        "id": element.element_id,
        "threadId": element.thread_id,
        "forId": element.entry_id,
        "type": element.kind,
        "name": element.name,
        "mime": element.mime,
        "props": element.props,
        "chainlitKey": None,
        "objectKey": None,
        "url": file_url(element.thread_id, element.element_id) if element.has_content else None,
    }
    return cast(ElementDict, shown)

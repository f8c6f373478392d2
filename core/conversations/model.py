"""Values of a conversation, their limits, and the cursor of a list of threads."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from core.errors import InvalidInput, PayloadTooLarge
from core.ids import ThreadId, UserId

MAX_CONTENT_BYTES = 5 * 1024 * 1024
MAX_TEXT = 200_000
MAX_PAGE = 100
_CUT = "\n… (the rest was left out)"

FILE_TYPES = frozenset(
    {
        "application/json",
        "application/pdf",
        "application/vnd.ms-excel",  # what browsers on Windows call a CSV file
        "image/gif",
        "image/jpeg",
        "image/png",
        "image/webp",
        "text/csv",
        "text/markdown",
        "text/plain",
    }
)
"""Types of content an element may carry. None of them runs code in a browser when sent as an attachment."""


class EntryKind(StrEnum):
    """Kinds that are messages; every other kind is a piece of work shown in between."""

    USER = "user_message"
    ASSISTANT = "assistant_message"


MESSAGES = frozenset(EntryKind)


@dataclass(frozen=True, slots=True)
class Thread:
    """One conversation of one user."""

    thread_id: ThreadId
    user_id: UserId
    name: str | None
    metadata: dict[str, Any]
    tags: tuple[str, ...]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Entry:
    """A message, or a piece of work shown between messages (a tool call).

    Attributes:
        parent_id: the entry this one belongs under.
        input: what the work was given; empty for messages.
        output: the text of the message, or what the work gave back.
        extra: JSON that only the interface understands; kept as it came.
    """

    entry_id: str
    thread_id: ThreadId
    kind: str
    name: str
    input: str
    output: str
    created_at: datetime
    parent_id: str | None = None
    is_error: bool = False
    extra: dict[str, Any] = field(default_factory=dict)
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def is_message(self) -> bool:
        """Whether somebody said this."""
        return self.kind in MESSAGES


@dataclass(frozen=True, slots=True)
class Element:
    """A file that came with a message, or a card shown under one. Bytes are fetched on their own."""

    element_id: str
    thread_id: ThreadId
    entry_id: str | None
    kind: str
    name: str
    mime: str | None
    props: dict[str, Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    has_content: bool = False


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of an element."""

    name: str
    mime: str
    data: bytes = field(repr=False)
    digest: str
    """SHA-256 of the bytes, hexadecimal."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """What the reader thought of one message: 1 helpful, 0 not."""

    feedback_id: str
    entry_id: str
    value: int
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """A thread with everything in it, oldest first."""

    thread: Thread
    entries: tuple[Entry, ...]
    elements: tuple[Element, ...]
    feedback: tuple[Feedback, ...]


@dataclass(frozen=True, slots=True)
class Message:
    """One side of a conversation as a model is told about it; ``attachments`` are file names."""

    entry_id: str
    kind: EntryKind
    text: str
    attachments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """Runs that were started together from a thread."""

    batch_id: str
    thread_id: ThreadId
    label: str
    created_at: datetime


def clean_text(text: str, limit: int = MAX_TEXT) -> str:
    """``text`` as the database can hold it: without NUL, and cut (visibly) at ``limit`` characters."""
    text = text.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    return text if len(text) <= limit else text[: limit - len(_CUT)] + _CUT


def check_content(name: str, mime: str | None, size_bytes: int) -> str:
    """The type of the content, in lower case without parameters.

    Raises ``PayloadTooLarge`` over 5 MiB and ``InvalidInput`` for a type that is not in ``FILE_TYPES``.
    """
    if size_bytes > MAX_CONTENT_BYTES:
        raise PayloadTooLarge(f"{name} is larger than {MAX_CONTENT_BYTES // 1024**2} MiB.", limit=MAX_CONTENT_BYTES)
    bare = (mime or "").partition(";")[0].strip().lower()
    if bare not in FILE_TYPES:
        raise InvalidInput(
            f"{name} has the type {bare or 'unknown'}, which is not accepted.", accepted=sorted(FILE_TYPES)
        )
    return bare


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the list of threads: just after this one."""

    updated_at: datetime
    thread_id: ThreadId

    def __str__(self) -> str:
        return f"{self.updated_at.isoformat()}~{self.thread_id}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Back from its text. Raises ``InvalidInput``."""
        moment, _, thread_id = text.partition("~")
        try:
            updated_at = datetime.fromisoformat(moment)
        except ValueError as error:
            raise InvalidInput("The cursor is not one of ours.") from error
        if updated_at.tzinfo is None or not thread_id:
            raise InvalidInput("The cursor is not one of ours.")
        return cls(updated_at, ThreadId(thread_id))


def like_pattern(text: str) -> str:
    """A pattern that finds ``text`` anywhere, taken literally."""
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"

"""What an agent's turn is made of, and what comes out of it while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from core.conversations.model import Message
from core.ids import ReviewId, RunId, ThreadId
from core.ports import Recalled
from core.tenancy import TenantContext


@dataclass(frozen=True, slots=True)
class BatchCard:
    """Show how far a batch of runs is, and keep showing it."""

    batch_id: str
    label: str


@dataclass(frozen=True, slots=True)
class RunCard:
    """Show one run: its steps, what it writes, what may be done to it."""

    run_id: RunId


@dataclass(frozen=True, slots=True)
class ReviewCard:
    """Show a case to somebody who may decide it."""

    review_id: ReviewId


Card = BatchCard | RunCard | ReviewCard


@dataclass(frozen=True, slots=True)
class Question:
    """What the user just said, and what led there.

    Attributes:
        message_id: of the user's message; names this turn.
        attachments: names of the files that came with it.
        history: messages before it, oldest first.
        user_name, tenant_name: how to address them.
        said_at: when it was said, if not when memory learns from it.
    """

    ctx: TenantContext
    thread_id: ThreadId
    message_id: str
    text: str
    attachments: tuple[str, ...] = ()
    history: Sequence[Message] = ()
    user_name: str = ""
    tenant_name: str = ""
    said_at: datetime | None = None


@dataclass(slots=True)
class Turn:
    """What every tool receives besides its arguments: who asks, where, and a place to leave cards."""

    ctx: TenantContext
    thread_id: ThreadId
    message_id: str
    cards: list[Card] = field(default_factory=list)

    def show(self, card: Card) -> None:
        """Have a card shown under the answer; the same card once."""
        if card not in self.cards:
            self.cards.append(card)


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolStarted:
    """The agent uses a tool."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolFinished:
    """What the tool answered, JSON. ``failed``: it answered with an error."""

    call_id: str
    output: str
    failed: bool


@dataclass(frozen=True, slots=True)
class CardShown:
    """Something to show under the answer."""

    card: Card


@dataclass(frozen=True, slots=True)
class Recollected:
    """Memories the agent was told about before it answered."""

    memories: tuple[Recalled, ...]


AgentEvent = TextDelta | ToolStarted | ToolFinished | CardShown | Recollected
Json = dict[str, Any]

"""Memories as values, and what is decided about them without any I/O.

A statement becomes a ``Draft`` when it passes the checks of ``memory.admission``, and a ``Memory`` when it is
stored. ``supersede`` decides what a new triple does to older ones that it contradicts.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from core.ids import MemoryId, ThreadId, UserId

MAX_TEXT = 1_000
MAX_PART = 200
MAX_CONTEXT = 500
MAX_MESSAGE = 20_000
DIMENSIONS = 384

Vector = Sequence[float]

EVERYBODY = frozenset({"we", "us", "i", "me", "you", "they", "them", "it", "he", "she", "him", "user", "this", "that"})
"""Keys of words that point at somebody: such a node of the graph would relate everything to everything."""

_NAME = re.compile(r"[A-Z][a-z]+")
_FEWEST_WORDS = 3
_LONGEST_NAME = 4
_MOST_NAMES = 200

_NOISE = re.compile(r"[^\w\s.,%$€£+#/-]")
_STOPS_IN_WORDS = re.compile(r"(?<!\d)[.,/-]|[.,/-](?!\d)")
_ARTICLES = re.compile(r"^(?:(?:the|an?|our|my|your|its|their|this|that)\s+)+")


class Kind(StrEnum):
    """A ``fact`` is a sentence; a ``triple`` is one that relates two things, and also lives in the graph."""

    FACT = "fact"
    TRIPLE = "triple"


@dataclass(frozen=True, slots=True)
class Triple:
    """Who, in which way, to whom or what; each at most 200 characters."""

    subject: str
    predicate: str
    object: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What two triples are compared by."""
        return entity_key(self.subject), normalise(self.predicate), entity_key(self.object)


@dataclass(frozen=True, slots=True)
class Draft:
    """A statement that may be stored.

    Attributes:
        shared: known to the whole tenant, not just to the person who said it.
        exclusive: the subject has one object for this predicate at a time, so a new one ends the old one.
        replaces: memories that the statement says are no longer so.
        context: what it was said in reply to; found by its words, never shown.
        message_id: the message it was taken from, where known.
    """

    text: str
    triple: Triple | None
    shared: bool
    exclusive: bool = False
    replaces: tuple[MemoryId, ...] = ()
    context: str = ""
    message_id: str | None = None

    @property
    def kind(self) -> Kind:
        """Fact or triple."""
        return Kind.FACT if self.triple is None else Kind.TRIPLE

    @property
    def content_hash(self) -> bytes:
        """The same for two texts that differ in case, articles and punctuation only."""
        return hashlib.sha256(normalise(self.text).encode()).digest()


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where memories come from.

    Attributes:
        model: the model that extracted them; None when stored as said.
        said_at: when it was said, which is when it began to be true.
        source_key: the idempotency key of the step that learned them.
    """

    actor: str
    user_id: UserId | None
    thread_id: ThreadId | None
    model: str | None
    said_at: datetime
    source_key: str | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """A stored memory with its origin and validity. ``user_id`` None: known to the whole tenant."""

    memory_id: MemoryId
    user_id: UserId | None
    kind: Kind
    text: str
    triple: Triple | None
    thread_id: ThreadId | None
    message_id: str | None
    model: str | None
    learned_by: str
    learned_at: datetime
    confirmed_at: datetime
    valid_from: datetime
    valid_to: datetime | None
    superseded_by: MemoryId | None


@dataclass(frozen=True, slots=True)
class Rival:
    """A valid memory with the same owner, subject and predicate as a new one, and another object."""

    memory_id: MemoryId
    valid_from: datetime


@dataclass(frozen=True, slots=True)
class Succession:
    """What a new memory does to its rivals, and they to it.

    Attributes:
        closes: rivals that were true until the new one.
        closed_by: the rival that was said later than the new one, which is history from the start.
        valid_to: until when the new one was true in that case.
    """

    closes: tuple[MemoryId, ...] = field(default=())
    closed_by: MemoryId | None = None
    valid_to: datetime | None = None


def supersede(valid_from: datetime, rivals: Sequence[Rival]) -> Succession:
    """Order contradicting statements by when they were said, not by when they were learned.

    A turn may be learned late (its step was retried), so the new memory can be the older one.
    """
    later = [rival for rival in rivals if rival.valid_from > valid_from]
    closes = tuple(rival.memory_id for rival in rivals if rival.valid_from <= valid_from)
    if not later:
        return Succession(closes)
    first = min(later, key=lambda rival: rival.valid_from)
    return Succession(closes, first.memory_id, first.valid_from)


def normalise(text: str) -> str:
    """Lower case, no punctuation outside numbers, single blanks."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("’", "").replace("'", "")
    return " ".join(_STOPS_IN_WORDS.sub(" ", _NOISE.sub(" ", folded)).split())


def entity_key(name: str) -> str:
    """What a thing in the graph is found by: its name without case, leading articles and punctuation."""
    plain = normalise(name)
    return _ARTICLES.sub("", plain + " ").strip() or plain


def names_in(query: str) -> list[str]:
    """What in a query may be the name of a thing: every run of up to four words, at most 200, as keys."""
    words = normalise(query).split()
    runs = (words[at : at + size] for size in range(_LONGEST_NAME, 0, -1) for at in range(len(words) - size + 1))
    keys = dict.fromkeys(entity_key(" ".join(run)) for run in runs)
    return [key for key in keys if key and key not in EVERYBODY][:_MOST_NAMES]


def without_names(query: str) -> str | None:
    """The query without names, for its embedding; None when it has none or nearly nothing else.

    A name weighs so much in the embedding of a short text that a question about somebody finds whatever
    mentions them; what is asked gets lost. Names are words with a capital letter inside a sentence.
    """
    words = query.split()
    inside = [at > 0 and not words[at - 1].endswith((".", "!", "?", ":")) for at in range(len(words))]
    kept = [word for word, within in zip(words, inside, strict=True) if not (within and _NAME.match(word))]
    return " ".join(kept) if _FEWEST_WORDS <= len(kept) < len(words) else None


def printable(text: str) -> str:
    """``text`` as the database and a model can take it: no NUL, at most ``MAX_MESSAGE`` characters."""
    return text[:MAX_MESSAGE].replace("\x00", "\N{REPLACEMENT CHARACTER}")


def clean(text: str, limit: int) -> str:
    """One line that the database can hold: no NUL, single blanks, at most ``limit`` characters, cut at a word."""
    line = " ".join(printable(text).split())
    if len(line) <= limit:
        return line
    cut = line[:limit].rsplit(" ", 1)[0]
    return cut if len(cut) > limit // 2 else line[:limit]

"""What may become a memory: the checks between what a model extracted and what is stored. Pure.

A model may invent, repeat itself, or answer in a wrong form, so nothing it says is taken on trust:

- **Grounded**: the words it quotes must be in a message of the *user*. What an assistant said is never
  learned, so a hallucination cannot feed on itself.
- **Worth keeping**: a statement of limited length; no question, no password or key.
- **Owner**: "we", "our policy" is known to the whole tenant; "I", "my" belongs to one person. In doubt it
  belongs to the person: sharing too little can be repaired.
- **Once**: the same words twice are one memory, and one that relates two things is preferred.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from core.ids import MemoryId
from core.ports import Utterance
from memory.model import MAX_CONTEXT, MAX_PART, MAX_TEXT, Draft, Triple, clean, entity_key, normalise

MAX_DRAFTS = 20
"""Memories from one turn; more than a person states in one message is a model running away."""

_QUOTE_SHARE = 0.6  # a quote is nearly verbatim; models drop a filler word or two
_TEXT_SHARE = 0.5  # a statement that stands alone spells out pronouns, so only half its words need to be there

# A script without blanks has one word per character.
_WORD = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]|[^\W_\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]+")
_PLURAL = re.compile(
    r"\b(?:we|our|ours|us|company|policy|policies|everyone|everybody|organi[sz]ation)\b", re.IGNORECASE
)
_SINGULAR = re.compile(r"\b(?:i|i'm|i’m|me|my|mine|myself|the user|user's)\b", re.IGNORECASE)
_TENANT = frozenset({"organisation", "organization", "tenant", "company", "team", "we"})
_PERSON = frozenset({"person", "user", "i", "me"})

_SECRET = re.compile(
    r"\b(?:bw_\w+_\w+|sk-[\w-]{16,}|gh[pousr]_\w{20,}|AKIA[0-9A-Z]{16})\b|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    # Told, not talked about: "the password is required" and "a token is valid for an hour" are rules.
    r"|\b(?:password|passphrase|passcode)\s*(?:is|=|:)\s*(?!(?:\w+ed|not|never|always|an?|the|valid|too|only)\b)\S+"
    r"|\b(?:pin|api key|secret key|token)\s*(?:is|=|:)\s*(?=\S*\d)\S{4,}",
    re.IGNORECASE,
)

# Predicates that name a bound or a place have one object at a time …
_BOUND = re.compile(
    r"\b(?:above|below|under|over|before|after|until|by|at least|at most|up to|(?:more|less|fewer) than)$"
)
# … and those of having, liking and doing usually have several.
_SEVERAL = re.compile(
    r"\b(?:accept|approve|ask|attend|buy|bought|charge|check|contain|contact|cover|deal|decline|employ|enjoy|finance"
    r"|had|has|hate|have|hire|hold|include|insure|invest|knew|know|lend|like|love|made|make|meet|met|need|offer"
    r"|operate|own|partner|read|refuse|reject|report|require|run|sell|send|sent|serve|ship|speak|spoke|support|teach"
    r"|think|trade|use|visit|want|work with|wrote|write)(?:e?s|e?d)?\b"
)


@dataclass(frozen=True, slots=True)
class Extracted:
    """One statement as a model gave it, every field a loose string that may be empty or nonsense."""

    text: str
    subject: str = ""
    predicate: str = ""
    object: str = ""
    quote: str = ""
    about: str = ""
    exclusive: str = ""
    replaces: str = ""


def admit(
    extracted: Iterable[Extracted], messages: Sequence[Utterance], known: Collection[MemoryId], *, personal: bool
) -> list[Draft]:
    """The drafts worth storing, at most ``MAX_DRAFTS``.

    ``known`` are the memories the model was shown: it may replace no other. ``personal`` tells whether there
    is a person to own memories; without one, statements about a person are dropped.
    """
    drafts: dict[bytes, Draft] = {}
    for one in extracted:
        draft = _admit(one, messages, known)
        if draft is None or not (draft.shared or personal):
            continue
        rival = drafts.get(draft.content_hash)
        if rival is None or (rival.triple is None and draft.triple is not None):
            drafts[draft.content_hash] = draft
    return list(drafts.values())[:MAX_DRAFTS]


def as_said(statement: str, *, personal: bool) -> Draft | None:
    """The statement itself as a fact: for what a user asked to remember and no model took apart."""
    text = clean(statement, MAX_TEXT)
    if not text or is_secret(text):
        return None
    return Draft(text, None, shared=not personal or is_shared(text, ""))


def is_secret(text: str) -> bool:
    """Does it hold something that opens doors? Such things are never kept."""
    return bool(_SECRET.search(text))


def is_shared(text: str, about: str) -> bool:
    """Whether the whole tenant should know it; ``about`` is what the model thinks."""
    hint = normalise(about)
    if hint in _PERSON or (_SINGULAR.search(text) and not _PLURAL.search(text)):
        return False
    return hint in _TENANT or bool(_PLURAL.search(text))


def is_exclusive(predicate: str, hint: str) -> bool:
    """Whether a new object for this predicate ends the old one; the model's ``hint`` (yes, no) decides if given."""
    answer = normalise(hint)
    if answer in ("yes", "no", "true", "false"):
        return answer in ("yes", "true")
    plain = normalise(predicate)
    return bool(_BOUND.search(plain)) or not _SEVERAL.search(plain)


def _admit(one: Extracted, messages: Sequence[Utterance], known: Collection[MemoryId]) -> Draft | None:
    text = clean(one.text, MAX_TEXT)
    words = _words(text)
    if len(words) < 2 or text.endswith("?") or is_secret(text):
        return None
    source = _source(one.quote or text, messages)
    if source is None or _share(words, {word for said in messages for word in _words(said.text)}) < _TEXT_SHARE:
        return None
    triple = _triple(one)
    return Draft(
        text=text,
        triple=triple,
        shared=is_shared(text, one.about),
        exclusive=triple is not None and is_exclusive(triple.predicate, one.exclusive),
        replaces=tuple(memory_id for memory_id in known if memory_id in one.replaces),
        context=clean(messages[source - 1].text, MAX_CONTEXT) if source else "",
        message_id=messages[source].entry_id,
    )


def _source(quote: str, messages: Sequence[Utterance]) -> int | None:
    """Index of the user's message that holds the quote; the newest when several do."""
    words = _words(quote)
    shares = [(_share(words, set(_words(said.text))), index) for index, said in _of_user(messages)]
    best, index = max(shares, default=(0.0, 0))
    return index if best >= _QUOTE_SHARE else None


def _of_user(messages: Sequence[Utterance]) -> list[tuple[int, Utterance]]:
    return [(index, said) for index, said in enumerate(messages) if said.role == "user"]


def _words(text: str) -> list[str]:
    return _WORD.findall(normalise(text))


def _share(words: Sequence[str], among: Collection[str]) -> float:
    return sum(word in among for word in words) / len(words) if words else 0.0


def _triple(one: Extracted) -> Triple | None:
    parts = [clean(part, MAX_PART) for part in (one.subject, one.predicate, one.object)]
    if not all(normalise(part) for part in parts) or entity_key(parts[0]) == entity_key(parts[2]):
        return None
    return Triple(*parts)

"""What is new at an address: compares a response with what was seen before. Pure.

Atom, RSS, JSON Feed and JSON lists of objects are read as entries: what counts is an entry that is new or
says something else, not the bytes around it (a feed that stamps the time of day into every answer does not
change). Anything else has changed when its bytes have.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.message import Message
from typing import Any
from xml.etree import ElementTree as ET

from core.schedules.model import FeedChange, FeedEntry, Seen

_MAX_ENTRIES = 1_000
_MAX_BYTES = 60_000
_ATOM = "{http://www.w3.org/2005/Atom}"


@dataclass(frozen=True, slots=True)
class Response:
    """A successful answer (200)."""

    url: str
    body: bytes
    content_type: str = ""
    etag: str | None = None
    last_modified: str | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """``seen`` replaces what was seen before; ``change`` None: nothing is new. ``first``: nothing to compare with.

    ``key`` names the change: the same for the same news, whatever surrounds them.
    """

    seen: Seen
    change: FeedChange | None
    first: bool
    key: str


def compare(before: Seen, response: Response) -> Comparison:
    """What is new in a response."""
    digest = hashlib.sha256(response.body).digest()
    entries = read_entries(response)
    keys = tuple(_key(entry) for entry in entries or ())
    seen = Seen(response.etag, response.last_modified, digest, keys)
    if before.content_hash is None:
        return Comparison(seen, None, True, "")
    if before.content_hash == digest:
        return Comparison(seen, None, False, "")
    if entries is None:
        content, cut = _cut(_text(response))
        change = FeedChange(url=response.url, content_type=response.content_type, content=content, truncated=cut)
        return Comparison(seen, change, False, digest.hex())
    new = [(key, entry) for key, entry in zip(keys, entries, strict=True) if key not in before.entry_keys]
    if not new:
        return Comparison(seen, None, False, "")
    fitting, cut = _fitting(entry for _, entry in new)
    change = FeedChange(url=response.url, content_type=response.content_type, entries=fitting, truncated=cut)
    return Comparison(seen, change, False, hashlib.sha256(" ".join(key for key, _ in new).encode()).hexdigest())


def read_entries(response: Response) -> list[FeedEntry] | None:
    """The entries of a feed, at most 1,000; None: this is no feed."""
    text = _text(response).strip()
    found = _json_entries(text) if text[:1] in {"[", "{"} else _xml_entries(text) if text[:1] == "<" else None
    return None if found is None else found[:_MAX_ENTRIES]


def _json_entries(text: str) -> list[FeedEntry] | None:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    items = document.get("items") if isinstance(document, dict) else document
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        return None
    return [_json_entry(item) for item in items]


def _json_entry(item: dict[str, Any]) -> FeedEntry:
    content = json.dumps(item, sort_keys=True, ensure_ascii=False)
    names = ("id", "guid", "url", "link")
    return FeedEntry(
        id=next((str(item[name]) for name in names if item.get(name)), hashlib.sha256(content.encode()).hexdigest()),
        title=str(item.get("title") or ""),
        link=str(item.get("url") or item.get("link") or ""),
        content=content,
    )


def _xml_entries(text: str) -> list[FeedEntry] | None:
    if "<!doctype" in text.lower() or "<!entity" in text.lower():
        return None  # no feed needs one, and entities can grow without limit
    try:
        root = ET.fromstring(text)  # noqa: S314 - without a document type there are no entities
    except (ET.ParseError, ValueError):
        return None
    if root.tag == f"{_ATOM}feed":
        return [_atom_entry(node) for node in root.iter(f"{_ATOM}entry")]
    if root.tag == "rss":
        return [_rss_entry(node) for node in root.iter("item")]
    return None


def _atom_entry(node: ET.Element) -> FeedEntry:
    link = next((found.get("href", "") for found in node.iter(f"{_ATOM}link")), "")
    content = _first(node, f"{_ATOM}content", f"{_ATOM}summary")
    updated = _first(node, f"{_ATOM}updated")
    identity = _first(node, f"{_ATOM}id") or link
    return FeedEntry(id=identity, title=_first(node, f"{_ATOM}title"), link=link, content=content or updated)


def _rss_entry(node: ET.Element) -> FeedEntry:
    link = _first(node, "link")
    identity = _first(node, "guid") or link
    return FeedEntry(id=identity, title=_first(node, "title"), link=link, content=_first(node, "description"))


def _first(node: ET.Element, *tags: str) -> str:
    texts = ("".join(found.itertext()).strip() for tag in tags for found in node.iter(tag))
    return next((text for text in texts if text), "")


def _text(response: Response) -> str:
    header = Message()
    header["content-type"] = response.content_type
    charset = header.get_content_charset("utf-8")
    try:
        return response.body.decode(charset, "replace").lstrip("\ufeff")
    except LookupError:
        return response.body.decode("utf-8", "replace").lstrip("\ufeff")


def _key(entry: FeedEntry) -> str:
    words: Sequence[str] = (entry.id, entry.title, entry.link, entry.content)
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:20]


def _cut(text: str) -> tuple[str, bool]:
    encoded = text.encode()
    return (text, False) if len(encoded) <= _MAX_BYTES else (encoded[:_MAX_BYTES].decode("utf-8", "ignore"), True)


def _fitting(entries: Iterable[FeedEntry]) -> tuple[tuple[FeedEntry, ...], bool]:
    taken: list[FeedEntry] = []
    left = _MAX_BYTES
    for entry in entries:
        left -= len(entry.model_dump_json().encode())
        if left < 0:
            return tuple(taken), True
        taken.append(entry)
    return tuple(taken), False

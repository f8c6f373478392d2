"""A JSON feed (version 1.1) that changes when somebody adds an entry: something for a poller to watch."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

VERSION = "https://jsonfeed.org/version/1.1"
SHOWN = 100
FIRST = {
    "id": "1",
    "title": "Lending guideline 1",
    "content_text": "Applications below a score of 620 are refused.",
    "date_published": "2026-01-05T09:00:00+00:00",
}


class NewEntry(BaseModel):
    """What is to be published."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(min_length=1, max_length=200)
    text: str = Field(min_length=1, max_length=5_000)


class Feed:
    """The entries, oldest first, kept in a file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        stored = path.read_bytes() if path.exists() else b""
        whole = stored[: stored.rfind(b"\n") + 1]
        if len(whole) != len(stored):
            os.truncate(path, len(whole))
        self._entries: list[dict[str, Any]] = [FIRST, *map(json.loads, whole.splitlines())]
        self._render()

    def add(self, new: NewEntry, key: str, now: datetime) -> dict[str, Any]:
        """Publish an entry; under a key used before, nothing happens and that entry is answered."""
        for entry in self._entries:
            if entry.get("_key") == key:
                return _public(entry)
        entry = {
            "id": str(len(self._entries) + 1),
            "title": new.title,
            "content_text": new.text,
            "date_published": now.isoformat(),
            "_key": key,
        }
        with self._path.open("ab", buffering=0) as file:
            file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
        self._entries.append(entry)
        self._render()
        return _public(entry)

    def _render(self) -> None:
        self.modified = datetime.fromisoformat(self._entries[-1]["date_published"]).astimezone(UTC)
        items = [_public(entry) for entry in reversed(self._entries[-SHOWN:])]
        document = {"version": VERSION, "title": "Lending guidelines", "items": items}
        self.body = json.dumps(document, ensure_ascii=False, indent=1).encode()
        self.etag = f'"{hashlib.sha256(self.body).hexdigest()[:32]}"'

    @property
    def headers(self) -> dict[str, str]:
        """The validators of the present content."""
        last_modified = format_datetime(self.modified.replace(microsecond=0), usegmt=True)
        return {"ETag": self.etag, "Last-Modified": last_modified, "Cache-Control": "no-cache"}

    def unchanged(self, if_none_match: str | None, if_modified_since: str | None) -> bool:
        """Whether a client with these validators has the present content (RFC 9110: the ETag wins)."""
        if if_none_match is not None:
            known = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
            return self.etag in known or "*" in known
        if if_modified_since is None:
            return False
        try:
            since = parsedate_to_datetime(if_modified_since)
        except ValueError:
            return False
        return since.tzinfo is not None and self.modified.replace(microsecond=0) <= since


def _public(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if not name.startswith("_")}

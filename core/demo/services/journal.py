"""The services' memory of what they did: an append-only file of JSON lines, and what it says.

A line per call: the first call under a key carries the effect out and stores its answer, every later one is
a repeat and gets that answer. A key with another question is refused. A crash can tear the last line at
most; the call it stood for was never answered, so the line is dropped.

A *duplicated* effect is one logical effect (service + reference) that was carried out more than once, under
whatever keys: the very thing that idempotent steps must prevent.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self


class KeyReusedError(Exception):
    """The key was used before, for another question."""


@dataclass(slots=True)
class _Book:
    """What one service did."""

    calls: int = 0
    questions: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    repeated: set[str] = field(default_factory=set)
    effects: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def apply(self, line: dict[str, Any]) -> None:
        self.calls += 1
        key = line["key"]
        if line["kind"] == "repeat":
            self.repeated.add(key)
            return
        self.questions[key], self.answers[key] = line["question"], line["answer"]
        self.effects[line["question"]["reference"]] += 1


class Journal:
    """All services' books over one file. Use from one thread; a call is done when its line is written."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._books: dict[str, _Book] = defaultdict(_Book)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the file, or begin one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_bytes() if path.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.ftruncate(descriptor, len(whole))
        journal = cls(descriptor)
        for line in whole.splitlines():
            entry = json.loads(line)
            journal._books[entry["service"]].apply(entry)
        return journal

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def carry_out(self, service: str, key: str, question: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        """Carry the effect out unless that was done under this key before; the answer that counts.

        Raises ``KeyReusedError`` when the key belongs to another question.
        """
        book = self._books[service]
        if key in book.answers:
            if book.questions[key] != question:
                raise KeyReusedError(key)
            self._write(service, {"kind": "repeat", "key": key})
        else:
            self._write(service, {"kind": "effect", "key": key, "question": question, "answer": answer})
        stored: dict[str, Any] = book.answers[key]
        return stored

    def effects(self) -> dict[str, dict[str, Any]]:
        """Per service: calls, effects, keys called more than once, duplicated effects, and those by reference."""
        return {
            name: {
                "calls": book.calls,
                "effects": sum(book.effects.values()),
                "repeated": len(book.repeated),
                "duplicated_effects": sum(times - 1 for times in book.effects.values()),
                "duplicated": {name: times - 1 for name, times in sorted(book.effects.items()) if times > 1},
            }
            for name, book in sorted(self._books.items())
        }

    def _write(self, service: str, entry: dict[str, Any]) -> None:
        line = {"service": service, **entry}
        # One write, so that a kill leaves the line or nothing: the file outlives the process, not the machine.
        os.write(self._descriptor, json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        self._books[service].apply(line)

"""Limits around the agent, and how text from outside is kept from speaking with the platform's voice.

Three kinds of text reach a model: our instructions, the user's messages, and data (memories, tool answers,
file contents). Data is JSON inside tool answers, or one line each under a heading of the instructions; a
line cannot start a new line, so it cannot pretend to be a heading or an instruction of ours.
"""

from __future__ import annotations

import json
import re
from typing import Any

from core.errors import PayloadTooLarge

MAX_QUESTION = 20_000
"""Characters of a user's message."""

MAX_HISTORY_MESSAGES = 40
MAX_HISTORY_CHARACTERS = 40_000
MAX_TOOL_OUTPUT = 20_000
MAX_TURNS = 12
"""Model calls in one answer."""

MAX_ATTACHMENT_NAME = 120

_CONTROL = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]+")


def check_question(text: str) -> None:
    """Raise ``PayloadTooLarge`` for a message that is too long to be answered well."""
    if len(text) > MAX_QUESTION:
        raise PayloadTooLarge(
            f"Your message has {len(text):,} characters; at most {MAX_QUESTION:,} are taken. "
            "Please attach longer texts as a file.",
            limit=MAX_QUESTION,
        )


def as_line(text: str, limit: int = 500) -> str:
    """Untrusted text as one line of at most ``limit`` characters."""
    line = _CONTROL.sub(" ", text).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def attachment_name(name: str) -> str:
    """A file's name as it is announced to the model: one line, no brackets."""
    return as_line(name.replace("[", "(").replace("]", ")"), MAX_ATTACHMENT_NAME)


def as_tool_output(answer: Any) -> str:
    """A tool's answer as JSON. An answer that is too long is replaced by a note that says so."""
    text = json.dumps(answer, ensure_ascii=False, separators=(",", ":"))
    if len(text) <= MAX_TOOL_OUTPUT:
        return text
    note = f"The answer was too long to be shown ({len(text):,} characters). Ask for less, or for one item."
    return json.dumps({"error": {"code": "payload_too_large", "message": note}})


def trimmed_history(texts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The newest (role, text) pairs that fit the limits, oldest first, beginning with the user."""
    kept: list[tuple[str, str]] = []
    size = 0
    for role, text in reversed(texts[-MAX_HISTORY_MESSAGES:]):
        size += len(text)
        if size > MAX_HISTORY_CHARACTERS:
            break
        kept.append((role, text))
    kept.reverse()
    while kept and kept[0][0] != "user":
        kept.pop(0)
    return kept

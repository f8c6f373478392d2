"""Typed identifiers. A prefix names the kind; the rest sorts by time of creation and cannot be guessed."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import NewType

TenantId = NewType("TenantId", str)
UserId = NewType("UserId", str)
RunId = NewType("RunId", str)
ReviewId = NewType("ReviewId", str)
ScheduleId = NewType("ScheduleId", str)
PollerId = NewType("PollerId", str)
TriggerId = NewType("TriggerId", str)
ThreadId = NewType("ThreadId", str)
MemoryId = NewType("MemoryId", str)
WorkerId = NewType("WorkerId", str)

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u


def _base32(value: int, width: int) -> str:
    digits = []
    for _ in range(width):
        value, digit = divmod(value, 32)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def new_id(prefix: str, now: datetime) -> str:
    """``prefix_`` + 9 characters of time (ms) + 16 random characters (80 bits)."""
    return f"{prefix}_{_base32(int(now.timestamp() * 1000), 9)}{_base32(secrets.randbits(80), 16)}"

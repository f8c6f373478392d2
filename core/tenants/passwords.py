"""Passwords, kept as Argon2id hashes with what RFC 9106 (section 4) recommends where memory is short."""

from __future__ import annotations

from collections.abc import Sequence

from pwdlib.hashers.argon2 import Argon2Hasher

from core.tenants.model import as_bytes

LONGEST = 1_024
"""Characters of a password that count."""

HASHER = Argon2Hasher(time_cost=3, memory_cost=65_536, parallelism=4)
"""64 MiB and a tenth of a second of a core each time: never on an event loop."""


def hashed(password: str) -> str:
    """What is kept of a password."""
    return HASHER.hash(as_bytes(password[:LONGEST]))


def matches(password: str, hashes: Sequence[str]) -> list[bool]:
    """Of which of these it is the password. For no hash at all it takes as long as for one: time tells nothing."""
    secret = as_bytes(password[:LONGEST])
    if not hashes:
        HASHER.hash(secret)
    return [HASHER.verify(secret, one) for one in hashes]

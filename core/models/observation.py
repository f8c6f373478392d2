"""Reads from an endpoint's bytes what a call used and who answered, in either API, streamed or whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.models.model import Tokens

_PREFIX = b"data:"
_LONGEST_LINE = 8_000_000


@dataclass(frozen=True, slots=True)
class Observed:
    """What an answer says about itself. ``tokens`` is None where it does not tell its usage."""

    model: str | None = None
    fingerprint: str | None = None
    tokens: Tokens | None = None


def observe(data: Any) -> Observed:
    """Look at one JSON object: a whole answer, a chunk of one, or a typed event that carries one."""
    if not isinstance(data, Mapping):
        return Observed()
    inner = data.get("response")
    if isinstance(inner, Mapping):
        return observe(inner)
    return Observed(_text(data.get("model")), _text(data.get("system_fingerprint")), _tokens(data.get("usage")))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _tokens(usage: Any) -> Tokens | None:
    if not isinstance(usage, Mapping):
        return None
    details = usage.get("input_tokens_details") or usage.get("prompt_tokens_details") or {}
    return Tokens(
        input=_count(usage.get("input_tokens", usage.get("prompt_tokens"))),
        output=_count(usage.get("output_tokens", usage.get("completion_tokens"))),
        cached=_count(details.get("cached_tokens") if isinstance(details, Mapping) else 0),
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


class StreamObserver:
    """Watches server-sent events go by. Fed with bytes as they come, cut anywhere."""

    def __init__(self) -> None:
        self._rest = b""
        self._digest = hashlib.sha256()
        self.seen = Observed()
        self.events = 0

    @property
    def sha256(self) -> str:
        """Of all bytes until now."""
        return self._digest.hexdigest()

    def feed(self, data: bytes) -> None:
        """Look at the next bytes. A line beyond 8 MB is not looked at; it is still passed on."""
        self._digest.update(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST_LINE:
            self._rest = b""
        for line in lines:
            if line.startswith(_PREFIX):
                self.events += 1
                self._look(line[len(_PREFIX) :].strip())

    def _look(self, text: bytes) -> None:
        # Most events are pieces of text: only those that can add something are parsed.
        if self.seen.model is not None and b'"usage"' not in text:
            return
        try:
            found = observe(json.loads(text))
        except ValueError:
            return
        self.seen = Observed(
            model=found.model or self.seen.model,
            fingerprint=found.fingerprint or self.seen.fingerprint,
            tokens=found.tokens or self.seen.tokens,
        )

    def tokens_so_far(self, prompt_bytes: int) -> Tokens:
        """What to charge for a stream that ended early: the prompt, and about one token for each event."""
        return self.seen.tokens or Tokens(input=-(-prompt_bytes // 4), output=self.events)

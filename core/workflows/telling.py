"""What a run says while it executes: how far it is, text as it is written, values for whoever looks on.

    nothing ──said──► written at once; what follows is kept for 50 ms (after 2 s of talk: 250 ms) ──► written together

Each becomes an event in the run's own log, with its step and attempt, so that what two attempts said is never mixed
up. It is telemetry: a crash loses what is not written yet, a database that is away loses it too, and the text tells at
which ``offset`` it stands, so a gap shows. Nothing here makes a run wait or fail. What a run knows for good is its
steps' results.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import structlog

from core.errors import BailiwickError, InvalidInput
from core.runs.execution import Executing
from core.runs.model import Said
from core.workflows.tools import Records

TEXT, VALUE, PROGRESS = "text", "value", "progress"
MAX_VALUE_BYTES = 8 * 1024
MAX_SAID = 256 * 1024
"""Characters of text, and bytes of values, that are kept of one attempt; the rest of it is cut off."""

_PAUSE_S, _LONG_PAUSE_S = 0.05, 0.25
_QUICK = 40
_LAST_WORDS_S = 2.0

log = structlog.get_logger(__name__)


def heard(said: Iterable[Said]) -> list[tuple[int, int, Any]]:
    """What steps emitted, as (step, attempt, what): values as they came, the text of an attempt where it began."""
    found: dict[tuple[int, int] | int, tuple[int, int, Any]] = {}
    for number, one in enumerate(said):
        if one.kind == PROGRESS:
            continue
        at = (one.data["step"], one.data["attempt"])
        if one.kind == TEXT:
            found[at] = (*at, (found[at][2] if at in found else "") + one.data["text"])
        else:
            found[number] = (*at, one.data["value"])
    return list(found.values())


class Teller:
    """The voice of one execution of a run. ``close`` it at the end."""

    def __init__(self, records: Records, on: Executing) -> None:
        self._records = records
        self._on = on
        self._said: list[Said] = []
        self._progress: dict[str, Any] | None = None
        self._used: dict[tuple[int, int], int] = {}
        self._texts: dict[tuple[int, int], int] = {}
        self._writings = 0
        self._order = asyncio.Lock()
        self._talking: asyncio.Task[None] | None = None

    def progress(self, told: dict[str, Any]) -> None:
        """How far the run is. Of several in a moment the last one counts."""
        self._progress = told
        self._talk()

    def emit(self, step: int, attempt: int, said: Any) -> None:
        """A piece of text, or a JSON value of at most 8 KiB. Raises ``InvalidInput`` for any other."""
        if isinstance(said, str):
            self._text(step, attempt, said)
        else:
            self._value(step, attempt, said)

    async def write(self) -> None:
        """Write what was said until now. A failure loses it."""
        async with self._order:
            if not self._said and self._progress is None:
                return
            said, self._said = self._said, []
            progress, self._progress = self._progress, None
            if progress is not None:
                said.append(Said(PROGRESS, progress))
            self._writings += 1
            try:
                await self._records.tell(self._on, said, progress)
            except BailiwickError as error:
                log.warning("run.not_heard", run_id=self._on.run_id, code=error.code)

    async def close(self) -> None:
        """Write the last words, and leave no task."""
        if self._talking is not None:
            async with self._order:  # never in the middle of writing: what is written then would be lost
                self._talking.cancel()
            await asyncio.wait({self._talking})
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                await self.write()
        except TimeoutError:
            log.warning("run.not_heard", run_id=self._on.run_id, code="timeout")

    def _text(self, step: int, attempt: int, text: str) -> None:
        at = (step, attempt)
        room, cut = self._room(at, len(text))
        if not room and not cut:
            return
        offset = self._texts.get(at, 0)
        self._texts[at] = offset + room
        data: dict[str, Any] = {"step": step, "attempt": attempt, "offset": offset, "text": text[:room]}
        last = self._said[-1] if self._said else None
        if last is not None and last.kind == TEXT and (last.data["step"], last.data["attempt"]) == at:
            data |= {"offset": last.data["offset"], "text": last.data["text"] + data["text"]}
            self._said.pop()
        self._add(TEXT, data, cut)

    def _value(self, step: int, attempt: int, value: Any) -> None:
        try:
            size = len(json.dumps(value, ensure_ascii=False, allow_nan=False).encode())
        except (TypeError, ValueError) as error:
            raise InvalidInput("What a step emits is text or JSON.") from error
        if size > MAX_VALUE_BYTES:
            raise InvalidInput(f"What a step emits has {size} bytes; at most {MAX_VALUE_BYTES} are taken.")
        room, cut = self._room((step, attempt), size)
        if room == size or cut:
            self._add(VALUE, {"step": step, "attempt": attempt, "value": None if cut else value}, cut)

    def _room(self, at: tuple[int, int], size: int) -> tuple[int, bool]:
        """How much of it may still be said, and whether this is where the attempt is cut off."""
        used = self._used.get(at, 0)
        self._used[at] = used + size
        room = max(0, min(size, MAX_SAID - used))
        return room, room < size and used <= MAX_SAID

    def _add(self, kind: str, data: dict[str, Any], cut: bool) -> None:
        self._said.append(Said(kind, data | {"cut": True} if cut else data))
        self._talk()

    def _talk(self) -> None:
        if self._talking is None or self._talking.done():
            self._talking = asyncio.create_task(self._on_and_on(), name="run-tells")

    async def _on_and_on(self) -> None:
        while self._said or self._progress is not None:
            await self.write()
            await asyncio.sleep(_PAUSE_S if self._writings < _QUICK else _LONG_PAUSE_S)

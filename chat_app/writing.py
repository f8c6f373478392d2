"""What runs write, while they write it, for the cards of one conversation.

    unseen ──a card lists it as running──► followed ──it ends or parks, or no card lists it any more──► unseen
                                            │    ▲
                          it cannot be read └────┘ its cards are looked at again, while they list it as running

A follower reads the run's own log (``chat_app.feeds``), from its last 200 events on. So a reload, a cut connection or
another web process shows the same text again: from what is written, never from memory. What is shown is the end of
what one step says, whole each time, so whoever misses a piece has it with the next one. What a run writes that is
another person's alone is not followed. Without Redis or Postgres the text comes late or not at all; the card says
where the run stands all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce

import structlog

from chat_app.feeds import RunFeeds
from core.errors import BailiwickError
from core.runs.log import PAGE, RunLog
from core.runs.model import RunEvent
from core.tenancy import TenantContext

SHOWN = 1_000
"""Characters of a text that are shown: its last ones."""

FOLLOWED = 4
"""Runs of one conversation whose text is followed at once."""

_NEWEST = 2**31 - 1

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Writing:
    """The end of what an attempt of a step has written so far; ``cut``: its beginning is not shown."""

    step: int = 0
    attempt: int = 0
    text: str = ""
    cut: bool = False

    def after(self, event: RunEvent) -> Writing:
        """What is shown once this has happened: of several steps that write at once, one until it is done."""
        data = event.data
        if event.kind == "text":
            return self._heard(data["step"], data["attempt"], data["offset"], data["text"])
        over = event.kind.startswith("step_") and event.kind != "step_started" and data.get("step") == self.step
        return Writing() if over or event.kind == "claimed" else self

    def _heard(self, step: int, attempt: int, offset: int, text: str) -> Writing:
        if self.text and step != self.step:
            return self
        goes_on = (step, attempt) == (self.step, self.attempt)
        whole = self.text + text if goes_on else text
        cut = self.cut if goes_on else offset > 0
        return Writing(step, attempt, whole[-SHOWN:], cut or len(whole) > SHOWN)


class Writings:
    """The texts of the runs that one conversation's cards list as running. ``woken``: there is something to show."""

    def __init__(self, feeds: RunFeeds, run_log: RunLog, woken: Callable[[], None]) -> None:
        self._feeds = feeds
        self._log = run_log
        self._woken = woken
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._hidden: set[str] = set()
        self._told: dict[str, Writing] = {}
        self._unshown: dict[str, Writing] = {}

    def follow(self, ctx: TenantContext, run_ids: Iterable[str]) -> None:
        """Follow these runs, the first few of them that may be read, and no others."""
        wanted = [run_id for run_id in dict.fromkeys(run_ids) if run_id not in self._hidden][:FOLLOWED]
        for run_id in [run_id for run_id in self._tasks if run_id not in wanted]:
            self._tasks.pop(run_id).cancel()
            self._tell(run_id, Writing())
        for run_id in wanted:
            task = self._tasks.get(run_id)
            if task is None or task.done():  # it could not be read for a moment
                self._tasks[run_id] = asyncio.create_task(self._read(ctx, run_id), name="chat-writing")

    def unshown(self) -> dict[str, Writing]:
        """What has changed since the last call, by run; no text: there is nothing to show any more."""
        found, self._unshown = self._unshown, {}
        return found

    async def close(self) -> None:
        """Follow nothing any more."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, ctx: TenantContext, run_id: str) -> None:
        try:
            page = await self._log.page(ctx, run_id, _NEWEST, 1)
            if self._log.hidden(ctx, page):
                self._hidden.add(run_id)
                return
            after, now = max(0, page.newest - PAGE), Writing()
            async with self._feeds.following(ctx, run_id, after) as run:
                async for told in run.feed.follow(after):
                    now = reduce(Writing.after, (one.event for one in told), now)
                    self._tell(run_id, now)
        except BailiwickError as error:
            log.warning("chat.writing_not_followed", run_id=run_id, code=error.code)

    def _tell(self, run_id: str, writing: Writing) -> None:
        if writing != self._told.get(run_id, Writing()):
            self._told[run_id] = self._unshown[run_id] = writing
            self._woken()

"""A run's feed: what its followers are told, and when they are sent away."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from chat_app.feeds import RunFeed
from core.clock import FakeClock
from core.runs.log import PAGE, LogPage, RunLog
from core.runs.model import RunEvent, RunState
from core.tenancy import TenantContext

CLOCK = FakeClock()


class LongLog:
    """The log of a run that has ended: a whole page, and one event more, which is read when ``open`` is set."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def page(self, ctx: TenantContext, run_id: str, after_seq: int, limit: int = PAGE) -> LogPage:
        if after_seq:
            await self.open.wait()
        numbers = range(after_seq + 1, min(after_seq + limit, PAGE + 1) + 1)
        events = tuple(RunEvent(number, CLOCK.now(), "said", {}) for number in numbers)
        return LogPage(RunState.SUCCEEDED, PAGE + 1, None, "loan-approval", events)


async def test_who_has_read_a_whole_page_of_an_ended_run_waits_for_what_is_left_of_it() -> None:
    log = LongLog()
    feed = RunFeed(cast(RunLog, log), cast(TenantContext, None), "run_1", CLOCK)
    reader = asyncio.create_task(feed.read(0))
    told = feed.follow(0)
    first = [one.event.seq for one in await anext(told)]
    rest: asyncio.Task[Any] = asyncio.create_task(cast(Any, anext(told)))
    for _ in range(5):
        await asyncio.sleep(0)
    assert (first, rest.done()) == (list(range(1, PAGE + 1)), False)
    log.open.set()
    assert [one.event.seq for one in await rest] == [PAGE + 1]
    assert [one async for one in told] == []
    reader.cancel()

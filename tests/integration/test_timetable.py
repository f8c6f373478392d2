"""The alarm clock by itself: what rings, what does not any more, and what happens to a firing that fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from core.clock import SystemClock
from core.errors import Unavailable
from core.ids import TenantId
from core.schedules.model import Due, Upcoming
from scheduler.timetable import AT_ONCE, AT_ONCE_PER_TENANT, Timetable

CLOCK = SystemClock()
SOON = timedelta(milliseconds=50)
HORIZON = timedelta(minutes=10)


def due(number: int, after: timedelta = SOON, tenant: str = "bank") -> Due:
    return Due(Upcoming.SCHEDULE, f"sch_{number}", TenantId(tenant), CLOCK.now() + after)


@dataclass(slots=True)
class Firings:
    """What was fired, and what to answer."""

    answer: Callable[[Due], Awaitable[datetime | None]]
    fired: list[str] = field(default_factory=list)
    rang: asyncio.Event = field(default_factory=asyncio.Event)

    async def fire(self, what: Due) -> datetime | None:
        """As the leader's duties would."""
        self.fired.append(what.id)
        self.rang.set()
        return await self.answer(what)

    async def until(self, count: int) -> None:
        """So many have been fired."""
        async with asyncio.timeout(10):
            while len(self.fired) < count:
                self.rang.clear()
                await self.rang.wait()


@asynccontextmanager
async def ticking(answer: Callable[[Due], Awaitable[datetime | None]]) -> AsyncIterator[tuple[Timetable, Firings]]:
    firings = Firings(answer)
    timetable = Timetable(firings.fire, CLOCK)
    timetable.start()
    try:
        yield timetable, firings
    finally:
        timetable.stop()


def horizon() -> datetime:
    return CLOCK.now() + HORIZON


async def never(_: Due) -> datetime | None:
    return None


async def test_what_is_due_rings_once_also_when_its_time_has_long_passed() -> None:
    async with ticking(never) as (timetable, firings):
        timetable.set([due(1), due(2, timedelta(days=-3))], horizon())
        await firings.until(2)
        assert sorted(firings.fired) == ["sch_1", "sch_2"]
        assert timetable.next_at() is None


async def test_what_a_reconciliation_no_longer_names_does_not_ring_and_what_it_moves_rings_then() -> None:
    async with ticking(never) as (timetable, firings):
        timetable.set([due(1, timedelta(seconds=0.4)), due(2, timedelta(minutes=5))], horizon())
        timetable.set([due(2), due(3, timedelta(seconds=0.6))], horizon())
        await firings.until(2)
        assert firings.fired == ["sch_2", "sch_3"]


async def test_a_firing_says_when_to_look_again_and_only_within_the_horizon() -> None:
    answers = iter([SOON, SOON, HORIZON * 2])

    async def again(_: Due) -> datetime | None:
        return CLOCK.now() + next(answers)

    async with ticking(again) as (timetable, firings):
        timetable.set([due(1)], horizon())
        await firings.until(3)
        await asyncio.sleep(0)
        assert timetable.next_at() is None


async def test_an_edit_that_is_read_while_a_firing_is_under_way_is_not_lost() -> None:
    edited = asyncio.Event()

    async def slow(_: Due) -> datetime | None:
        await edited.wait()
        return None

    async with ticking(slow) as (timetable, firings):
        timetable.set([due(1)], horizon())
        await firings.until(1)
        timetable.set([due(1)], horizon())
        assert len(firings.fired) == 1, "the same schedule is not fired twice at once"
        edited.set()
        await firings.until(2)


async def test_a_failed_firing_is_tried_again_later_and_reconciliations_do_not_hurry_it() -> None:
    async def broken(_: Due) -> datetime | None:
        raise Unavailable("Postgres does not answer.")

    async with ticking(broken) as (timetable, firings):
        row = due(1)
        timetable.set([row], horizon())
        await firings.until(1)
        await asyncio.sleep(0)
        for _ in range(3):
            timetable.set([row], horizon())
        retry_at = timetable.next_at()
        assert retry_at is not None
        assert row.due_at <= retry_at - timedelta(seconds=2) <= CLOCK.now()
        await firings.until(2)


async def test_a_slow_tenant_takes_few_of_the_places() -> None:
    done = asyncio.Event()
    under_way: list[str] = []

    async def slow(what: Due) -> datetime | None:
        under_way.append(what.tenant_id)
        await done.wait()
        return None

    async with ticking(slow) as (timetable, firings):
        many = [due(number) for number in range(10)]
        others = [due(100 + number, SOON * 4, f"tenant-{number}") for number in range(20)]
        timetable.set([*many, *others], horizon())
        await firings.until(AT_ONCE)
        assert under_way.count("bank") == AT_ONCE_PER_TENANT
        assert len(under_way) == AT_ONCE
        done.set()
        await firings.until(30)

"""Acts repeated at will: the first is written, the rest counted, nothing is lost and nothing fills the disk."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from core.audit.floods import Floods, Key, Write
from core.errors import Unavailable

MOMENT_S = 0.01


class Book:
    """Where counts are written; tells when."""

    def __init__(self) -> None:
        self.entries: defaultdict[Key, list[int]] = defaultdict(list)
        self.grown = asyncio.Event()

    def of(self, key: Key) -> Write:
        """Writes under a key."""

        async def write(count: int) -> None:
            self.entries[key].append(count)
            self.grown.set()

        return write


@given(st.lists(st.sampled_from([("bank", "eve"), ("bank", "ada"), ("union", "eve")]), max_size=200))
async def test_every_act_is_counted_once_and_each_actor_has_two_entries_at_most(acts: list[Key]) -> None:
    book, floods = Book(), Floods()
    for key in acts:
        floods.tell(key, book.of(key))
    await floods.settled()
    for key in set(acts):
        assert sum(book.entries[key]) == acts.count(key)
        assert book.entries[key][0] == 1
        assert len(book.entries[key]) <= 2
    assert not set(book.entries) - set(acts)


async def test_the_first_is_written_at_once_the_others_when_the_time_is_over_and_then_nothing_is_left() -> None:
    book, floods, key = Book(), Floods(MOMENT_S), ("bank", "eve")
    async with asyncio.timeout(10):
        before = asyncio.all_tasks()
        for _ in range(50):
            floods.tell(key, book.of(key))
        while len(book.entries[key]) < 2:
            book.grown.clear()
            await book.grown.wait()
        assert book.entries[key] == [1, 49]
        while counting := asyncio.all_tasks() - before:
            await asyncio.wait(counting)
        floods.tell(key, book.of(key))
        await floods.settled()
    assert book.entries[key] == [1, 49, 1]


async def test_entries_are_written_one_after_the_other_in_the_order_of_the_acts() -> None:
    floods, order, writing = Floods(), list[str](), 0

    def slow(name: str, turns: int) -> Write:
        async def write(count: int) -> None:
            nonlocal writing
            writing += 1
            assert writing == 1
            for _ in range(turns):
                await asyncio.sleep(0)
            writing -= 1
            order.append(f"{name} {count}")

        return write

    for name, turns in (("refuse", 5), ("lock", 1), ("refuse", 5), ("lock", 1), ("ask", 0)):
        floods.tell((name,), slow(name, turns))
    await floods.settled()
    assert order == ["refuse 1", "lock 1", "ask 1", "refuse 1", "lock 1"]


async def test_what_waits_when_the_database_is_away_is_lost_at_once_and_told_by_its_number() -> None:
    book, floods = Book(), Floods()

    async def away(count: int) -> None:
        raise Unavailable("no database")

    with capture_logs() as told:
        floods.tell(("bank", "eve"), away)
        floods.tell(("bank", "ada"), book.of(("bank", "ada")))
        floods.tell(("union", "eve"), book.of(("union", "eve")))
        await floods.settled()
    assert not book.entries
    assert [(one["event"], one["count"]) for one in told] == [("audit.not_written", 3)]
    floods.tell(("bank", "ada"), book.of(("bank", "ada")))
    await floods.settled()
    assert book.entries == {("bank", "ada"): [1]}


async def test_an_entry_that_cannot_be_written_stops_nobody() -> None:
    book, floods = Book(), Floods()

    async def broken(count: int) -> None:
        raise ConnectionError(str(count))

    floods.tell(("bank", "eve"), broken)
    floods.tell(("bank", "ada"), book.of(("bank", "ada")))
    await floods.settled()
    assert book.entries == {("bank", "ada"): [1]}

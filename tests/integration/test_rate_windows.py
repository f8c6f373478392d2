"""Rate limits against the real server, in whatever order callers come: never too many calls, never one too few."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.embedded.redis import Redis
from core.ids import TenantId
from core.redis.connection import Connection
from core.redis.limits import KEPT_FREE_S, Limits
from core.tenancy import ActorKind, Policy, RateLimit, TenantContext

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
SECOND = 1_000_000
BANK = TenantContext(
    tenant_id=TenantId("regional-bank"),
    user_id=None,
    actor_kind=ActorKind.SYSTEM,
    actor_id="test",
    scopes=frozenset(),
    policy=Policy(),
    policy_version=1,
    org_id="regional-bank",
    region="us-east-1",
)

# The server forgets calls when a window has passed by its own clock: none is so short that a test might outlast it.
rates = st.builds(RateLimit, limit=st.integers(1, 4), window_s=st.sampled_from([20, 40, 90]))
pauses_us = st.one_of(st.just(0), st.integers(1, 60 * SECOND), st.integers(SECOND, 200 * SECOND))
# Who asks, if anybody in particular; through which process; and how long after the one before.
asks = st.tuples(pauses_us, st.sampled_from([None, None, "a", "b", "c", "d", "e"]), st.integers(0, 2))


@dataclass(frozen=True, slots=True)
class Processes:
    """Several processes that share a server; a name for the limit of each history."""

    runner: asyncio.Runner
    limits: list[Limits]
    names: Iterator[str]

    def take(self, process: int, name: str, rate: RateLimit, now_us: int, who: str | None) -> int:
        """What one of them is told, in microseconds, when it asks at this time of its own clock."""
        now = NOW + timedelta(microseconds=now_us)
        wait_us = round(self.runner.run(self.limits[process].take(BANK, name, rate, now, holder=who)) * SECOND)
        assert wait_us >= 0
        return wait_us


@asynccontextmanager
async def _connections(url: str) -> AsyncIterator[list[Connection]]:
    connections = [Connection.open(url, region="us-east-1") for _ in range(3)]
    yield connections
    for connection in connections:
        await connection.close()


@pytest.fixture(scope="module")
def processes(redis_server: Redis) -> Iterator[Processes]:
    """Three processes, on a logical database that only this module uses."""
    with asyncio.Runner() as runner:
        connecting = _connections(redis_server.url.removesuffix("/0") + "/0")
        connections = runner.run(connecting.__aenter__())
        yield Processes(runner, [Limits(each) for each in connections], (f"limit-{n}" for n in itertools.count()))
        runner.run(connecting.__aexit__(None, None, None))


def assert_no_window_holds_more(rate: RateLimit, made_us: list[int], within_us: int) -> None:
    """``made_us``: times of the calls in their order."""
    for first, beyond in zip(made_us, made_us[rate.limit :], strict=False):
        assert beyond - first >= within_us


@settings(deadline=None, max_examples=80)
@given(rate=rates, history=st.lists(asks, min_size=5, max_size=40))
def test_no_window_holds_more_calls_than_allowed_and_no_call_waits_that_could_be_made(
    processes: Processes, rate: RateLimit, history: list[tuple[int, str | None, int]]
) -> None:
    name, now, made, told = next(processes.names), 0, list[int](), dict[str, int]()
    window, kept_free = rate.window_s * SECOND, min(rate.window_s, KEPT_FREE_S) * SECOND
    for pause, who, process in history:
        now += pause
        wait = processes.take(process, name, rate, now, who)
        if wait == 0:
            made.append(now)
            told.pop(who or "", None)
            continue
        in_window = sum(1 for time in made if time > now - window)
        kept = sum(1 for holder, time in told.items() if holder != who and now - kept_free <= time <= now)
        assert in_window + kept >= rate.limit
        if who is not None:
            told[who] = now + wait
    assert_no_window_holds_more(rate, made, window)


@settings(deadline=None, max_examples=60)
@given(
    rate=rates,
    history=st.lists(asks, min_size=5, max_size=40),
    ahead_us=st.lists(st.integers(-20 * SECOND, 20 * SECOND), min_size=3, max_size=3),
)
def test_with_clocks_that_differ_a_window_is_shorter_by_their_difference_at_most(
    processes: Processes, rate: RateLimit, history: list[tuple[int, str | None, int]], ahead_us: list[int]
) -> None:
    name, now, made = next(processes.names), 0, list[int]()
    for pause, who, process in history:
        now += pause
        if processes.take(process, name, rate, now + ahead_us[process], who) == 0:
            made.append(now)
    assert_no_window_holds_more(rate, made, rate.window_s * SECOND - (max(ahead_us) - min(ahead_us)))


@settings(deadline=None, max_examples=60)
@given(rate=rates, pauses=st.lists(pauses_us, min_size=1, max_size=20))
def test_callers_that_come_when_they_are_told_are_served_in_order_and_as_early_as_can_be(
    processes: Processes, rate: RateLimit, pauses: list[int]
) -> None:
    name, window = next(processes.names), rate.window_s * SECOND
    arrivals = list(itertools.accumulate(pauses))
    earliest: list[int] = []
    for number, arrival in enumerate(arrivals):
        earliest.append(arrival if number < rate.limit else max(arrival, earliest[number - rate.limit] + window))
    coming = [(arrival, number) for number, arrival in enumerate(arrivals)]
    served: dict[int, int] = {}
    while coming:
        now, number = heapq.heappop(coming)
        wait = processes.take(number % 3, name, rate, now, f"caller-{number}")
        if wait == 0:
            served[number] = now
        else:
            assert now == arrivals[number], "whoever comes when told is served"
            heapq.heappush(coming, (now + wait, number))
    assert [served[number] for number in range(len(arrivals))] == earliest


@settings(deadline=None, max_examples=60)
@given(
    rate=rates,
    late_us=st.lists(st.integers(0, 400 * SECOND), min_size=1, max_size=12),
    absent=st.sets(st.integers(0, 11)),
)
def test_however_late_callers_come_all_who_come_are_served_and_those_who_stay_away_block_nobody(
    processes: Processes, rate: RateLimit, late_us: list[int], absent: set[int]
) -> None:
    name, made, asked = next(processes.names), list[int](), 0
    coming = [(0, number) for number in range(len(late_us))]
    while coming:
        now, number = heapq.heappop(coming)
        wait = processes.take(number % 3, name, rate, now, f"caller-{number}")
        asked += 1
        if wait == 0:
            made.append(now)
        elif number not in absent:
            heapq.heappush(coming, (now + wait + late_us[number], number))
        assert asked <= 20 * len(late_us), "nobody asks for ever"
    assert_no_window_holds_more(rate, made, rate.window_s * SECOND)
    assert len(made) >= len(set(range(len(late_us))) - absent)

"""core.redis against the real server: with it, without it, and across its restart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from core import shared_breaker
from core.breaker import EndpointBreaker
from core.clock import FakeClock
from core.embedded.process import Reaper
from core.embedded.redis import Redis
from core.errors import Unavailable
from core.ids import TenantId
from core.redis.bus import RESYNC, Bus
from core.redis.cache import Cache
from core.redis.limits import Limits
from core.redis.reports import KEPT, EndpointReports
from core.shared_breaker import Report, SharedBreaker
from core.tenancy import ActorKind, Policy, RateLimit, TenantContext
from tests.fixtures.cutting import cutting
from tests.fixtures.ports import free_port_base

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
REGION = "us-east-1"
BANK = TenantContext(
    tenant_id=TenantId("regional-bank"),
    user_id=None,
    actor_kind=ActorKind.SYSTEM,
    actor_id="test",
    scopes=frozenset(),
    policy=Policy(),
    policy_version=1,
    org_id="regional-bank",
    region=REGION,
)
UNION = replace(BANK, tenant_id=TenantId("credit-union"))


@pytest.fixture
def url(redis_server: Redis) -> str:
    """The session's server, a logical database that only this module uses."""
    return redis_server.url.removesuffix("/0") + "/63"


@pytest.fixture
async def bus(url: str) -> AsyncIterator[Bus]:
    """A bus on an empty database."""
    bus = await Bus.open(url, FakeClock(NOW), region=REGION)
    await bus.connection.client.flushdb()
    yield bus
    await bus.close()


@pytest.fixture
async def own_server(server_home: Path, reaper: Reaper) -> AsyncIterator[Redis]:
    """A server this test may stop and start; not running yet."""
    port = free_port_base()
    server = Redis(server_home / f"redis-{port}", port=port, password="own", reaper=reaper)
    yield server
    await server.stop()


async def test_a_signal_wakes_every_process_that_listens_and_no_other_topic(bus: Bus, url: str) -> None:
    other = await Bus.open(url, FakeClock(NOW), region=REGION)
    elsewhere = await Bus.open(url, FakeClock(NOW), region="eu-west-1")
    async with (
        bus.listen("workers") as here,
        other.listen("workers", "scheduler") as there,
        bus.listen("scheduler") as quiet,
        elsewhere.listen("workers") as abroad,
    ):
        await bus.signal("workers")
        assert await here.wait(5)
        assert await there.wait(5)
        assert not await quiet.wait(0.05)
        assert not await abroad.wait(0.05), "another region on the same server must not hear it"
    await other.close()
    await elsewhere.close()


async def test_a_signal_sent_between_two_waits_is_kept_and_several_count_as_one(bus: Bus) -> None:
    async with bus.listen("workers") as signals, bus.listen("last") as last:
        for topic in ("workers", "workers", "last"):
            await bus.signal(topic)
        assert await last.wait(5)  # they come in their order: both others are here
        assert await signals.wait(5)
        assert not await signals.wait(0.05)


async def test_listeners_that_come_and_go_at_once_never_lose_the_subscription(bus: Bus) -> None:
    async def come_and_go() -> None:
        for _ in range(20):
            async with bus.listen("workers"):
                pass

    async def stay() -> None:
        for _ in range(20):
            async with bus.listen("workers") as signals:
                await bus.signal("workers")
                assert await signals.wait(5)

    await asyncio.gather(come_and_go(), stay(), come_and_go())


async def test_events_reach_the_screens_of_their_tenant_only(bus: Bus) -> None:
    async with bus.subscribe(BANK.tenant_id) as bank, bus.subscribe(UNION.tenant_id) as union:
        await bus.publish(BANK.tenant_id, "run", {"run_id": "run_1", "state": "queued"})
        await bus.publish(UNION.tenant_id, "run", {"run_id": "run_2", "state": "failed"})
        event = await asyncio.wait_for(anext(bank), 5)
        assert (event.kind, event.data, event.at) == ("run", {"run_id": "run_1", "state": "queued"}, NOW)
        assert (await asyncio.wait_for(anext(union), 5)).data["run_id"] == "run_2"


async def test_a_reader_that_is_too_slow_is_told_to_read_again(bus: Bus) -> None:
    async with bus.subscribe(BANK.tenant_id) as slow, bus.subscribe(BANK.tenant_id) as quick:
        for number in range(1_001):
            await bus.publish(BANK.tenant_id, "run", {"number": number})
            assert (await asyncio.wait_for(anext(quick), 5)).data["number"] == number
        assert (await asyncio.wait_for(anext(slow), 5)).kind == RESYNC


async def test_the_bus_survives_a_restart_and_tells_its_listeners_that_they_may_have_missed_something(
    own_server: Redis,
) -> None:
    bus = await Bus.open(own_server.url, FakeClock(NOW), region=REGION)
    assert not await bus.healthy()
    assert bus.hears(), "nobody listens yet"
    async with bus.listen("workers") as signals, bus.subscribe(BANK.tenant_id) as events:
        assert not bus.hears()
        await bus.signal("workers")
        assert await signals.wait(5), "without Redis a signal reaches the listeners of its own process"
        assert not await signals.wait(60), "without Redis a wait ends early, so that its caller looks for itself"
        await own_server.start()
        async with asyncio.timeout(30):
            while not await signals.wait(30):
                """Each wait ends early, until a listener that waited in vain is woken because Redis has appeared."""
        assert (await asyncio.wait_for(anext(events), 5)).kind == RESYNC
        assert bus.hears()
        for _ in range(2):
            await own_server.stop()
            await own_server.start()
            assert (await asyncio.wait_for(anext(events), 10)).kind == RESYNC
            while not await bus.healthy():
                await signals.wait(0.1)
            async with asyncio.timeout(10):
                delivered = False
                while not delivered:
                    await bus.publish(BANK.tenant_id, "run", {})
                    delivered = (await anext(events)).kind == "run"
    await bus.close()


async def test_what_only_its_sender_could_not_send_is_told_late_to_those_who_listened_all_the_time(
    bus: Bus, url: str
) -> None:
    at, port = free_port_base(), urlsplit(url).port
    assert port is not None
    sender = await Bus.open(url.replace(f":{port}", f":{at}"), FakeClock(NOW), region=REGION)
    async with bus.listen("workers") as signals, bus.subscribe(BANK.tenant_id) as events:
        await sender.signal("workers")
        await sender.publish(BANK.tenant_id, "run", {"run_id": "run_1"})
        assert not await signals.wait(0.05)
        async with cutting(port, after=2**30, at=at):
            assert await signals.wait(10)
            assert (await asyncio.wait_for(anext(events), 10)).kind == RESYNC
            assert not await signals.wait(0.05), "once"
            await sender.close()


async def test_a_limit_allows_its_calls_in_any_window_and_not_one_more(bus: Bus) -> None:
    limits, rate = Limits(bus.connection), RateLimit(limit=5, window_s=100)
    assert [await limits.take(BANK, "credit-bureau", rate, NOW) for _ in range(4)] == [0.0] * 4
    assert await limits.take(BANK, "credit-bureau", rate, NOW + timedelta(seconds=60)) == 0.0
    assert await limits.take(BANK, "credit-bureau", rate, NOW + timedelta(seconds=60)) == 40.0
    assert await limits.take(BANK, "credit-bureau", rate, NOW + timedelta(seconds=99)) == 1.0
    again = [await limits.take(BANK, "credit-bureau", rate, NOW + timedelta(seconds=100)) for _ in range(5)]
    assert again == [0.0] * 4 + [60.0], "four calls have left the window, the fifth is in it until 160 s"
    assert await limits.take(UNION, "credit-bureau", rate, NOW) == 0.0, "tenants do not share a limit"
    assert await limits.take(BANK, "identity", rate, NOW) == 0.0, "nor do names"


async def test_a_changed_limit_acts_at_once_and_remembers_the_calls_that_were_made(bus: Bus) -> None:
    limits = Limits(bus.connection)

    async def calls(limit: int, after_s: int) -> int:
        rate, now = RateLimit(limit=limit, window_s=100), NOW + timedelta(seconds=after_s)
        return [await limits.take(BANK, "bureau", rate, now) for _ in range(10)].count(0.0)

    assert [await calls(3, 0), await calls(7, 10), await calls(2, 20)] == [3, 4, 0]
    assert [await calls(2, 109), await calls(2, 110)] == [0, 2]


async def test_those_who_wait_are_told_a_call_of_their_own_and_are_not_overtaken(bus: Bus) -> None:
    limits, rate = Limits(bus.connection), RateLimit(limit=2, window_s=20)

    async def take(after_s: int, holder: str | None = None) -> float:
        return await limits.take(BANK, "bureau", rate, NOW + timedelta(seconds=after_s), holder=holder)

    assert [await take(0, "a"), await take(5, "b"), await take(5, "c"), await take(5, "d")] == [0.0, 0.0, 15.0, 20.0]
    assert await take(5, "e") == 35.0
    assert await take(9, "d") == 16.0, "asking early changes nothing"
    assert await take(20) == 25.0, "the call is kept for the one who was told of it"
    assert [await take(20, "c"), await take(20, "d"), await take(25, "d")] == [0.0, 5.0, 0.0]
    assert await take(40) == 5.0, "e comes first, and then a call is free when d's has left the window"
    assert await take(41, "e") == 0.0, "late, and still served"
    assert await take(45) == 0.0


async def test_a_call_that_nobody_fetches_is_given_to_others_after_a_while(bus: Bus) -> None:
    limits, rate = Limits(bus.connection), RateLimit(limit=1, window_s=100)

    async def take(after_s: int, holder: str | None = None) -> float:
        return await limits.take(BANK, "bureau", rate, NOW + timedelta(seconds=after_s), holder=holder)

    assert [await take(0), await take(0, "gone"), await take(0, "late")] == [0.0, 100.0, 200.0]
    assert await take(160) > 0
    assert await take(161) == 0.0
    assert await take(200, "late") == 161.0, "behind the one ahead of it, who may still come"
    assert await take(700, "late") == 0.0
    calls, line, told = bus.connection.keys.limit(BANK.tenant_id, "bureau")
    assert await take(801, "last") == 0.0
    client = bus.connection.client
    assert [await client.llen(calls), await client.zcard(line), await client.zcard(told)] == [1, 0, 0]
    assert 0 < await client.pttl(calls) <= 100_000


async def test_a_call_made_by_a_clock_that_is_behind_leaves_the_window_no_earlier_than_those_before_it(
    bus: Bus,
) -> None:
    limits, rate = Limits(bus.connection), RateLimit(limit=2, window_s=100)

    async def take(clock_s: int, holder: str) -> float:
        return await limits.take(BANK, "bureau", rate, NOW + timedelta(seconds=clock_s), holder=holder)

    assert [await take(50, "a"), await take(0, "b")] == [0.0, 0.0]
    assert [await take(60, "c"), await take(60, "d"), await take(0, "e")] == [90.0, 90.0, 250.0]


async def test_a_hundred_callers_at_once_make_exactly_as_many_calls_as_are_allowed(bus: Bus) -> None:
    limits, rate = Limits(bus.connection), RateLimit(limit=7, window_s=3600)
    waits = await asyncio.gather(*(limits.take(BANK, "bureau", rate, NOW) for _ in range(100)))
    assert waits.count(0.0) == 7


async def test_the_cache_keeps_values_per_tenant_and_space_and_for_their_time(bus: Bus) -> None:
    cache = Cache(bus.connection)
    await cache.set(BANK, "model", "prompt", "answer", ttl_s=60)
    assert await cache.get(BANK, "model", "prompt") == "answer"
    assert await cache.get(UNION, "model", "prompt") is None
    assert await cache.get(BANK, "other", "prompt") is None
    name = bus.connection.keys.cache(BANK.tenant_id, "model", "prompt")
    assert 0 < await bus.connection.client.pttl(name) <= 60_000
    await cache.set(BANK, "model", "big", "x" * 1_000_001, ttl_s=60)
    assert await cache.get(BANK, "model", "big") is None


async def test_without_redis_limits_refuse_and_the_cache_misses_quickly(own_server: Redis) -> None:
    bus = await Bus.open(own_server.url, FakeClock(NOW), region=REGION)
    cache, limits = Cache(bus.connection), Limits(bus.connection)
    async with asyncio.timeout(5):
        for _ in range(200):
            await cache.set(BANK, "model", "prompt", "answer", ttl_s=60)
            assert await cache.get(BANK, "model", "prompt") is None
            with pytest.raises(Unavailable):
                await limits.take(BANK, "bureau", RateLimit(limit=1, window_s=1), NOW)
    await bus.close()


PAUSE_S = 0.05


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stalls for a moment is no Redis that is gone."""
    monkeypatch.setattr(shared_breaker, "PATIENCE_S", 20.0)


class Ahead:
    """Seconds of real time, and those that a test skips."""

    def __init__(self) -> None:
        self.skipped_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.skipped_s


def caller(bus: Bus, pause_s: float = PAUSE_S, now_s: Callable[[], float] = time.monotonic) -> SharedBreaker:
    """A process that has just started, and will call an endpoint."""
    return SharedBreaker("bureau", EndpointReports(bus.connection), now_s, lambda: EndpointBreaker(pause_s=pause_s))


async def fail(process: SharedBreaker, tenant: str) -> bool:
    """Whether a call went out; it is not answered, and that is told."""
    if not await process.admit(tenant):
        return False
    process.failed(tenant)
    await process.settled()
    return True


@pytest.mark.usefixtures("patient")
async def test_processes_that_come_later_know_which_endpoint_fails_and_one_tries_it_for_all(bus: Bus, url: str) -> None:
    other = await Bus.open(url, FakeClock(NOW), region=REGION)
    spread = [
        await fail(caller(one, 60), tenant) for tenant in ("a", "b") for one in (bus, other, bus, other, bus, other)
    ]
    assert spread == [True] * 5 + [False] + [True] * 5 + [False]
    assert not await caller(other, 60).admit("c")
    assert await SharedBreaker("another", EndpointReports(other.connection)).admit("c")

    async with asyncio.timeout(20):
        while not await (trying := caller(bus)).admit("c"):
            """Until the pause is over, of which each process has its own idea here: a short one."""
        assert [await caller(other).admit(tenant) for tenant in "abc"] == [False] * 3
        trying.answered("c")
        await trying.settled()
    assert [await caller(other, 60).admit(tenant) for tenant in "abc"] == [True] * 3
    await other.close()


async def test_what_is_known_of_an_endpoint_is_bounded_and_forgotten_after_a_while(bus: Bus) -> None:
    reports = EndpointReports(bus.connection)
    told = [Report(f"tenant-{number}", number % 2 == 0, number / 8, number % 3 == 0) for number in range(KEPT + 20)]
    known = await reports.exchange("bureau", told)
    assert [(one.tenant, one.works, one.probe) for one in known] == [(o.tenant, o.works, o.probe) for o in told[-KEPT:]]
    assert all(0 <= one.ago_s - mine.ago_s < 5 for one, mine in zip(known, told[-KEPT:], strict=True))
    (name,) = [key async for key in bus.connection.client.scan_iter()]
    assert 0 < await bus.connection.client.pttl(name) <= 600_000


@pytest.mark.usefixtures("patient")
async def test_without_redis_each_process_finds_failing_endpoints_by_itself_and_tells_it_later(
    own_server: Redis,
) -> None:
    now_s = Ahead()
    await own_server.start()
    buses = [await Bus.open(own_server.url, FakeClock(NOW), region=REGION) for _ in range(2)]
    before, after = caller(buses[0], 60, now_s), caller(buses[1], 60, now_s)
    assert [await fail(before, tenant) for tenant in [*"aaaaa", *"bbbb"]] == [True] * 9
    await own_server.stop()
    async with asyncio.timeout(10):
        assert await fail(before, "b")
        assert not await before.admit("c"), "it goes on from what it knew"
        assert [await fail(after, "c") for _ in range(6)] == [True] * 5 + [False], "and learns from its own calls"
    await own_server.start()
    for bus in buses:
        async with asyncio.timeout(10), bus.listen("workers") as signals:
            while not await bus.healthy():
                await signals.wait(0.1)
    await buses[0].connection.client.flushdb()
    now_s.skipped_s = 20.0
    assert await after.admit("d"), "what it tells now is one tenant's trouble"
    assert await before.admit("d"), "and what was told before the loss has to be learned again"
    assert [await fail(before, "b") for _ in range(5)] == [True] * 4 + [False], (
        "its last failure was not told until now"
    )
    assert not await caller(buses[1], 60, now_s).admit("d")
    for bus in buses:
        await bus.close()

"""Pollers against a real server: what is asked, what starts a run, and what happens when nobody answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from core.clock import FakeClock
from core.errors import Conflict, Forbidden, InvalidInput, NotFound, WorkflowUnknown
from core.http import AddressRefused, guarded_client
from core.redis.bus import Bus
from core.redis.limits import Limits
from core.runs.model import RunView
from core.schedules.model import PollerView, PollStatus
from core.schedules.pollers import PollerService
from core.schedules.service import FIRING
from core.settings import Settings
from core.tenancy import ActorKind, Policy, RateLimit, Scope, TenantContext
from core.workflows.recheck import feed_changed
from core.workflows.registry import Registry
from scheduler.pollers import Lookout
from tests.fixtures import sample_workflows
from tests.fixtures.feed import Feed, serving_feed
from tests.fixtures.work import Work, work_in

START = datetime(2026, 1, 5, 9, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class House:
    """The rooms, the pollers in them, and who looks."""

    work: Work
    pollers: PollerService
    lookout: Lookout
    bank: TenantContext
    feed: Feed

    async def create(self, **given: object) -> str:
        """A poller of the bank that looks every minute."""
        values = {"name": "Rates", "url": self.feed.url, "workflow": "feed-changed", "interval_s": 60} | given
        return (await self.pollers.create(self.bank, **values)).poller_id  # type: ignore[arg-type]

    async def look(self, poller_id: str, after_s: float = 60) -> PollerView:
        """Time passes, the leader looks; the poller afterwards."""
        self.work.clock.advance(after_s)
        ctx = await self.work.tenants.context_for(
            self.bank.tenant_id, actor_kind=ActorKind.SCHEDULER, actor_id=poller_id, scopes=FIRING
        )
        again = await self.lookout.look(ctx, poller_id)
        view = await self.pollers.get(self.bank, poller_id)
        assert again == view.next_at
        return view

    async def runs(self) -> list[RunView]:
        """The bank's runs, oldest first."""
        return list(reversed((await self.work.runs.list(self.bank))[0]))


@pytest.fixture
def feed() -> Iterator[Feed]:
    with serving_feed() as feed:
        yield feed


@pytest.fixture
async def house(settings: Settings, feed: Feed) -> AsyncIterator[House]:
    clock = FakeClock(START)
    assert settings.redis_url is not None
    allowed = (feed.host,)
    async with work_in(settings, clock) as work, guarded_client(allowed) as client:
        bus = await Bus.open(settings.redis_url.get_secret_value(), clock, region=settings.region)
        catalog = Registry([sample_workflows.plain, feed_changed])
        pollers = PollerService(work.db, bus, work.runs, work.audit, catalog, clock, allowed_private_hosts=allowed)
        bank = await work.tenant("regional-bank")
        yield House(work, pollers, Lookout(pollers, Limits(bus.connection), client, clock), bank, feed)
        await bus.close()


async def test_a_change_starts_one_run_with_what_is_new_and_304_starts_none(house: House) -> None:
    poller_id = await house.create()
    assert (await house.look(poller_id, 0)).last_status is PollStatus.FIRST
    assert (await house.look(poller_id)).last_status is PollStatus.UNCHANGED
    assert house.feed.answered == [200, 304]
    assert house.feed.asked[1]["if-modified-since"] == "Mon, 05 Jan 2026 09:00:00 GMT"
    assert await house.runs() == []

    house.feed.entries.append({"id": "2", "title": "Two"})
    changed = await house.look(poller_id)
    assert (changed.last_status, changed.last_changed_at) == (PollStatus.CHANGED, house.work.clock.now())
    [run] = await house.runs()
    assert (run.source, run.run_id, run.workflow) == ("poller", changed.last_run_id, "feed-changed")
    assert [entry["title"] for entry in run.input["change"]["entries"]] == ["Two"]
    assert (await house.look(poller_id)).last_status is PollStatus.UNCHANGED

    house.feed.entries.pop()
    await house.look(poller_id)
    house.feed.entries.append({"id": "2", "title": "Two"})
    await house.look(poller_id)
    assert len(await house.runs()) == 2, "what comes back is news again"


async def test_a_server_without_validators_is_compared_by_content(house: House) -> None:
    house.feed.validators = False
    poller_id = await house.create()
    for expected in (PollStatus.FIRST, PollStatus.UNCHANGED):
        assert (await house.look(poller_id)).last_status is expected
    house.feed.entries.insert(0, {"id": "2"})
    assert (await house.look(poller_id)).last_status is PollStatus.CHANGED
    assert house.feed.answered == [200, 200, 200]


async def test_it_looks_at_its_interval_and_at_once_when_it_is_told_to(house: House) -> None:
    poller_id = await house.create()
    await house.look(poller_id, 0)
    for _ in range(3):
        await house.look(poller_id, 19)
    assert len(house.feed.asked) == 1
    await house.pollers.look_now(house.bank, poller_id)
    await house.look(poller_id, 0)
    assert len(house.feed.asked) == 2


async def test_failures_make_looks_rarer_and_an_answer_makes_them_regular_again(house: House) -> None:
    poller_id = await house.create()
    await house.look(poller_id, 0)
    house.feed.fail = 503
    for failures in (1, 2, 3):
        view = await house.look(poller_id, 60 * 2**failures)
        assert (view.last_status, view.failures) == (PollStatus.FAILED, failures)
        assert view.last_error == {"code": "unavailable", "message": "The server answered 503."}
        assert view.next_at is not None
        assert 60 <= (view.next_at - house.work.clock.now()).total_seconds() <= 60 * 2**failures
    house.feed.retry_after = "7200"
    view = await house.look(poller_id, 60 * 2**4)
    assert view.next_at == house.work.clock.now() + timedelta(hours=2)
    house.feed.fail = house.feed.retry_after = None
    view = await house.look(poller_id, 7_200)
    assert (view.last_status, view.failures, view.last_error) == (PollStatus.UNCHANGED, 0, None)
    assert view.next_at == house.work.clock.now() + timedelta(minutes=1)


async def test_an_address_that_turns_out_to_be_private_fails_and_is_never_called(house: House) -> None:
    poller_id = await house.create(url=f"http://127.1:{house.feed.port}/feed")
    view = await house.look(poller_id)
    assert view.last_status is PollStatus.FAILED
    assert view.last_error is not None
    assert view.last_error["code"] == AddressRefused.code
    assert house.feed.asked == []


async def test_a_tenants_rate_limit_spreads_its_looks(house: House) -> None:
    house = replace(
        house,
        bank=await house.work.tenant("fintech-startup", Policy(rate_limits={"polls": RateLimit(limit=1, window_s=30)})),
    )
    first, second = await house.create(), await house.create()
    await house.look(first, 0)
    view = await house.look(second, 0)
    assert view.last_status is None
    assert view.next_at == house.work.clock.now() + timedelta(seconds=30)
    assert (await house.look(second, 30)).last_status is PollStatus.FIRST


async def test_a_refusal_that_passes_loses_no_news_and_a_crash_starts_nothing_twice(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    tight = await house.work.tenant("fintech-startup", Policy(daily_runs=1))
    house = replace(house, bank=tight)
    poller_id = await house.create()
    await house.look(poller_id, 0)
    await house.work.submit(tight, 1)
    house.feed.entries.append({"id": "2"})
    view = await house.look(poller_id)
    assert view.last_status is PollStatus.REFUSED
    assert view.last_error is not None
    assert view.last_error["code"] == "quota_exceeded"

    await house.look(poller_id, 0)
    with monkeypatch.context() as patch:
        patch.setattr(PollerService, "_record", _crash)
        with pytest.raises(KeyboardInterrupt):
            await house.look(poller_id, 86_400)
    assert (await house.look(poller_id, 1)).last_status is PollStatus.CHANGED
    assert [run.source for run in await house.runs()] == ["api", "poller"]


async def _crash(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


async def test_pollers_are_edited_paused_and_deleted_within_their_tenant(house: House) -> None:
    pollers, bank = house.pollers, house.bank
    poller_id = await house.create()
    await house.look(poller_id, 0)
    edited = await pollers.edit(bank, poller_id, name="Prime rates", interval_s=30, version=1)
    assert (edited.name, edited.interval_s, edited.version, edited.next_at) == ("Prime rates", 30, 2, START)
    assert edited.seen.content_hash is not None
    with pytest.raises(Conflict):
        await pollers.edit(bank, poller_id, name="Mine", version=1)
    moved = await pollers.edit(bank, poller_id, url=f"http://{house.feed.host}/elsewhere")
    assert (await house.look(moved.poller_id, 0)).last_status is PollStatus.FIRST, "another address: nothing to compare"

    await pollers.pause(bank, poller_id)
    looks = len(house.feed.asked)
    assert (await house.look(poller_id, 3_600)).next_at is None
    assert len(house.feed.asked) == looks
    with pytest.raises(Conflict):
        await pollers.look_now(bank, poller_id)
    house.feed.entries.append({"id": "2"})
    await pollers.resume(bank, poller_id)
    assert (await house.look(poller_id, 0)).last_status is PollStatus.CHANGED

    union = await house.work.tenant("credit-union")
    reader = replace(bank, scopes=frozenset({Scope.SCHEDULES_READ}))
    for act in (pollers.pause, pollers.resume, pollers.delete, pollers.look_now):
        with pytest.raises(NotFound):
            await act(union, poller_id)
        with pytest.raises(Forbidden):
            await act(reader, poller_id)
    await pollers.delete(bank, poller_id)
    assert await pollers.list(bank) == []
    acts = {entry.act for entry in await house.work.audit.recent(bank)}
    assert {f"poller.{act}" for act in ("create", "edit", "pause", "resume", "delete")} <= acts


async def test_a_poller_that_cannot_work_is_refused_with_a_reason(house: House) -> None:
    for given, error, says in (
        ({"url": "http://10.1.2.3/feed"}, AddressRefused, "not a public address"),
        ({"url": "gopher://x"}, AddressRefused, "https://host/path"),
        ({"interval_s": 1}, InvalidInput, "every 10 to"),
        ({"workflow": "unheard-of"}, WorkflowUnknown, "unheard-of"),
        ({"workflow": "sample-plain", "input": {"log": "x"}}, InvalidInput, "no field 'change'"),
        ({"input": {"more": 1}}, InvalidInput, "does not fit workflow feed-changed"),
    ):
        with pytest.raises(error, match=says):
            await house.create(**given)

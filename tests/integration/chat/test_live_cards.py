"""Cards of an open conversation on real servers: they follow what happens, and stop when nothing can."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.datastructures import Headers

from chat_app.acting import Asked
from chat_app.feeds import RunFeeds
from chat_app.live import Element, LiveCards
from chat_app.session import Seat
from chat_app.writing import Writing
from core.bootstrap import Platform, open_platform
from core.clock import Clock
from core.errors import NotFound, Unauthenticated
from core.ids import RunId, TenantId, WorkerId
from core.redis.bus import RESYNC, Bus, Event, Events
from core.reviews.service import ReviewService
from core.runs.acts import Act
from core.runs.bulk import BulkControl
from core.runs.control import RunControl
from core.runs.execution import Executing
from core.runs.model import RunRequest, RunState, RunView, Said
from core.runs.service import RunService
from core.settings import Settings
from core.tenancy import ActorKind, Role, TenantContext
from core.tenants.model import Identity
from core.tenants.service import TenantService
from core.workflows.loan_intake import read_applications
from tests.fixtures.applications import csv_file, good
from tests.fixtures.people import People

WORKER = WorkerId("worker-test")
DEADLINE_S = 20


@dataclass(slots=True)
class Wall:
    """A screen that keeps what it showed."""

    shown: list[dict[str, Any]] = field(default_factory=list)
    toasts: list[str] = field(default_factory=list)
    written: dict[str, Writing] = field(default_factory=dict)
    somebody_looks: bool = True
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def show(self, element: Element) -> None:
        self.shown.append(element["props"])
        self.changed.set()

    async def write(self, run_id: str, writing: Writing) -> None:
        self.written[run_id] = writing
        self.changed.set()

    async def toast(self, text: str, *, failed: bool = False) -> None:
        self.toasts.append(text)
        self.changed.set()

    def open(self) -> bool:
        return True

    def connected(self) -> bool:
        return self.somebody_looks

    async def until(self, wanted: Any) -> None:
        """Return once ``wanted(self)`` is true; looked at at every change."""
        async with asyncio.timeout(DEADLINE_S):
            while not wanted(self):
                self.changed.clear()
                await self.changed.wait()


@dataclass(frozen=True, slots=True)
class Rooms:
    """What cards stand on."""

    runs: RunService
    control: RunControl
    bulk: BulkControl
    feeds: RunFeeds
    reviews: ReviewService
    tenants: TenantService
    bus: Bus
    clock: Clock

    @classmethod
    def of(cls, platform: Platform) -> Rooms:
        """Those of a platform."""
        feeds = RunFeeds(platform.bus, platform.runs.log, platform.clock, asyncio.Event())
        names = ("runs", "control", "bulk", "reviews", "tenants", "bus", "clock")
        return cls(feeds=feeds, **{name: getattr(platform, name) for name in names})


@dataclass(frozen=True, slots=True)
class Site:
    """A platform whose worker is the test."""

    platform: Platform
    people: People
    rooms: Rooms

    async def seat(self, email: str, *roles: Role) -> Seat:
        _, identity = await self.people.login(email, "bank", *roles)

        async def identify(_: Headers) -> Identity:
            return identity

        return Seat(identity, Headers({}), identify)

    async def submit(self, ctx: TenantContext, count: int) -> None:
        intake = read_applications(csv_file(*(good(number) for number in range(count))))
        inputs = (application.model_dump(mode="json") for application in intake.applications)
        requests = [RunRequest("loan-approval", one, batch_id="bat_1", source="chat") for one in inputs]
        await self.platform.runs.submit_many(ctx, requests)

    async def claim(self, count: int) -> list[Executing]:
        await self.platform.queue.heartbeat(WORKER, 10)
        claims = await self.platform.queue.claim(WORKER, count)
        held = []
        for one in claims:
            ctx = await self.platform.tenants.context_for(one.tenant_id, actor_kind=ActorKind.RUN, actor_id=one.run_id)
            run_id, of = RunId(one.run_id), (one.budget_microusd, one.batch_id, one.thread_id)
            held.append(Executing(ctx, run_id, WORKER, one.attempt, *of))
        return held

    async def review(self, on: Executing) -> str:
        request, title = self.platform.reviews.request, "Application 1: Sure?"
        await request(on, 1, pool="compliance", title=title, evidence={}, choices=["approve", "decline"], sla_s=60)
        (review,) = await self.platform.reviews.open(await self._context())
        return review.review_id

    async def _context(self) -> TenantContext:
        return (await self.seat("ada@bank.example", Role.ADMIN)).ctx


@pytest.fixture
async def site(settings: Settings) -> AsyncIterator[Site]:
    async with open_platform(settings, process="test") as platform:
        yield Site(platform, People(platform.tenants), Rooms.of(platform))


def card(name: str, **props: Any) -> Element:
    return {"id": f"{name} {props}", "type": "custom", "name": name, "props": props}


async def test_a_card_follows_its_runs_to_their_end_and_then_rests(site: Site) -> None:
    seat, wall = await site.seat("mia@bank.example"), Wall()
    live = LiveCards(site.rooms, seat, wall)
    await site.submit(seat.ctx, 2)
    await live.repaint([card("RunsCard", batch_id="bat_1", title="a.csv")])
    first, second = await site.claim(2)

    await site.platform.execution.end(first, RunState.SUCCEEDED, outcome="approved", output={"reasons": []})
    await wall.until(lambda wall: wall.shown and wall.shown[-1]["finished"] == 1)
    await site.platform.execution.end(second, RunState.FAILED, error={"code": "x", "message": "It broke."})
    await wall.until(lambda wall: wall.shown[-1]["done"])

    assert {part["key"]: part["count"] for part in wall.shown[-1]["segments"]} == {"approved": 1, "failed": 1}
    assert wall.shown[-1]["runs"][0]["note"] == "It broke."
    assert live._task is not None
    async with asyncio.timeout(DEADLINE_S):
        await live._task  # nothing can change any more: it ends by itself


def hearing_after(site: Site, heard: asyncio.Event) -> Rooms:
    """The rooms; who subscribes hears nothing before the event."""

    @asynccontextmanager
    async def subscribe(tenant_id: TenantId) -> AsyncIterator[Events]:
        await heard.wait()
        async with site.platform.bus.subscribe(tenant_id) as events:
            yield events

    return replace(site.rooms, bus=cast(Bus, SimpleNamespace(subscribe=subscribe)))


async def test_what_happens_after_a_card_was_painted_and_before_it_hears_is_seen(site: Site) -> None:
    mia, wall, heard = await site.seat("mia@bank.example"), Wall(), asyncio.Event()
    ravi, rosa = [await site.seat(f"{name}@bank.example", Role.REVIEWER) for name in ("ravi", "rosa")]
    await site.submit(mia.ctx, 1)
    (run,) = await site.claim(1)
    review_id = await site.review(run)
    live = LiveCards(hearing_after(site, heard), ravi, wall)
    await live.repaint([card("ReviewCard", review_id=review_id)])
    await site.platform.reviews.decide(rosa.ctx, review_id, "approve")
    heard.set()
    await wall.until(lambda wall: wall.shown and wall.shown[-1]["state"] == "decided")
    await live.close()


async def test_a_card_does_not_go_back_to_what_was_read_earlier(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    seat, wall, read, go_on = await site.seat("mia@bank.example"), Wall(), asyncio.Event(), asyncio.Event()
    live = LiveCards(hearing_after(site, asyncio.Event()), seat, wall)
    await site.submit(seat.ctx, 1)
    ((run,), _) = await site.platform.runs.list(seat.ctx)
    await live.repaint([card("RunsCard", run_id=run.run_id)])

    get = site.platform.runs.get

    async def slow(ctx: TenantContext, run_id: str) -> RunView:
        found = await get(ctx, run_id)
        if not read.is_set():
            read.set()
            await go_on.wait()
        return found

    monkeypatch.setattr(site.platform.runs, "get", slow)
    early = asyncio.create_task(live.open_run(run.run_id, True))
    await read.wait()
    await site.platform.control.cancel(seat.ctx, run.run_id)
    late = asyncio.create_task(live.open_run(run.run_id, True))
    await asyncio.wait({late}, timeout=0.5)  # it may overtake, or wait
    go_on.set()
    await asyncio.gather(early, late)
    assert wall.shown[-1]["done"]
    await live.close()


async def test_a_card_that_comes_while_the_following_of_others_ends_is_followed(site: Site) -> None:
    seat, wall = await site.seat("mia@bank.example"), Wall()
    await site.submit(seat.ctx, 1)
    live = LiveCards(site.rooms, seat, wall)
    await live.repaint([card("RunsCard", batch_id="bat_1", title="a.csv")])
    (run,) = await site.claim(1)
    later = card("ReviewCard", review_id=await site.review(run), state="open")
    ending = live._writings.close

    async def close() -> None:
        """The last moment in which the others are followed."""
        live.track(later)
        await ending()

    live._writings.close = close  # type: ignore[method-assign]
    await site.platform.execution.end(run, RunState.CANCELLED)
    await wall.until(lambda wall: wall.shown and wall.shown[-1].get("review_id"))
    await site.platform.reviews.cancel_of_run(run.ctx, run.run_id)
    await wall.until(lambda wall: wall.shown[-1].get("review_id") and wall.shown[-1]["state"] != "open")
    await live.close()


async def test_the_second_decider_is_told_who_was_first(site: Site) -> None:
    mia = await site.seat("mia@bank.example")
    ravi, rosa = [await site.seat(f"{name}@bank.example", Role.REVIEWER) for name in ("ravi", "rosa")]
    await site.submit(mia.ctx, 1)
    (run,) = await site.claim(1)
    review_id = await site.review(run)
    walls = Wall(), Wall()
    for_ravi, for_rosa = LiveCards(site.rooms, ravi, walls[0]), LiveCards(site.rooms, rosa, walls[1])
    for live in (for_ravi, for_rosa):
        await live.repaint([card("ReviewCard", review_id=review_id)])

    assert await for_ravi.decide(ravi.ctx, review_id, "approve", "Fine.")
    assert not await for_rosa.decide(rosa.ctx, review_id, "decline", "Not fine.")

    assert walls[0].shown[0]["decided"].startswith("Approve by you")
    told = next(props for props in walls[1].shown if props["notice"])
    assert told["decided"].startswith("Approve by Ravi")
    assert "decided before" in told["notice"]
    for live in (for_ravi, for_rosa):
        await live.close()


async def test_nobody_decides_their_own_run_and_the_card_says_so(site: Site) -> None:
    ravi, wall = await site.seat("ravi@bank.example", Role.REVIEWER), Wall()
    await site.submit(ravi.ctx, 1)
    (run,) = await site.claim(1)
    review_id = await site.review(run)
    live = LiveCards(site.rooms, ravi, wall)
    await live.repaint([card("ReviewCard", review_id=review_id)])

    assert not await live.decide(ravi.ctx, review_id, "approve", "")

    assert wall.shown[-1]["state"] == "open"
    assert "submitted themselves" in wall.shown[-1]["notice"]
    live._note(Event(RESYNC, {}, site.platform.clock.now()))
    await live._look()
    assert "submitted themselves" in wall.shown[-1]["notice"], "a look at what has not changed takes nothing away"
    await live.close()


async def test_a_reviewer_hears_of_a_new_case(site: Site) -> None:
    mia, ravi = await site.seat("mia@bank.example"), await site.seat("ravi@bank.example", Role.REVIEWER)
    wall = Wall()
    live = LiveCards(site.rooms, ravi, wall)
    await site.submit(mia.ctx, 1)
    (run,) = await site.claim(1)
    live.follow()
    # One connection listens for all of a process: once this listener is confirmed, the cards hear too.
    async with site.platform.bus.subscribe(ravi.ctx.tenant_id):
        await site.review(run)

    await wall.until(lambda wall: wall.toasts)
    assert wall.toasts == ["1 new case waits for review. Ask: what waits for review?"]
    await live.close()


async def test_a_member_with_nothing_on_the_screen_costs_nothing(site: Site) -> None:
    live = LiveCards(site.rooms, await site.seat("mia@bank.example"), Wall())
    live.follow()
    assert live._task is None
    with pytest.raises(NotFound):
        await live.runs_props("bat_unknown", "a.csv")


async def test_a_card_stops_when_the_login_ends(site: Site) -> None:
    seat, wall = await site.seat("mia@bank.example"), Wall()
    await site.submit(seat.ctx, 1)

    async def gone(_: Headers) -> Identity:
        raise Unauthenticated("The session is over.")

    live = LiveCards(site.rooms, Seat(seat.identity, seat.headers, gone), wall)
    await live.repaint([card("RunsCard", batch_id="bat_1", title="a.csv")])
    assert live._task is not None
    async with asyncio.timeout(DEADLINE_S):
        await live._task
    assert wall.shown == []


def text(text: str, offset: int) -> Said:
    return Said("text", {"step": 1, "attempt": 1, "offset": offset, "text": text})


async def test_what_a_run_writes_is_shown_as_it_comes_again_after_a_reload_and_not_after_its_end(site: Site) -> None:
    seat, wall = await site.seat("mia@bank.example"), Wall()
    await site.submit(seat.ctx, 1)
    (run,) = await site.claim(1)
    tell = site.platform.execution.tell
    live = LiveCards(site.rooms, seat, wall)
    await live.repaint([card("RunsCard", batch_id="bat_1", title="a.csv")])
    await tell(run, [text("The applicant ", 0)], None)
    await wall.until(lambda wall: wall.written.get(run.run_id) == Writing(1, 1, "The applicant "))
    await tell(run, [text("is known.", 14)], None)
    await wall.until(lambda wall: wall.written[run.run_id].text == "The applicant is known.")
    await live.close()

    reloaded, other = Wall(), await site.seat("ada@bank.example", Role.ADMIN)
    live = LiveCards(site.rooms, other, reloaded)  # another connection, another process: from the log
    await live.repaint([card("RunsCard", run_id=run.run_id)])
    await reloaded.until(lambda wall: wall.written.get(run.run_id) == Writing(1, 1, "The applicant is known."))
    await site.platform.execution.end(run, RunState.SUCCEEDED, outcome="approved", output={"reasons": ["Known."]})
    await reloaded.until(lambda wall: wall.written[run.run_id] == Writing() and wall.shown[-1]["done"])
    (line,) = reloaded.shown[-1]["runs"]
    assert (line["word"], line["note"]) == ("approved", "Known.")
    await live.close()


async def test_runs_are_paused_cancelled_and_tried_again_from_their_card(site: Site) -> None:
    seat, wall = await site.seat("mia@bank.example"), Wall()
    await site.submit(seat.ctx, 3)
    live = LiveCards(site.rooms, seat, wall)
    await live.repaint([card("RunsCard", batch_id="bat_1", title="a.csv")])
    assert await live.act(seat.ctx, Asked(Act.PAUSE, batch_id="bat_1"))
    assert [(line["word"], line["opened"]) for line in wall.shown[-1]["runs"]] == [("paused", False)] * 3
    one = wall.shown[-1]["runs"][0]["run_id"]

    await live.open_run(one, True)
    (opened,) = [line for line in wall.shown[-1]["runs"] if line["opened"]]
    assert (opened["run_id"], [act["act"] for act in opened["acts"]]) == (one, ["resume", "cancel"])
    assert await live.act(seat.ctx, Asked(Act.CANCEL, one))
    (opened,) = [line for line in wall.shown[-1]["runs"] if line["opened"]]
    assert (opened["word"], [act["act"] for act in opened["acts"]]) == ("cancelled", ["retry"])
    assert not await live.act(seat.ctx, Asked(Act.CANCEL, one))
    await live.open_run(one, False)
    assert not any(line["opened"] for line in wall.shown[-1]["runs"])

    assert await live.act(seat.ctx, Asked(Act.CANCEL, batch_id="bat_1"))
    assert wall.shown[-1]["headline"] == "All 3 runs ended"
    assert await live.act(seat.ctx, Asked(Act.RETRY, one))
    assert (wall.shown[-1]["done"], wall.shown[-1]["finished"]) == (False, 2)
    assert wall.toasts == [
        "Paused: 3 runs.",
        "Cancelled.",
        "The run has ended: cancelled.",
        "Cancelled: 2 runs.",
        "It starts again.",
    ]
    await live.close()


async def test_nobody_acts_on_or_opens_what_is_another_tenants(site: Site) -> None:
    seat, wall = await site.seat("mia@bank.example"), Wall()
    await site.submit(seat.ctx, 1)
    (runs, _) = await site.platform.runs.list(seat.ctx)
    _, stranger = await site.people.login("eve@union.example", "union", Role.MEMBER)
    live = LiveCards(site.rooms, Seat(stranger, Headers({}), seat.identify), wall)
    assert not await live.act(stranger.ctx, Asked(Act.CANCEL, runs[0].run_id))
    assert await live.act(stranger.ctx, Asked(Act.CANCEL, batch_id="bat_1"))
    await live.open_run(runs[0].run_id, True)
    assert (wall.toasts, wall.shown) == (["There is no such run.", "There was nothing to cancel."], [])
    assert (await site.platform.runs.get(seat.ctx, runs[0].run_id)).state is RunState.QUEUED

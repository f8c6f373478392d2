"""Cards of an open conversation on real servers: they follow what happens, and stop when nothing can."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.datastructures import Headers

from chat_app.live import LiveCards
from chat_app.session import Seat
from chat_app.writing import Writing
from core.errors import NotFound, Unauthenticated, Unavailable
from core.ids import TenantId
from core.redis.bus import Bus, Events
from core.runs.log import LogPage
from core.runs.model import RunState, RunView, Said
from core.tenancy import Role, TenantContext
from core.tenants.model import Identity
from tests.fixtures.cards import DEADLINE_S, Rooms, Site, Wall, card


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


async def test_a_run_that_ends_while_its_card_is_being_read_is_listed_once_as_it_was_read_last(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    seat = await site.seat("mia@bank.example")
    await site.submit(seat.ctx, 2)
    first, second = await site.claim(2)
    await site.platform.execution.end(first, RunState.SUCCEEDED, outcome="approved", output={"reasons": []})
    listed = site.platform.runs.list

    async def slow(ctx: TenantContext, **wanted: Any) -> tuple[Sequence[RunView], str | None]:
        found = await listed(ctx, **wanted)
        if wanted["state"] is RunState.RUNNING:
            await site.platform.execution.end(second, RunState.SUCCEEDED, outcome="declined", output={"reasons": []})
        return found

    monkeypatch.setattr(site.platform.runs, "list", slow)
    props = await LiveCards(site.rooms, seat, Wall()).painter.runs_props("bat_1", "a.csv")
    words = {run["run_id"]: run["word"] for run in props["runs"]}
    assert (len(props["runs"]), words) == (2, {first.run_id: "approved", second.run_id: "declined"})


async def test_a_card_that_comes_while_the_following_of_others_ends_is_followed(site: Site) -> None:
    seat, wall = await site.seat("mia@bank.example"), Wall()
    for batch_id in ("bat_1", "bat_2"):
        await site.submit(seat.ctx, 1, batch_id)
    live = LiveCards(site.rooms, seat, wall)
    await live.repaint([card("RunsCard", batch_id="bat_1", title="a.csv")])
    run, other = sorted(await site.claim(2), key=lambda on: str(on.batch_id))
    later = card("ReviewCard", review_id=await site.review(other), state="open")
    ending = live._writings.close

    async def close() -> None:
        """The last moment in which the others are followed."""
        live.track(later)
        await ending()

    live._writings.close = close  # type: ignore[method-assign]
    await site.platform.execution.end(run, RunState.CANCELLED)
    await wall.until(lambda wall: wall.shown and wall.shown[-1].get("review_id"))
    await site.platform.execution.end(other, RunState.CANCELLED)
    await wall.until(lambda wall: wall.shown[-1].get("review_id") and wall.shown[-1]["state"] != "open")
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
        await live.painter.runs_props("bat_unknown", "a.csv")


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


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cards that wait to be looked at again wait a tenth of a second."""
    monkeypatch.setattr("chat_app.live._BUSY_PAUSE_S", 0.1)


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


@pytest.mark.usefixtures("soon")
async def test_what_a_run_writes_is_followed_again_after_it_could_not_be_read_for_a_moment(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    seat, wall, log = await site.seat("mia@bank.example"), Wall(), site.platform.runs.log
    await site.submit(seat.ctx, 1)
    (run,) = await site.claim(1)
    live = LiveCards(site.rooms, seat, wall)
    await live.repaint([card("RunsCard", batch_id="bat_1", title="a.csv")])
    await site.platform.execution.tell(run, [text("The applicant ", 0)], None)
    await wall.until(lambda wall: wall.written.get(run.run_id) == Writing(1, 1, "The applicant "))
    page = log.page

    async def gone(*_: Any) -> LogPage:
        monkeypatch.setattr(log, "page", page)
        raise Unavailable("Postgres went away.")

    monkeypatch.setattr(log, "page", gone)
    await site.platform.execution.tell(run, [text("is known.", 14)], None)
    await wall.until(lambda wall: wall.written[run.run_id].text == "The applicant is known.")
    await live.close()


@pytest.mark.usefixtures("soon")
async def test_a_card_that_could_not_be_read_for_a_moment_is_read_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    mia, ravi, rosa = [await site.seat(f"{name}@bank.example", Role.REVIEWER) for name in ("mia", "ravi", "rosa")]
    await site.submit(mia.ctx, 1)
    (run,) = await site.claim(1)
    review_id, wall, heard, times = await site.review(run), Wall(), asyncio.Event(), iter(range(2))

    def sometimes(does: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def fails_at_first(*given: Any) -> Any:
            if next(times, None) is not None:
                raise Unavailable("Postgres went away.")
            return await does(*given)

        return fails_at_first

    live = LiveCards(hearing_after(site, heard), replace(ravi, identify=sometimes(ravi.identify)), wall)
    await live.repaint([card("ReviewCard", review_id=review_id)])
    await site.platform.reviews.decide(rosa.ctx, review_id, "approve")
    monkeypatch.setattr(site.platform.reviews, "get", sometimes(site.platform.reviews.get))
    heard.set()
    await wall.until(lambda wall: wall.shown and wall.shown[-1]["state"] == "decided")
    assert next(times, None) is None
    await live.close()


@pytest.mark.usefixtures("soon")
async def test_whoever_comes_back_sees_what_happened_while_the_connection_was_cut(site: Site) -> None:
    mia, ravi, rosa = [await site.seat(f"{name}@bank.example", Role.REVIEWER) for name in ("mia", "ravi", "rosa")]
    await site.submit(mia.ctx, 1)
    (run,) = await site.claim(1)
    review_id, wall = await site.review(run), Wall(somebody_looks=False)
    live = LiveCards(site.rooms, ravi, wall)
    await live.repaint([card("ReviewCard", review_id=review_id)])
    await site.platform.reviews.decide(rosa.ctx, review_id, "approve")
    wall.asked.clear()
    async with asyncio.timeout(DEADLINE_S):
        await wall.asked.wait()
    wall.somebody_looks = True
    await wall.until(lambda wall: wall.shown and wall.shown[-1]["state"] == "decided")
    await live.close()

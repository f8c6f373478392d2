"""What people do on cards, on real servers: they decide reviews, and open, pause, cancel and retry runs."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.datastructures import Headers

from chat_app.acting import Asked
from chat_app.live import LiveCards
from chat_app.session import Seat
from core.errors import Unavailable
from core.redis.bus import RESYNC, Event
from core.runs.acts import Act
from core.runs.model import RunState
from core.tenancy import Role
from tests.fixtures.cards import Site, Wall, card


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


async def test_a_button_pressed_while_the_database_is_away_says_so_and_what_to_do(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    mia, ravi, wall = await site.seat("mia@bank.example"), await site.seat("ravi@bank.example", Role.REVIEWER), Wall()
    await site.submit(mia.ctx, 1)
    (run,) = await site.claim(1)
    review_id = await site.review(run)
    live = LiveCards(site.rooms, ravi, wall)
    await live.repaint([card("RunsCard", batch_id="bat_1", title="a.csv"), card("ReviewCard", review_id=review_id)])

    async def gone(*_: Any) -> Any:
        raise Unavailable("Postgres went away: 10.0.0.1", retry_after_s=1)

    with monkeypatch.context() as away:
        for room, does in (
            (site.platform.runs, "steps"),
            (site.platform.reviews, "decide"),
            (site.platform.reviews, "get"),
        ):
            away.setattr(room, does, gone)
        assert not await live.open_run(run.run_id, True)
        assert not await live.decide(ravi.ctx, review_id, "approve", "")
    said = "A part that is needed here does not answer. Try again in 1 second."
    assert wall.toasts == [said, said]
    assert await live.open_run(run.run_id, True)
    assert await live.decide(ravi.ctx, review_id, "approve", "")
    await live.close()

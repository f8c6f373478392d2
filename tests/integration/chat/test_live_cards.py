"""Cards of an open conversation on real servers: they follow what happens, and stop when nothing can."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.datastructures import Headers

from chat_app.live import Element, LiveCards
from chat_app.session import Seat
from core.bootstrap import Platform, open_platform
from core.errors import NotFound, Unauthenticated
from core.ids import RunId, WorkerId
from core.runs.execution import Executing
from core.runs.model import RunRequest, RunState
from core.settings import Settings
from core.tenancy import ActorKind, Role, TenantContext
from core.tenants.model import Identity
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
    somebody_looks: bool = True
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def show(self, element: Element) -> None:
        self.shown.append(element["props"])
        self.changed.set()

    async def toast(self, text: str) -> None:
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
class Site:
    """A platform whose worker is the test."""

    platform: Platform
    people: People

    async def seat(self, email: str, *roles: Role) -> Seat:
        _, identity = await self.people.login(email, "bank", *roles)

        async def identify(_: Headers) -> Identity:
            return identity

        return Seat(identity, Headers({}), identify)

    async def submit(self, ctx: TenantContext, count: int) -> None:
        intake = read_applications(csv_file(*(good(number) for number in range(count))))
        await self.platform.runs.submit_many(
            ctx,
            [
                RunRequest("loan-approval", application.model_dump(mode="json"), batch_id="bat_1", source="chat")
                for application in intake.applications
            ],
        )

    async def claim(self, count: int) -> list[Executing]:
        await self.platform.queue.heartbeat(WORKER, 10)
        claims = await self.platform.queue.claim(WORKER, count)
        return [
            Executing(
                await self.platform.tenants.context_for(
                    claim.tenant_id, actor_kind=ActorKind.RUN, actor_id=claim.run_id
                ),
                RunId(claim.run_id),
                WORKER,
                claim.attempt,
                claim.budget_microusd,
                claim.batch_id,
                claim.thread_id,
            )
            for claim in claims
        ]

    async def review(self, on: Executing) -> str:
        asked = {
            "pool": "compliance",
            "title": "Application 1: Sure?",
            "evidence": {},
            "choices": ["approve", "decline"],
        }
        await self.platform.reviews.request(on, 1, **asked, sla_s=60)  # type: ignore[arg-type]
        (review,) = await self.platform.reviews.open(await self._context())
        return review.review_id

    async def _context(self) -> TenantContext:
        return (await self.seat("ada@bank.example", Role.ADMIN)).ctx


@pytest.fixture
async def site(settings: Settings) -> AsyncIterator[Site]:
    async with open_platform(settings, process="test") as platform:
        yield Site(platform, People(platform.tenants))


def card(name: str, **props: Any) -> Element:
    return {"id": f"{name} {props}", "type": "custom", "name": name, "props": props}


async def test_a_card_follows_its_runs_to_their_end_and_then_rests(site: Site) -> None:
    seat, wall = await site.seat("mia@bank.example"), Wall()
    live = LiveCards(site.platform, seat, wall)
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


async def test_the_second_decider_is_told_who_was_first(site: Site) -> None:
    mia = await site.seat("mia@bank.example")
    ravi, rosa = [await site.seat(f"{name}@bank.example", Role.REVIEWER) for name in ("ravi", "rosa")]
    await site.submit(mia.ctx, 1)
    (run,) = await site.claim(1)
    review_id = await site.review(run)
    walls = Wall(), Wall()
    for_ravi, for_rosa = LiveCards(site.platform, ravi, walls[0]), LiveCards(site.platform, rosa, walls[1])
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
    live = LiveCards(site.platform, ravi, wall)
    await live.repaint([card("ReviewCard", review_id=review_id)])

    assert not await live.decide(ravi.ctx, review_id, "approve", "")

    assert wall.shown[-1]["state"] == "open"
    assert "submitted themselves" in wall.shown[-1]["notice"]
    await live.close()


async def test_a_reviewer_hears_of_a_new_case(site: Site) -> None:
    mia, ravi = await site.seat("mia@bank.example"), await site.seat("ravi@bank.example", Role.REVIEWER)
    wall = Wall()
    live = LiveCards(site.platform, ravi, wall)
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
    live = LiveCards(site.platform, await site.seat("mia@bank.example"), Wall())
    live.follow()
    assert live._task is None
    with pytest.raises(NotFound):
        await live.runs_props("bat_unknown", "a.csv")


async def test_a_card_stops_when_the_login_ends(site: Site) -> None:
    seat, wall = await site.seat("mia@bank.example"), Wall()
    await site.submit(seat.ctx, 1)

    async def gone(_: Headers) -> Identity:
        raise Unauthenticated("The session is over.")

    live = LiveCards(site.platform, Seat(seat.identity, seat.headers, gone), wall)
    await live.repaint([card("RunsCard", batch_id="bat_1", title="a.csv")])
    assert live._task is not None
    async with asyncio.timeout(DEADLINE_S):
        await live._task
    assert wall.shown == []

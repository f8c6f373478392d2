"""Shared pools: people of the platform decide cases of several organisations, and see nothing else of them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from core.clock import FakeClock
from core.errors import Conflict, Forbidden, InvalidInput, NotFound
from core.reviews.desk import Desk
from core.reviews.model import Terms
from core.runs.model import RunState
from core.settings import Settings
from core.tenancy import PLATFORM, Policy, Role, TenantContext, Tier
from tests.fixtures.web import web_in
from tests.fixtures.work import Work, work_in


@pytest.fixture
async def work(settings: Settings) -> AsyncIterator[Work]:
    """The rooms, on a clock that stands still."""
    async with work_in(settings, FakeClock()) as rooms:
        yield rooms


async def asked(work: Work, ctx: TenantContext, *, sla_s: float = 600, terms: Terms | None = None) -> str:
    """The run of a case that waits for a decision."""
    (run,) = await work.submit(ctx, 1)
    (claim,) = await work.claim("w", 10)
    on = await work.executing(claim)
    await work.reviews.request(
        on,
        1,
        pool="general",
        title=f"A case of {ctx.tenant_id}",
        evidence={"secret": ctx.tenant_id},
        choices=["approve", "decline"],
        sla_s=sla_s,
        terms=terms or Terms(),
    )
    assert await work.execution.park(on) is RunState.WAITING
    return run.run_id


async def pia(work: Work) -> TenantContext:
    """A reviewer of the shared pools."""
    return (await work.people.login("pia@platform.example", PLATFORM, Role.POOL_REVIEWER))[1].ctx


async def test_cases_of_shared_pools_come_by_class_the_overdue_ones_first_and_nothing_dedicated(work: Work) -> None:
    desk = Desk(work.db, work.reviews, work.tenants, work.clock)
    tiers = {"big": Tier.ENTERPRISE, "middle": Tier.STANDARD, "small": Tier.FREE}
    tenants = {name: await work.tenant(name, Policy(tier=tier)) for name, tier in tiers.items()}
    dedicated = await work.tenant("own", Policy(reviewer_pool="dedicated"))
    late = await asked(work, tenants["small"], sla_s=10)
    runs = [await asked(work, tenants[name], sla_s=600) for name in ("small", "middle", "big")]
    await asked(work, dedicated)
    await asked(work, tenants["big"], terms=Terms(role=Role.ADMIN))
    work.clock.advance(20)
    who = await pia(work)
    seen = await desk.open(who)
    assert [review.run_id for review in seen] == [late, *reversed(runs)]
    assert [review.tenant_name for review in seen] == ["Small", "Big", "Middle", "Small"]
    assert [review.run_id for review in await desk.find(who, overdue=True)] == [late]
    own = await desk.open(await work.context("middle", Role.MEMBER))
    assert [(review.run_id, review.tenant_name) for review in own] == [(runs[1], None)]
    with pytest.raises(Forbidden):
        await desk.open(await work.operator())


async def test_a_decision_of_a_shared_pool_wins_once_and_stands_in_the_organisations_own_audit(work: Work) -> None:
    desk = Desk(work.db, work.reviews, work.tenants, work.clock)
    union, own = await work.tenant("union"), await work.tenant("own", Policy(reviewer_pool="dedicated"))
    run_id, foreign = await asked(work, union), await asked(work, own)
    (review,), (theirs,) = await work.reviews.open(union), await work.reviews.open(own)
    who = await pia(work)
    claimed = await desk.claim(who, review.review_id)
    assert [claim.by for claim in claimed.claims] == [who.actor]
    assert [one.run_id for one in await desk.mine(who)] == [run_id]
    with pytest.raises(InvalidInput):
        await desk.delegate(who, review.review_id, "usr_any")
    for act in (
        desk.get(who, theirs.review_id),
        desk.claim(who, theirs.review_id),
        desk.decide(who, theirs.review_id, "approve"),
        desk.decide(who, "rev_none", "approve"),
    ):
        with pytest.raises(NotFound):
            await act
    results = await desk.decide_many(who, [review.review_id, theirs.review_id], "approve", "fine")
    assert [result.outcome for result in results] == ["decided", "not_found"]
    with pytest.raises(Conflict):
        await work.reviews.decide(union, review.review_id, "decline", "too late")
    assert (await work.runs.get(union, run_id)).state is RunState.QUEUED
    assert [(act.act, act.actor) for act in await work.audit.recent(union)][:2] == [
        ("review.decide", who.actor),
        ("review.claim", who.actor),
    ]
    assert [(one.run_id, one.verdict, one.tenant_name) for one in await desk.recent(who)] == [
        (run_id, "approve", "Union")
    ]
    assert (await work.runs.get(own, foreign)).state is RunState.WAITING


async def test_a_pool_reviewer_has_no_other_right_anywhere(settings: Settings) -> None:
    async with web_in(settings) as web:
        await web.admin("union")
        async with web.browser("pia@platform.example", PLATFORM, Role.POOL_REVIEWER) as browser:
            assert (await browser.get("/api/v1/reviews")).json() == {"reviews": []}
            for path in ("runs", "schedules", "memories", "tenant", "api-keys"):
                assert (await browser.get(f"/api/v1/{path}")).status_code == 403, path
        union = await web.admin("union")
        with pytest.raises(InvalidInput):
            await web.platform.tenants.add_user(
                union, union.tenant_id, "x@union.example", "X", "a long password", (Role.POOL_REVIEWER,)
            )

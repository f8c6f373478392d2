"""The fair queue inside a tenant, its bursts, and the causes of each wait, on a real database and a still clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from core.clock import FakeClock
from core.ids import UserId, WorkerId
from core.queue.model import Claim
from core.runs.model import Cause, Lane, RunView
from core.settings import Settings
from core.tenancy import Policy, TenantContext
from ops_dashboard import data
from tests.fixtures.work import Work, work_in


@pytest.fixture
async def work(settings: Settings) -> AsyncIterator[Work]:
    """The rooms, on a clock that stands still."""
    async with work_in(settings, FakeClock()) as rooms:
        yield rooms
        assert await rooms.queue.faults() == []


def of(ctx: TenantContext, user: str) -> TenantContext:
    """The same tenant, another person."""
    return replace(ctx, user_id=UserId(user))


async def one_by_one(work: Work, count: int, seconds: float = 1.0) -> list[Claim]:
    """Claims of one slot after the other, each held for some seconds."""
    claims: list[Claim] = []
    for _ in range(count):
        claims += await work.claim("w", 1)
        work.clock.advance(seconds)
        await work.finish(claims[-1])
    return claims


async def test_users_of_a_tenant_share_its_lane_and_splitting_over_users_gains_nothing(work: Work) -> None:
    crowd, alone = await work.tenant("crowd"), await work.tenant("alone")
    await work.submit(of(crowd, "usr_a"), 100)
    await work.submit(of(crowd, "usr_b"), 10)
    await work.submit(alone, 100)
    claims = await one_by_one(work, 40)
    assert Counter(claim.tenant_id for claim in claims) == {crowd.tenant_id: 20, alone.tenant_id: 20}
    inside = Counter(claim.user_id for claim in claims if claim.tenant_id == crowd.tenant_id)
    assert inside == {UserId("usr_a"): 10, UserId("usr_b"): 10}


async def test_a_user_who_comes_back_has_no_credit(work: Work) -> None:
    ctx = await work.tenant("bank")
    await work.submit(of(ctx, "usr_a"), 60)
    await one_by_one(work, 18)
    await work.submit(of(ctx, "usr_b"), 30)
    claims = await one_by_one(work, 8)
    assert Counter(claim.user_id for claim in claims)[UserId("usr_b")] in (4, 5)


async def test_lanes_are_strict_but_every_tenth_run_of_a_tenant_is_its_oldest(work: Work) -> None:
    ctx = await work.tenant("bank")
    await work.submit(ctx, 5, lane=Lane.BACKGROUND)
    work.clock.advance(1)
    await work.submit(ctx, 100, lane=Lane.URGENT)
    lanes = [(await work.runs.get(ctx, claim.run_id)).lane for claim in await one_by_one(work, 30)]
    assert [n for n, lane in enumerate(lanes, start=1) if lane is Lane.BACKGROUND] == [10, 20, 30]


async def test_a_tenant_that_marks_everything_urgent_gains_nothing(work: Work) -> None:
    loud, calm = await work.tenant("loud"), await work.tenant("calm")
    await work.submit(loud, 50, lane=Lane.URGENT)
    await work.submit(calm, 50, lane=Lane.BACKGROUND)
    claims = await one_by_one(work, 40)
    assert Counter(claim.tenant_id for claim in claims) == {loud.tenant_id: 20, calm.tenant_id: 20}


async def test_users_and_workflows_are_held_to_caps_of_their_own(work: Work) -> None:
    ctx = await work.tenant("bank", Policy(concurrency_cap=50, user_cap=3, workflow_caps={"slow": 2}))
    await work.submit(of(ctx, "usr_a"), 10)
    await work.submit(of(ctx, "usr_b"), 10, "slow")
    claims = await work.claim("w", 50)
    assert Counter((c.user_id, c.workflow) for c in claims) == {("usr_a", "loan-approval"): 3, ("usr_b", "slow"): 2}
    assert await work.claim("w", 50) == []
    await work.finish(next(c for c in claims if c.workflow == "slow"))
    assert [c.workflow for c in await work.claim("w", 50)] == ["slow"]
    operator = await work.operator()
    await work.tenants.change_policy(operator, ctx.tenant_id, Policy(concurrency_cap=50, user_cap=4))
    assert Counter(c.user_id for c in await work.claim("w", 50)) == {"usr_a": 1, "usr_b": 2}


async def test_the_tables_refuse_a_slot_beyond_a_cap_whoever_writes_it(work: Work, owner_dsn: str) -> None:
    ctx = await work.tenant("bank", Policy(concurrency_cap=2, user_cap=2, workflow_caps={"loan-approval": 2}))
    await work.submit(ctx, 5)
    assert len(await work.claim("w", 5)) == 2
    owner = await asyncpg.connect(owner_dsn)
    try:
        for table in ("queue_tenants", "queue_flows", "queue_workflows"):
            with pytest.raises(asyncpg.CheckViolationError):
                await owner.execute(f"update {table} set running = running + 1")
        with pytest.raises(asyncpg.CheckViolationError):
            await owner.execute("update workers set held = slots + 1")
        await work.queue.set_platform_cap(3)
        await work.queue.heartbeat(WorkerId("v"), 5)
        await owner.execute("update workers set held = held + 1 where worker_id = 'v'")
        for worker in ("v", "w"):
            with pytest.raises(asyncpg.CheckViolationError, match="cap of the platform"):
                await owner.execute("update workers set held = held + 1 where worker_id = $1", worker)
        await work.queue.set_platform_cap(1)  # fewer than there are: they go on, and may end
        await owner.execute("update workers set held = held - 1 where worker_id = 'v'")
    finally:
        await owner.close()


async def test_idle_slots_are_lent_over_the_cap_and_paid_back_under_it(work: Work) -> None:
    bursting = Policy(concurrency_cap=2, burst_slots=3, burst_credit_s=10)
    ctx, other = await work.tenant("bank", bursting), await work.tenant("other", Policy(concurrency_cap=20))
    await work.submit(ctx, 50)
    claims = await work.claim("w", 20, slots=20)
    assert [claim.burst for claim in claims] == [False, False, True, True, True]
    work.clock.advance(4)  # three over the cap for four seconds: a debt of 12 worker-seconds
    for claim in claims:
        await work.finish(claim)
    claims = await work.claim("w", 20)
    assert [claim.burst for claim in claims] == [False, False]
    for claim in claims:
        await work.finish(claim)
    work.clock.advance(2)  # two under the cap for two seconds: a debt of 8
    await work.submit(other, 1)
    claims = await work.claim("w", 3)
    assert sorted((claim.tenant_id, claim.burst) for claim in claims) == [
        ("bank", False),
        ("bank", False),
        ("other", False),
    ]
    assert [claim.burst for claim in await work.claim("w", 20)] == [True, True, True]


async def test_a_cap_that_is_lowered_under_what_runs_makes_no_debt(work: Work) -> None:
    operator = await work.operator()
    usual = Policy(concurrency_cap=4, burst_slots=2, burst_credit_s=10)
    ctx = await work.tenant("bank", usual)
    await work.submit(ctx, 12)
    claims = await work.claim("w", 20, slots=20)
    assert [claim.burst for claim in claims] == [False, False, False, False, True, True]
    await work.tenants.change_policy(operator, ctx.tenant_id, usual.model_copy(update={"concurrency_cap": 1}))
    work.clock.advance(4)  # five over the cap, two of them lent: 8 worker-seconds
    await work.tenants.change_policy(operator, ctx.tenant_id, usual)
    for claim in claims:
        await work.finish(claim)
    assert [claim.burst for claim in await work.claim("w", 20)] == [False, False, False, False, True, True]


async def test_nobody_bursts_into_the_headroom(work: Work) -> None:
    ctx = await work.tenant("bank", Policy(concurrency_cap=2, burst_slots=50, burst_credit_s=100))
    await work.submit(ctx, 50)
    assert len(await work.claim("w", 20, slots=20)) == 19


async def test_the_platform_holds_no_more_slots_than_its_cap(work: Work) -> None:
    ctx = await work.tenant("bank", Policy(concurrency_cap=50))
    await work.submit(ctx, 50)
    assert await work.queue.set_platform_cap(7) is None
    claims = await work.claim("w", 50)
    assert len(claims) + len(await work.claim("v", 50)) == 6  # one of the seven is headroom
    assert await work.queue.set_platform_cap(None) == 7
    assert await work.claim("v", 50) != []


async def waited(owner_dsn: str, run: RunView) -> dict[str, float]:
    """Seconds a run waited for its last slot, by cause, as far as it waited for that."""
    owner = await asyncpg.connect(owner_dsn)
    try:
        row = await owner.fetchrow(
            "select *, extract(epoch from claimed_at - queued_at)::float8 as wait_s from slot_uses "
            "where run_id = $1 order by claimed_at desc limit 1",
            run.run_id,
        )
        assert row is not None
        causes = {name: round(row[name], 6) for name in ("capped_s", "paused_s", "no_worker_s", "no_code_s")}
        causes |= {"share_s": round(row["wait_s"] - sum(causes.values()), 6)}
        return {name: seconds for name, seconds in causes.items() if seconds}
    finally:
        await owner.close()


async def test_every_second_of_a_wait_has_its_cause(work: Work, owner_dsn: str) -> None:
    ctx, operator = await work.tenant("bank", Policy(concurrency_cap=1)), await work.operator()
    first, second = await work.submit(ctx, 2)
    work.clock.advance(2)  # nobody works
    (claim,) = await work.claim("w", 1)
    assert claim.run_id == first.run_id
    work.clock.advance(3)  # at its cap
    await work.tenants.pause(operator, ctx.tenant_id, True)
    work.clock.advance(5)  # paused
    await work.finish(claim)
    await work.tenants.pause(operator, ctx.tenant_id, False)
    work.clock.advance(7)  # it could start, but others are served
    (claim,) = await work.claim("w", 1)
    work.clock.advance(1)
    await work.finish(claim)
    assert await waited(owner_dsn, first) == {"no_worker_s": 2}
    assert await waited(owner_dsn, second) == {"capped_s": 3, "paused_s": 5, "no_worker_s": 2, "share_s": 7}


async def test_clocks_that_differ_count_no_second_twice(work: Work, owner_dsn: str) -> None:
    ctx = await work.tenant("bank", Policy(concurrency_cap=2, burst_slots=1, burst_credit_s=1_000))
    await work.submit(ctx, 40)
    claims = await work.claim("w", 3, slots=9)
    for turn in range(20):  # two machines, one half a second behind
        work.clock.advance(-0.5 if turn % 2 else 1.0)
        await work.finish(claims.pop(0))
        claims += await work.claim("w", 1)
    owner = await asyncpg.connect(owner_dsn)
    try:
        tenant = await owner.fetchrow("select debt_s, capped_s from queue_tenants where tenant_id = 'bank'")
    finally:
        await owner.close()
    assert tenant is not None
    assert tenant["capped_s"] == tenant["debt_s"] == 5.5


@pytest.mark.parametrize(
    ("caps", "before"), [({"user_cap": 1}, Cause.SHARE), ({"workflow_caps": {"loan-approval": 1}}, Cause.CAP)]
)
async def test_a_cap_inside_the_tenant_is_told_as_the_cause_while_it_holds_all_that_is_queued(
    work: Work, owner_dsn: str, caps: dict[str, Any], before: Cause
) -> None:
    ctx = of(await work.tenant("bank", Policy(concurrency_cap=50, **caps)), "usr_a")
    await work.queue.heartbeat(WorkerId("w"), 9)
    await work.submit(ctx, 1)
    (claim,) = await work.claim("w", 9)
    work.clock.advance(1)
    second, third = await work.submit(ctx, 2)
    work.clock.advance(2)  # nobody has looked: the slots may be those of others
    assert (await work.runs.get(ctx, second.run_id)).cause is before
    assert await work.claim("w", 9) == []
    work.clock.advance(4)
    (fourth,) = await work.submit(ctx, 1)
    assert await work.claim("w", 9) == []
    work.clock.advance(8)
    assert (await work.runs.get(ctx, third.run_id)).cause is Cause.CAP
    standing = await work.runs.standing(ctx, await work.runs.get(ctx, fourth.run_id))
    assert standing.waited_s == {Cause.CAP: 8}
    await work.finish(claim)
    (claim,) = await work.claim("w", 9)
    assert claim.run_id == second.run_id
    await work.finish(claim)
    assert await waited(owner_dsn, second) == {"capped_s": 12, "share_s": 2}


async def test_a_run_of_a_workflow_at_its_cap_says_so_while_others_of_its_tenant_go_on(work: Work) -> None:
    ctx = await work.tenant("bank", Policy(concurrency_cap=50, workflow_caps={"slow": 0}))
    await work.queue.heartbeat(WorkerId("w"), 9)
    (slow,) = await work.submit(ctx, 1, "slow")
    (quick, *_) = await work.submit(ctx, 20, "quick")
    assert (slow.cause, quick.cause) == (Cause.CAP, Cause.SHARE)
    assert await work.claim("w", 1) != []
    last = (await work.runs.list(ctx, state="queued", workflow="quick", limit=1))[0][0]
    assert ((await work.runs.get(ctx, slow.run_id)).cause, last.cause) == (Cause.CAP, Cause.SHARE)
    seen = await data.pulse(work.db, await work.operator(), work.clock.now())
    assert [seen.queued_cause("bank", name, "1") for name in ("slow", "quick")] == [Cause.CAP, Cause.SHARE]


async def test_a_tenant_that_somebody_writes_about_holds_up_no_claim_of_others(work: Work) -> None:
    busy, other = await work.tenant("busy"), await work.tenant("other")
    await work.submit(busy, 1)
    await work.submit(other, 1)
    async with work.db.tenant_transaction(busy) as tx:
        await work.queue.lock_in(tx)
        assert [claim.tenant_id for claim in await work.claim("w", 2)] == ["other"]
    assert [claim.tenant_id for claim in await work.claim("w", 2)] == ["busy"]


async def test_users_whose_share_is_even_are_forgotten_and_lose_nothing_by_it(work: Work) -> None:
    ctx = await work.tenant("bank")
    await work.submit(of(ctx, "usr_a"), 1)
    await work.submit(of(ctx, "usr_b"), 4)
    await one_by_one(work, 4)
    assert await work.queue.forget_flows() == 1
    await work.submit(of(ctx, "usr_a"), 2)
    claims = await one_by_one(work, 3)
    assert Counter(claim.user_id for claim in claims) == {"usr_a": 2, "usr_b": 1}

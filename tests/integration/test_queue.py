"""The fair queue on a real database, at times of our own choosing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from core.clock import FakeClock
from core.ids import TenantId, WorkerId
from core.queue import store
from core.queue.model import DEAD_AFTER_S, HEADROOM, Claim, Held
from core.queue.service import QueueService
from core.runs.execution import Wait
from core.runs.model import Cause, Lane, RunState
from core.settings import Settings
from core.tenancy import Policy
from tests.fixtures.work import Work, work_in


@pytest.fixture
async def work(settings: Settings) -> AsyncIterator[Work]:
    """The rooms, on a clock that stands still."""
    async with work_in(settings, FakeClock()) as rooms:
        yield rooms


async def test_a_cap_holds_under_several_claiming_workers(work: Work) -> None:
    ctx = await work.tenant("bank", Policy(concurrency_cap=7))
    await work.submit(ctx, 60)
    for number in range(4):
        await work.queue.heartbeat(WorkerId(f"w{number}"), 50)
    claims = await asyncio.gather(*(work.queue.claim(WorkerId(f"w{n % 4}"), 5) for n in range(16)))
    assert sum(len(claimed) for claimed in claims) == 7
    assert len({claim.run_id for claimed in claims for claim in claimed}) == 7
    assert await work.queue.faults() == []


async def test_backlogged_tenants_share_seconds_by_weight_whatever_their_runs_last(work: Work) -> None:
    lengths = {"heavy": 8.0, "light": 1.0, "third": 2.0}
    weights = {"heavy": 1.0, "light": 1.0, "third": 4.0}
    for name, weight in weights.items():
        ctx = await work.tenant(name, Policy(weight=weight, concurrency_cap=100))
        await work.submit(ctx, 1_000)
    busy: list[tuple[float, Claim]] = []
    used: Counter[str] = Counter()
    now = 0.0
    while now < 240.0:
        claims = await work.claim("w", 12 - len(busy))
        busy += [(now + lengths[claim.tenant_id], claim) for claim in claims]
        ends = min(end for end, _ in busy)
        work.clock.advance(ends - now)
        now = ends
        for end, claim in [entry for entry in busy if entry[0] <= now]:
            busy.remove((end, claim))
            used[claim.tenant_id] += int(lengths[claim.tenant_id])
            await work.finish(claim)
    shares = {name: used[name] / weights[name] for name in weights}
    jain = sum(shares.values()) ** 2 / (len(shares) * sum(share**2 for share in shares.values()))
    assert jain > 0.99, shares


async def test_a_tenant_that_was_idle_has_no_credit(work: Work) -> None:
    busy = await work.tenant("busy", Policy(concurrency_cap=100))
    await work.submit(busy, 200)
    for _ in range(50):
        (claim,) = await work.claim("w", 1)
        work.clock.advance(1)
        await work.finish(claim)
    late = await work.tenant("late", Policy(concurrency_cap=100))
    await work.submit(late, 50)
    claims = await work.claim("w", 20)
    assert Counter(claim.tenant_id for claim in claims)[TenantId("late")] <= 11


async def test_the_lightest_tenant_that_there_may_be_stops_no_claim(work: Work) -> None:
    field = Policy.model_json_schema()["properties"]["weight"]
    light = await work.tenant("light", Policy(weight=field["minimum"]))
    heavy = await work.tenant("heavy", Policy(weight=field["maximum"]))
    for _ in range(3):
        await work.submit(light, 1)
        (claim,) = await work.claim("w", 1)
        work.clock.advance(366 * 86_400)
        await work.finish(claim)
    await work.submit(heavy, 1)
    await work.submit(light, 1)
    assert [claim.tenant_id for claim in await work.claim("w", 2)] == ["heavy", "light"]


async def test_headroom_keeps_a_slot_for_a_quiet_tenant(work: Work) -> None:
    noisy = await work.tenant("noisy", Policy(concurrency_cap=1000))
    await work.submit(noisy, 100)
    assert len(await work.claim("w", 20, slots=20)) == 19
    quiet = await work.tenant("quiet")
    await work.submit(quiet, 2)
    claims = await work.claim("w", 20, slots=20)
    assert [claim.tenant_id for claim in claims] == ["quiet"]


async def test_a_declared_headroom_keeps_as_many_slots(work: Work) -> None:
    half = QueueService(work.db, work.bus, work.clock, headroom=0.5)
    noisy, quiet = await work.tenant("noisy", Policy(concurrency_cap=1000)), await work.tenant("quiet")
    await work.submit(noisy, 100)
    await half.heartbeat(WorkerId("w"), 20)
    assert len(await half.claim(WorkerId("w"), 20)) == 10
    await work.submit(quiet, 2)
    assert {claim.tenant_id for claim in await half.claim(WorkerId("w"), 20)} == {"quiet"}


def test_the_headroom_of_simulations_is_that_of_an_installation_that_declares_none() -> None:
    assert Settings.model_fields["queue_headroom"].default == HEADROOM


async def test_lanes_order_runs_inside_a_tenant_only(work: Work) -> None:
    ctx = await work.tenant("bank", Policy(concurrency_cap=10))
    await work.submit(ctx, 1, lane=Lane.BACKGROUND)
    await work.submit(ctx, 1, lane=Lane.NORMAL)
    (urgent,) = await work.submit(ctx, 1, lane=Lane.URGENT)
    (claim,) = await work.claim("w", 1)
    assert claim.run_id == urgent.run_id


async def test_pause_weight_and_cap_act_on_what_is_already_queued(work: Work) -> None:
    ctx = await work.tenant("bank", Policy(concurrency_cap=2))
    operator = await work.operator()
    await work.submit(ctx, 10)
    await work.tenants.pause(operator, ctx.tenant_id, True)
    assert await work.claim("w", 10) == []
    assert (await work.runs.list(ctx, limit=1))[0][0].cause is Cause.PAUSED
    await work.tenants.pause(operator, ctx.tenant_id, False)
    assert len(await work.claim("w", 10)) == 2
    assert (await work.runs.list(ctx, state="queued", limit=1))[0][0].cause is Cause.CAP
    await work.tenants.change_policy(operator, ctx.tenant_id, Policy(concurrency_cap=5))
    assert len(await work.claim("w", 10)) == 3


async def test_a_worker_that_lost_its_slot_writes_nothing(work: Work) -> None:
    ctx = await work.tenant("bank")
    (run,) = await work.submit(ctx, 1)
    (claim,) = await work.claim("silent", 1)
    work.clock.advance(DEAD_AFTER_S + 1)
    assert [lost.run_id for lost in await work.queue.recover()] == [run.run_id]
    (again,) = await work.claim("other", 1)
    assert again.attempt == 2
    silent = await work.executing(claim)
    assert not await work.execution.end(silent, RunState.FAILED, error={"code": "x", "message": "late"})
    assert (await work.runs.get(ctx, run.run_id)).state is RunState.RUNNING
    await work.finish(again)
    assert (await work.runs.get(ctx, run.run_id)).state is RunState.SUCCEEDED
    assert await work.queue.faults() == []


async def test_the_next_death_is_that_of_whoever_holds_runs_and_is_silent_for_the_longest(work: Work) -> None:
    ctx = await work.tenant("bank")
    await work.submit(ctx, 2)
    await work.queue.heartbeat(WorkerId("holds nothing"), 5)
    work.clock.advance(1)
    assert await work.queue.until_death_s() is None
    await work.claim("silent", 1)
    work.clock.advance(2)
    await work.claim("spoke", 1)
    work.clock.advance(1)
    assert await work.queue.until_death_s() == DEAD_AFTER_S - 3
    work.clock.advance(DEAD_AFTER_S - 2)
    await work.queue.heartbeat(WorkerId("spoke"), 1_000)
    await work.queue.recover()
    assert await work.queue.until_death_s() == DEAD_AFTER_S


async def test_a_worker_that_dies_before_the_clock_goes_back_is_taken_for_dead_soon_after(work: Work) -> None:
    ctx = await work.tenant("bank")
    (run,) = await work.submit(ctx, 1)
    await work.claim("silent", 1)
    work.queue.forgive_silence()
    assert await work.queue.recover() == []  # from here on it sees
    work.clock.advance(-3_600)
    assert await work.queue.recover() == []
    work.clock.advance(DEAD_AFTER_S + 1)
    assert [lost.run_id for lost in await work.queue.recover()] == [run.run_id]


async def test_a_clock_that_goes_back_neither_silences_nor_delays_workers_that_pass_over_tenants(
    work: Work, owner_dsn: str
) -> None:
    ctx = await work.tenant("bank")
    await work.submit(ctx, 1, "loan")

    async def others_wanted() -> bool:
        await work.queue.heartbeat(WorkerId("w"), 1, codes=["letter@1"])
        async with work.db.control_statement() as tx:
            return (await store.claim(tx, WorkerId("w"), 1, HEADROOM, work.clock.now()))[1]

    assert [await others_wanted(), await others_wanted()] == [True, False]
    owner = await asyncpg.connect(owner_dsn)
    try:
        await owner.execute("update workers set behind_since = $1", work.clock.now())
        look_again = "select app.look_again('w', 'infinity', $1, '{letter@1}', '{}')"
        assert await owner.fetchval(look_again, work.clock.now()) == work.clock.now() + timedelta(seconds=1)
        work.clock.advance(-3_600)
        assert await owner.fetchval(look_again, work.clock.now()) is None
    finally:
        await owner.close()
    assert [await others_wanted(), await others_wanted()] == [True, False]


async def test_a_wake_up_between_arming_and_parking_is_not_lost(work: Work) -> None:
    ctx = await work.tenant("bank")
    await work.submit(ctx, 1)
    (claim,) = await work.claim("w", 1)
    on = await work.executing(claim)
    await work.execution.await_event(on, Wait(1, "event: go", Cause.EVENT, key="go/1"), "go", "1")
    assert await work.runs.send_event(ctx, "go", "1", {"x": 1})
    assert await work.execution.park(on) is RunState.QUEUED
    assert [claim.attempt for claim in await work.claim("w", 1)] == [2]


async def test_due_timers_wake_their_runs_at_the_head_of_the_lane(work: Work) -> None:
    ctx = await work.tenant("bank", Policy(concurrency_cap=1))
    (first, _) = await work.submit(ctx, 2)
    (claim,) = await work.claim("w", 1)
    on = await work.executing(claim)
    wake_at = work.clock.advance(0)
    await work.execution.sleep(on, Wait(1, "sleep", Cause.TIMER, wake_at=wake_at))
    assert await work.execution.park(on) is RunState.WAITING
    assert (await work.runs.get(ctx, first.run_id)).cause is Cause.TIMER
    assert await work.queue.next_wake() == wake_at
    assert [woken.run_id for woken in await work.queue.wake_due()] == [first.run_id]
    assert await work.queue.wake_due() == []
    assert [claim.run_id for claim in await work.claim("w", 1)] == [first.run_id]


async def test_cancelling_queued_and_waiting_runs_acts_at_once(work: Work) -> None:
    ctx = await work.tenant("bank", Policy(concurrency_cap=1))
    parked, queued = await work.submit(ctx, 2)
    (claim,) = await work.claim("w", 1)
    on = await work.executing(claim)
    await work.execution.arm_wait(on, Wait(1, "bureau", Cause.RATE))
    await work.execution.park(on)
    for run in (parked, queued):
        assert (await work.control.cancel(ctx, run.run_id)).state is RunState.CANCELLED
    assert await work.claim("w", 5) == []
    assert await work.queue.faults() == []


async def test_one_tenant_can_neither_push_wake_nor_cancel_anothers_runs(work: Work) -> None:
    mine = await work.tenant("mine")
    theirs = await work.tenant("theirs")
    (run,) = await work.submit(theirs, 1)
    async with work.db.tenant_transaction(mine) as tx:
        await work.queue.push_in(tx, [run.run_id], work.clock.now())
        assert not await work.queue.wake_in(tx, run.run_id, 1)
        assert await work.queue.cancel_in(tx, run.run_id) is None
        assert await work.queue.release_in(tx, Held(run.run_id, 0)) is None
    assert (await work.runs.get(theirs, run.run_id)).state is RunState.QUEUED


async def test_what_a_pause_or_a_cap_held_back_is_no_credit_when_it_is_lifted(work: Work) -> None:
    operator = await work.operator()
    lifted, other = await work.tenant("lifted", Policy(concurrency_cap=1)), await work.tenant("other")
    await work.submit(lifted, 100)
    await work.submit(other, 100)
    (held,) = [claim for claim in await work.claim("w", 2) if claim.tenant_id == "lifted"]
    await work.tenants.pause(operator, lifted.tenant_id, True)
    for _ in range(50):
        (claim,) = await work.claim("w", 1)
        work.clock.advance(1)
        await work.finish(claim)
    await work.finish(held)
    await work.tenants.change_policy(operator, lifted.tenant_id, Policy(concurrency_cap=50))
    await work.tenants.pause(operator, lifted.tenant_id, False)
    served = Counter[str]()
    for _ in range(20):
        (claim,) = await work.claim("w", 1)
        work.clock.advance(1)
        await work.finish(claim)
        served[claim.tenant_id] += 1
    assert served["lifted"] <= 11

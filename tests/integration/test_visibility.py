"""Why a run waits and when it will start, held against what the real queue then does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from core.clock import FakeClock
from core.ids import RunId, UserId, WorkerId
from core.queue.estimate import StartsIn
from core.queue.model import Claim, code_of
from core.queue.shares import Claimant, max_min
from core.queue.store import fair_level
from core.runs.execution import Wait
from core.runs.model import Cause, Lane, RunView
from core.settings import Settings
from core.tenancy import Policy, TenantContext
from tests.fixtures.work import Work, work_in

RUN_S = 2.0
TICK_S = 0.25


@pytest.fixture
async def work(settings: Settings) -> AsyncIterator[Work]:
    async with work_in(settings, FakeClock()) as opened:
        yield opened


async def learned(work: Work, ctx: TenantContext) -> None:
    """One run of the tenant ends, so that the queue knows how long they last."""
    await work.submit(ctx, 1)
    (claim,) = await work.claim("teacher", 1, slots=1)
    work.clock.advance(RUN_S)
    await work.finish(claim)
    assert await work.queue.leave(WorkerId("teacher"))


async def estimate(work: Work, ctx: TenantContext, run: RunView) -> StartsIn | None:
    return (await work.runs.standing(ctx, run)).starts_in


async def starts(work: Work, slots: int, expected: int) -> dict[str, float]:
    """Play a worker whose runs all last ``RUN_S`` until so many have started: seconds from now, by run."""
    began = work.clock.now()
    started: dict[str, float] = {}
    held: list[tuple[float, Claim]] = []
    while len(started) < expected:
        at = (work.clock.now() - began).total_seconds()
        for claim in [claim for ends, claim in held if ends <= at]:
            await work.finish(claim)
        held = [one for one in held if one[0] > at]
        for claim in await work.claim("w", slots - len(held), slots=slots):
            started[claim.run_id] = at
            held.append((at + RUN_S, claim))
        work.clock.advance(TICK_S)
    return started


def close(found: StartsIn | None, started: float) -> bool:
    """Within the error that ``core.queue.estimate`` states."""
    assert found is not None
    error_s = 2 * RUN_S + 0.1 * found.latest_s
    return found.soonest_s - error_s <= started <= found.latest_s + error_s


async def test_starts_come_when_the_estimates_said_while_three_tenants_share_the_slots(work: Work) -> None:
    tenants = {
        "bank": await work.tenant("bank", Policy(weight=3, concurrency_cap=50)),
        "union": await work.tenant("union", Policy(weight=1, concurrency_cap=50)),
        "startup": await work.tenant("startup", Policy(weight=4, concurrency_cap=2)),
    }
    for ctx in tenants.values():
        await learned(work, ctx)
    await work.queue.heartbeat(WorkerId("w"), 9)  # eight to share, and the headroom
    submitted = {name: await work.submit(ctx, 40) for name, ctx in tenants.items()}
    work.clock.advance(1)
    asked = {
        run.run_id: await estimate(work, tenants[name], run)
        for name, runs in submitted.items()
        for run in (runs[0], runs[9], runs[19], runs[39])
    }
    started = await starts(work, 9, expected=120)
    wrong = {run_id: (found, started[run_id]) for run_id, found in asked.items() if not close(found, started[run_id])}
    assert wrong == {}
    last = asked[submitted["startup"][-1].run_id]
    assert last is not None
    assert last.latest_s == pytest.approx(40 * RUN_S / 2, rel=0.1)  # its cap, whatever the others do


async def test_an_estimate_counts_the_lanes_and_users_before_a_run(work: Work) -> None:
    bank = await work.tenant("bank", Policy(concurrency_cap=4))
    await learned(work, bank)
    await work.queue.heartbeat(WorkerId("w"), 6)
    mia, ravi = (replace(bank, user_id=UserId(f"usr_{name}")) for name in ("mia", "ravi"))
    late = await work.submit(mia, 30, lane=Lane.BACKGROUND)
    work.clock.advance(0.01)
    hers = await work.submit(mia, 30)
    work.clock.advance(0.01)
    his = await work.submit(ravi, 10)
    work.clock.advance(0.01)
    urgent = await work.submit(mia, 5, lane=Lane.URGENT)
    work.clock.advance(1)  # what tenants want is known for a second
    runs = [late[0], late[29], hers[0], hers[12], hers[29], his[0], his[9], urgent[0], urgent[4]]
    asked = {run.run_id: await estimate(work, bank, run) for run in runs}
    started = await starts(work, 6, expected=75)
    wrong = {run_id: (found, started[run_id]) for run_id, found in asked.items() if not close(found, started[run_id])}
    assert wrong == {}
    # His tenth run is behind about as many of hers; her last behind all of his.
    assert started[his[9].run_id] < started[hers[12].run_id] < started[hers[29].run_id]


@pytest.mark.parametrize("cap", [{"user_cap": 1}, {"workflow_caps": {"loan-approval": 1}}])
async def test_caps_inside_the_tenant_are_counted(work: Work, cap: dict[str, Any]) -> None:
    bank = await work.tenant("bank", Policy(concurrency_cap=8, **cap))
    await learned(work, bank)
    await work.queue.heartbeat(WorkerId("w"), 9)
    runs = await work.submit(bank, 12)
    asked = {run.run_id: await estimate(work, bank, run) for run in runs}
    started = await starts(work, 9, expected=12)
    assert started[runs[11].run_id] == pytest.approx(11 * RUN_S, rel=0.1)
    assert all(close(found, started[run_id]) for run_id, found in asked.items())


async def test_what_nobody_can_know_is_not_estimated(work: Work) -> None:
    bank = await work.tenant("bank")
    (run,) = await work.submit(bank, 1)
    assert await estimate(work, bank, run) is None  # no worker
    await work.queue.heartbeat(WorkerId("w"), 4, codes=["loan-approval@2"])
    assert await estimate(work, bank, run) is None  # none with its code
    work.clock.advance(1)  # for so long it is known who has what
    await work.queue.heartbeat(WorkerId("w"), 4)
    assert await estimate(work, bank, run) == StartsIn(0, 0)
    await work.tenants.pause(await work.operator(), bank.tenant_id, True)
    assert await estimate(work, bank, run) is None
    await work.tenants.pause(await work.operator(), bank.tenant_id, False)
    await work.queue.set_platform_cap(0)
    assert await estimate(work, bank, run) is None
    await work.queue.set_platform_cap(None)
    await work.claim("w", 1, slots=4)
    assert await estimate(work, bank, run) is None  # it is not queued


@pytest.mark.parametrize("slots", [1, 7, 20, 55, 200])
async def test_the_level_of_the_shares_is_that_of_the_max_min_division(work: Work, slots: int) -> None:
    wants = {"one": (1.0, 4, 9), "two": (2.5, 3, 20), "three": (8.0, 20, 60), "four": (1.0, 30, 2), "five": (0.5, 9, 0)}
    for name, (weight, cap, queued) in wants.items():
        ctx = await work.tenant(f"tenant-{name}", Policy(weight=weight, concurrency_cap=cap))
        if queued:
            await work.submit(ctx, queued)
    shares = max_min(slots, {name: Claimant(min(cap, queued), w) for name, (w, cap, queued) in wants.items() if queued})
    async with work.db.control_transaction() as tx:
        level = await fair_level(tx, slots)
    for name, share in shares.items():
        weight, cap, queued = wants[name]
        assert share == pytest.approx(min(cap, queued, *([] if level is None else [weight * level])))


async def test_all_waiting_of_a_run_is_divided_by_cause_while_it_lasts_and_afterwards(work: Work) -> None:
    bank = await work.tenant("bank", Policy(concurrency_cap=1))
    operator = await work.operator()
    first, second = await work.submit(bank, 2)
    work.clock.advance(3)  # no worker
    (claim,) = await work.claim("w", 1, slots=2)
    work.clock.advance(5)  # the second waits for the cap
    assert (await work.runs.standing(bank, second)).waited_s == {Cause.NO_WORKER: 3, Cause.CAP: 5}
    await work.finish(claim)
    await work.tenants.pause(operator, bank.tenant_id, True)
    work.clock.advance(7)
    await work.tenants.pause(operator, bank.tenant_id, False)
    work.clock.advance(2)  # nobody claims: the share of others
    (claim,) = await work.claim("w", 1, slots=2)
    on = await work.executing(claim)
    wake_at = work.clock.now() + timedelta(seconds=11)
    await work.execution.arm_wait(on, Wait(1, "sleep", Cause.TIMER, wake_at=wake_at))
    await work.execution.park(on)
    work.clock.advance(4)
    expected = {Cause.NO_WORKER: 3, Cause.CAP: 5, Cause.PAUSED: 7, Cause.SHARE: 2, Cause.TIMER: 4}
    assert (await work.runs.standing(bank, second)).waited_s == expected
    work.clock.advance(7)
    await work.queue.wake_due()
    (claim,) = await work.claim("w", 1, slots=2)
    await work.finish(claim)
    work.clock.advance(1_000)
    ended = await work.runs.get(bank, second.run_id)
    waited = (await work.runs.standing(bank, ended)).waited_s
    assert waited == {**expected, Cause.TIMER: 11}
    assert ended.finished_at is not None
    assert sum(waited.values()) == (ended.finished_at - ended.submitted_at).total_seconds()
    assert (await work.runs.standing(bank, await work.runs.get(bank, first.run_id))).waited_s == {Cause.NO_WORKER: 3}


async def test_waiting_for_code_is_told_from_waiting_for_a_worker_and_for_others(work: Work, owner_dsn: str) -> None:
    bank = await work.tenant("bank", Policy(concurrency_cap=1))
    first, second = await work.submit(bank, 2, "loan", version="2")
    old, new = [code_of("loan", "1")], [code_of("loan", "2")]
    work.clock.advance(3)  # no worker
    await work.queue.heartbeat(WorkerId("old"), 2, codes=old)
    work.clock.advance(5)  # one without the code
    assert (await work.runs.standing(bank, first)).waited_s == {Cause.NO_WORKER: 3, Cause.NO_CODE: 5}
    await work.queue.heartbeat(WorkerId("new"), 2, codes=new)
    work.clock.advance(1)  # one with it, that does not ask
    (claim,) = await work.claim("new", 1, slots=2, codes=new)
    work.clock.advance(7)  # the second waits for the cap
    await work.queue.heartbeat(WorkerId("new"), 2, draining=True, codes=new)
    await work.finish(claim)
    work.clock.advance(11)  # one that drains takes nothing
    assert await work.queue.leave(WorkerId("new"))
    work.clock.advance(13)
    began = {Cause.NO_WORKER: 3, Cause.NO_CODE: 5, Cause.SHARE: 1}
    waiting = {**began, Cause.NO_CODE: 5 + 11 + 13, Cause.CAP: 7}
    assert (await work.runs.standing(bank, second)).waited_s == waiting
    (claim,) = await work.claim("newer", 1, slots=2, codes=new)
    await work.queue.heartbeat(WorkerId("newer"), 2, draining=True, codes=new)
    work.clock.advance(17)  # of no concern to what executes
    assert (await work.runs.standing(bank, second)).waited_s == waiting
    await work.finish(claim)
    ended = [await work.runs.get(bank, run.run_id) for run in (first, second)]
    assert [(await work.runs.standing(bank, run)).waited_s for run in ended] == [began, waiting]
    owner = await asyncpg.connect(owner_dsn)
    row = await owner.fetchrow("select * from app.wait_causes($1, $2)", first.submitted_at, work.clock.now())
    await owner.close()
    assert row is not None
    assert [row[name] for name in ("capped_s", "paused_s", "no_worker_s", "no_code_s", "share_s")] == [7, 0, 6, 34, 2]


async def test_a_place_in_the_queue_of_another_tenant_is_none(work: Work) -> None:
    bank, union = await work.tenant("bank"), await work.tenant("union")
    (run,) = await work.submit(bank, 1)
    await work.queue.heartbeat(WorkerId("w"), 4)
    async with work.db.tenant_transaction(union) as tx:
        assert await work.queue.starts_in(tx, RunId(run.run_id)) is None

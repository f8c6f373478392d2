"""Runs that kill their workers or break them: taken over so often, then dead with the reason, until people retry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from core.clock import FakeClock
from core.errors import Conflict, Unavailable
from core.ids import WorkerId
from core.queue.model import DEAD_AFTER_S
from core.runs.acts import Act
from core.runs.bulk import Choice
from core.runs.execution import Wait
from core.runs.model import Cause, RunRequest, RunState
from core.settings import Settings
from core.tenancy import Policy
from tests.fixtures.work import Work, work_in
from tests.fixtures.workers import Site, site_in, working

BROKE = {"code": "internal", "message": "KeyError: 'x'"}
W = WorkerId("w")


@pytest.fixture
async def work(settings: Settings) -> AsyncIterator[Work]:
    async with work_in(settings, FakeClock()) as opened:
        yield opened


async def test_a_run_that_takes_too_many_workers_with_it_is_dead_and_can_be_retried(work: Work) -> None:
    ctx = await work.tenant("bank", Policy(max_recoveries=2))
    (run,) = await work.submit(ctx, 1)
    for number in range(3):
        assert [claim.run_id for claim in await work.claim(f"w{number}", 1)] == [run.run_id]
        work.clock.advance(DEAD_AFTER_S + 1)
        (lost,) = await work.queue.recover()
        assert (lost.run_id, lost.reason, lost.dead) == (run.run_id, f"w{number}", number == 2)
    assert await work.claim("w3", 1) == []
    dead = await work.runs.get(ctx, run.run_id)
    assert (dead.state, dead.error) == (
        RunState.DEAD,
        {"code": "worker_died", "message": "Its worker w2 died.", "details": {"recoveries": 3, "limit": 2}},
    )
    assert [one.run_id for one in (await work.runs.list(ctx, state="dead"))[0]] == [run.run_id]
    assert await work.queue.faults() == []

    await work.control.retry(ctx, run.run_id)
    (claim,) = await work.claim("w3", 1)
    work.clock.advance(DEAD_AFTER_S + 1)
    assert [lost.dead for lost in await work.queue.recover()] == [False]  # counted anew
    (claim,) = await work.claim("w4", 1)
    await work.finish(claim)
    kinds = [event.kind for event in await work.runs.events(ctx, run.run_id) if event.kind != "claimed"]
    assert kinds == ["submitted", *["recovered"] * 3, "dead", "retried", "recovered", "succeeded"]


async def test_a_dead_run_without_anything_to_undo_is_cancelled_at_once_and_in_bulk_by_its_state(work: Work) -> None:
    ctx = await work.tenant("bank", Policy(max_recoveries=0))
    runs = await work.submit(ctx, 3)
    for claim in await work.claim("w", 3):
        assert await work.queue.give_back(claim.held, BROKE)
    cancelled = await work.control.cancel(ctx, runs[0].run_id)
    assert (cancelled.state, cancelled.error) == (RunState.CANCELLED, None)
    with pytest.raises(Conflict):
        await work.control.cancel(ctx, runs[0].run_id)
    assert (await work.bulk.preview(ctx, Act.CANCEL, Choice())).runs == 0
    bulk = await work.bulk.preview(ctx, Act.CANCEL, Choice(state=RunState.DEAD))
    applied = await work.bulk.apply(ctx, bulk.bulk_id)
    assert (applied.by_state, applied.done) == ({"dead": 2}, 2)
    assert await work.queue.faults() == []


async def test_a_dead_run_that_is_replayed_or_cancelled_finds_its_way_past_what_had_failed_for_good(work: Work) -> None:
    ctx = await work.tenant("bank", Policy(max_recoveries=0))
    (run,) = await work.submit(ctx, 1)
    (claim,) = await work.claim("w", 1)
    on = await work.executing(claim)
    attempt = await work.execution.begin_step(on, 1, "try", "step")
    await work.execution.fail_step(on, 1, attempt, BROKE, reserved=False)
    await work.execution.fail_for_good(on, 1, "try", "step", BROKE)
    attempt = await work.execution.begin_step(on, 2, "book", "step", undo=True)
    await work.execution.finish_step(on, 2, attempt, "room-7", reserved=False)
    await work.queue.give_back(claim.held, BROKE)
    await work.control.retry(ctx, run.run_id)
    assert (await work.control.cancel(ctx, run.run_id)).state is RunState.QUEUED
    (claim,) = await work.claim("w", 1)
    on = await work.executing(claim)
    failed, booked = await work.execution.recorded(on, 1), await work.execution.recorded(on, 2)
    assert failed is not None
    assert booked is not None
    assert (failed.error, booked.result, booked.undo) == (BROKE, "room-7", True)
    # Asked to do it all again, it does.
    await work.queue.give_back(claim.held, BROKE)
    await work.control.retry(ctx, run.run_id, from_step=1)
    assert (await work.execution.recorded(on, 1), await work.execution.recorded(on, 2)) == (None, None)


async def somebody_waits(watch: asyncpg.Connection[asyncpg.Record]) -> None:
    """Returns when some session waits for what another one has locked."""
    waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    while not await watch.fetchval(waiting):  # noqa: ASYNC110 - the server sets no event
        await asyncio.sleep(0.01)


async def test_somebody_who_decides_about_a_lost_run_and_its_recovery_do_not_wait_for_each_other(
    work: Work, owner_dsn: str
) -> None:
    ctx = await work.tenant("bank")
    await work.submit(ctx, 2)
    first, second = sorted(await work.claim("w", 2), key=lambda claim: claim.run_id)
    await work.reviews.request(
        await work.executing(second), 1, pool="p", title="?", evidence={}, choices=["yes"], sla_s=60
    )
    deciding, watch = await asyncpg.connect(owner_dsn), await asyncpg.connect(owner_dsn)
    async with deciding.transaction():  # as core.reviews.acts does: the review, and the queue when it has decided
        await deciding.execute("select from reviews for update")
        work.clock.advance(DEAD_AFTER_S + 1)
        recovering = asyncio.create_task(work.queue.recover())
        await somebody_waits(watch)
        await deciding.execute("select from queue_tenants for update")
    assert {lost.run_id for lost in await recovering} == {first.run_id, second.run_id}
    await deciding.close()
    await watch.close()


async def test_a_worker_that_speaks_while_its_recovery_waits_keeps_what_it_holds(work: Work, owner_dsn: str) -> None:
    ctx = await work.tenant("bank")
    await work.submit(ctx, 1)
    (claim,) = await work.claim("w", 1)
    on = await work.executing(claim)
    await work.reviews.request(on, 1, pool="p", title="?", evidence={}, choices=["yes"], sla_s=60)
    deciding, watch = await asyncpg.connect(owner_dsn), await asyncpg.connect(owner_dsn)
    async with deciding.transaction():
        await deciding.execute("select from reviews for update")
        work.clock.advance(DEAD_AFTER_S + 1)
        recovering = asyncio.create_task(work.queue.recover())
        await somebody_waits(watch)
        await work.queue.heartbeat(W, 1_000)
    assert await recovering == []
    assert await work.execution.end(on, RunState.SUCCEEDED)
    await deciding.close()
    await watch.close()


async def test_who_locks_several_questions_of_a_run_and_its_end_do_not_wait_for_each_other(
    work: Work, owner_dsn: str
) -> None:
    ctx = await work.tenant("bank")
    await work.submit(ctx, 1)
    (claim,) = await work.claim("w", 1)
    on = await work.executing(claim)
    for step in (2, 1):
        await work.reviews.request(on, step, pool="p", title="?", evidence={}, choices=["yes"], sla_s=60)
        work.clock.advance(1)
    raising, watch = await asyncpg.connect(owner_dsn), await asyncpg.connect(owner_dsn)
    async with raising.transaction():  # as core.runs.budgets does: by their ids
        await raising.execute("select from reviews where step = 2 for update")
        ending = asyncio.create_task(work.execution.end(on, RunState.FAILED, error=BROKE))
        await somebody_waits(watch)
        await raising.execute("select from reviews where step = 1 for update")
    assert await ending
    assert await work.reviews.open(ctx) == []
    await raising.close()
    await watch.close()


async def test_executions_that_break_count_but_neither_handovers_nor_servers_that_are_away(work: Work) -> None:
    ctx = await work.tenant("bank", Policy(max_recoveries=0))
    (run,) = await work.submit(ctx, 1)
    for _ in range(3):
        (claim,) = await work.claim("w", 1)
        assert await work.execution.hand_back(await work.executing(claim))
        (claim,) = await work.claim("w", 1)
        given_back = await work.queue.give_back(claim.held)
        assert given_back is not None
        assert not given_back.dead
        await work.claim("w", 1)
        assert [lost.dead for lost in await work.queue.recover(W)] == [False]  # the answer to the claim was lost
    (claim,) = await work.claim("w", 1)
    on = await work.executing(claim)
    await work.execution.await_event(on, Wait(1, "event: go", Cause.EVENT, key="go/1"), "go", "1")
    await work.reviews.request(on, 2, pool="p", title="?", evidence={}, choices=["yes"], sla_s=60)
    given_back = await work.queue.give_back(claim.held, BROKE)
    assert given_back is not None
    assert given_back.dead
    assert await work.queue.give_back(claim.held, BROKE) is None
    dead = await work.runs.get(ctx, run.run_id)
    assert (dead.state, dead.error and dead.error["message"]) == (RunState.DEAD, BROKE["message"])
    assert await work.reviews.open(ctx) == []
    assert await work.runs.send_event(ctx, "go", "1", {"late": True})
    assert (await work.runs.get(ctx, run.run_id)).state is RunState.DEAD
    assert await work.queue.faults() == []


async def test_workers_that_could_not_speak_while_the_database_was_away_keep_their_runs(
    work: Work, owner_dsn: str
) -> None:
    ctx = await work.tenant("bank")
    (run,) = await work.submit(ctx, 1)
    await work.claim("w", 1)
    owner = await asyncpg.connect(owner_dsn)
    name = await owner.fetchval("select current_database()")
    await owner.execute(f'alter database "{name}" connection limit 0')
    await owner.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and pid <> pg_backend_pid()", name
    )
    try:
        with pytest.raises(Unavailable):
            await work.queue.recover()
    finally:
        await owner.execute(f'alter database "{name}" connection limit -1')
        await owner.close()
    work.clock.advance(10 * DEAD_AFTER_S)
    assert await work.queue.recover() == []
    work.clock.advance(DEAD_AFTER_S - 0.1)
    assert await work.queue.recover() == []
    work.clock.advance(0.2)
    assert [lost.run_id for lost in await work.queue.recover()] == [run.run_id]


async def test_a_worker_that_looks_for_its_own_takes_nothing_from_others(work: Work) -> None:
    ctx = await work.tenant("bank", Policy(concurrency_cap=2))
    await work.submit(ctx, 2)
    await work.claim("silent", 1)
    work.clock.advance(2 * DEAD_AFTER_S)
    (own,) = await work.claim("w", 1)
    assert [lost.run_id for lost in await work.queue.recover(W)] == [own.run_id]


async def moved(site: Site, owner: asyncpg.Connection[asyncpg.Record], region: str) -> None:
    """The tenant belongs to that region, and our processes know it."""
    await owner.execute("update tenants set region = $1 where tenant_id = 'bank'", region)

    async def look() -> bool | None:
        return (await site.platform.tenants.tenant(site.admin.tenant_id)).region == region or None

    await site.until(look)


async def test_a_run_whose_context_cannot_be_built_is_not_tried_for_ever(
    settings: Settings, owner_dsn: str, tmp_path: Path
) -> None:
    owner = await asyncpg.connect(owner_dsn)
    async with site_in(settings, Policy(max_recoveries=1)) as site:
        run, _ = await site.platform.runs.submit(
            site.admin, RunRequest("sample-plain", {"log": str(tmp_path / "effects")})
        )
        await moved(site, owner, "elsewhere")
        async with working(site):
            (dead,) = await site.ended([run])
            assert (dead.state, dead.attempt, dead.error and dead.error["code"]) == (RunState.DEAD, 2, "wrong_region")
            await moved(site, owner, settings.region)
            (run,) = await site.ended([await site.platform.control.retry(site.admin, run.run_id)])
            assert run.state is RunState.SUCCEEDED
    await owner.close()


async def test_what_a_run_asks_before_it_hears_that_it_is_cancelled_is_closed_when_it_parks(work: Work) -> None:
    ctx = await work.tenant("bank")
    await work.submit(ctx, 1)
    (claim,) = await work.claim("w", 1)
    on = await work.executing(claim)
    attempt = await work.execution.begin_step(on, 1, "book", "step", undo=True)
    await work.execution.finish_step(on, 1, attempt, "room-7", reserved=False)
    await work.control.cancel(ctx, claim.run_id)
    await work.reviews.request(on, 2, pool="p", title="?", evidence={}, choices=["yes"], sla_s=60)
    assert await work.execution.park(on) is RunState.QUEUED
    assert await work.reviews.open(ctx) == []

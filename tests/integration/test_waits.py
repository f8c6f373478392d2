"""Waits whose end, cancellation or repetition comes at an awkward moment: none is lost, none is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from core.clock import FakeClock
from core.errors import Conflict
from core.redis.limits import Limits
from core.reviews.model import Verdict
from core.runs import service
from core.runs.execution import Executing, Wait
from core.runs.model import Cause, RunState, RunView
from core.settings import Settings
from core.tenancy import Policy, RateLimit, TenantContext
from tests.fixtures.work import Work, work_in

ASK: dict[str, Any] = {"pool": "p", "title": "t", "evidence": {}, "choices": ["approve"], "sla_s": 60.0}
GO = Wait(1, "event: go", Cause.EVENT, key="go/1")


@pytest.fixture
async def work(settings: Settings) -> AsyncIterator[Work]:
    """The rooms, on a clock that stands still."""
    async with work_in(settings, FakeClock()) as rooms:
        yield rooms


@pytest.fixture
async def ctx(work: Work) -> TenantContext:
    """Somebody who is everything in a tenant."""
    return await work.tenant("bank", Policy(concurrency_cap=100))


async def executing(work: Work, ctx: TenantContext) -> tuple[RunView, Executing]:
    """A run that a worker executes."""
    (run,) = await work.submit(ctx, 1)
    return run, await claimed(work)


async def claimed(work: Work) -> Executing:
    """The next run, claimed."""
    (claim,) = await work.claim("w", 1)
    return await work.executing(claim)


async def test_an_event_sent_at_the_moment_in_which_a_run_begins_to_wait_is_not_missed(
    work: Work, ctx: TenantContext, owner_dsn: str
) -> None:
    _, on = await executing(work, ctx)
    owner, watch = await asyncpg.connect(owner_dsn), await asyncpg.connect(owner_dsn)

    async def held_up(statements: int) -> bool:
        locked = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        return int(await watch.fetchval(locked)) >= statements

    # The sender has looked for waits, found none, and is held up before its event is there; now the run begins to wait.
    blocking = owner.transaction()
    await blocking.start()
    await owner.execute("insert into events values ('bank', 'go', '1', '{}', '2026-01-05')")
    sending = asyncio.create_task(work.runs.send_event(ctx, "go", "1", {"x": 1}))
    while not await held_up(1):  # noqa: ASYNC110 - the server sets no event
        await asyncio.sleep(0.01)
    waiting = asyncio.create_task(work.execution.await_event(on, GO, "go", "1"))
    while not (waiting.done() or await held_up(2)):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await blocking.rollback()
    assert await sending
    found = await waiting
    assert found == {"payload": {"x": 1}} or await work.execution.park(on) is RunState.QUEUED
    await owner.close()
    await watch.close()


async def test_an_event_reaches_all_that_wait_for_it_however_many_they_are(
    work: Work, ctx: TenantContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "WOKEN_AT_ONCE", 2)
    for _ in range(5):
        _, on = await executing(work, ctx)
        assert await work.execution.await_event(on, GO, "go", "1") is None
        assert await work.execution.park(on) is RunState.WAITING
    assert await work.runs.send_event(ctx, "go", "1", {"x": 1})
    assert len(await work.queue.wake_due()) == 3
    for claim in await work.claim("w", 5):
        found = await work.execution.await_event(await work.executing(claim), GO, "go", "1")
        assert found == {"payload": {"x": 1}}


async def test_cancelling_a_run_closes_its_review_and_a_retry_asks_again(
    work: Work, ctx: TenantContext, owner_dsn: str
) -> None:
    run, on = await executing(work, ctx)
    assert await work.reviews.request(on, 1, **ASK) is None
    assert await work.execution.park(on) is RunState.WAITING
    (review,) = await work.reviews.open(ctx)
    await work.control.cancel(ctx, run.run_id)
    assert await work.reviews.open(ctx) == []
    with pytest.raises(Conflict) as late:
        await work.reviews.decide(ctx, review.review_id, "approve")
    assert late.value.details["state"] == "cancelled"

    await work.control.retry(ctx, run.run_id)
    on = await claimed(work)
    assert await work.reviews.request(on, 1, **ASK) is None
    assert await work.execution.park(on) is RunState.WAITING
    (again,) = await work.reviews.open(ctx)
    await work.reviews.decide(ctx, again.review_id, "approve")
    on = await claimed(work)
    assert await work.reviews.request(on, 1, **ASK) == Verdict("approve", "", ctx.actor)
    assert await work.reviews.request(on, 1, **ASK) == Verdict("approve", "", ctx.actor)
    await work.execution.end(on, RunState.FAILED, error={"code": "x", "message": "x"})

    # What was decided stays decided, also when the run is tried once more.
    await work.control.retry(ctx, run.run_id)
    assert await work.reviews.request(await claimed(work), 1, **ASK) is not None
    owner = await asyncpg.connect(owner_dsn)
    assert await owner.fetchval("select count(*) from waits") == 0
    assert await owner.fetchval("select count(*) from run_steps where state = 'started'") == 0
    await owner.close()


async def test_a_run_that_succeeds_beside_something_that_it_waits_for_waits_for_nothing_any_more(
    work: Work, ctx: TenantContext, owner_dsn: str
) -> None:
    """As one does that bears the failure of a step beside a review."""
    _, on = await executing(work, ctx)
    assert await work.reviews.request(on, 1, **ASK) is None
    assert await work.execution.end(on, RunState.SUCCEEDED)
    assert await work.reviews.open(ctx) == []
    owner = await asyncpg.connect(owner_dsn)
    assert await owner.fetchval("select count(*) from waits") == 0
    await owner.close()


async def test_a_retried_run_waits_again_for_what_its_cancellation_cut_off(work: Work, ctx: TenantContext) -> None:
    run, on = await executing(work, ctx)
    wake_at = work.clock.now() + timedelta(hours=1)
    timer = Wait(2, "sleep", Cause.TIMER, wake_at=wake_at)
    assert await work.execution.await_event(on, GO, "go", "1") is None
    assert not await work.execution.sleep(on, timer)
    await work.execution.park(on)
    await work.control.cancel(ctx, run.run_id)
    await work.control.retry(ctx, run.run_id)
    on = await claimed(work)
    assert await work.execution.await_event(on, GO, "go", "1") is None, "it did not time out, it was cut off"
    assert not await work.execution.sleep(on, timer)
    assert await work.execution.park(on) is RunState.WAITING
    await work.runs.send_event(ctx, "go", "1", {"x": 1})
    on = await claimed(work)
    assert await work.execution.await_event(on, GO, "go", "1") == {"payload": {"x": 1}}
    assert await work.execution.park(on) is RunState.WAITING
    work.clock.advance(3_600)
    assert len(await work.queue.wake_due()) == 1
    on = await claimed(work)
    assert await work.execution.await_event(on, GO, "go", "1") == {"payload": {"x": 1}}, "what is over stays over"
    assert await work.execution.sleep(on, timer)
    assert await work.execution.sleep(on, timer)


async def test_a_wait_that_timed_out_says_so_however_often_it_is_asked_and_whatever_comes_later(
    work: Work, ctx: TenantContext
) -> None:
    _, on = await executing(work, ctx)
    wait = Wait(1, "event: go", Cause.EVENT, key="go/1", wake_at=work.clock.now() + timedelta(seconds=5))
    assert await work.execution.await_event(on, wait, "go", "1") is None
    await work.execution.park(on)
    work.clock.advance(5)
    await work.queue.wake_due()
    on = await claimed(work)
    assert await work.execution.await_event(on, wait, "go", "1") == {"timed_out": True}
    await work.runs.send_event(ctx, "go", "1", {"x": 1})
    assert await work.execution.await_event(on, wait, "go", "1") == {"timed_out": True}


async def test_reasons_in_another_form_than_a_list_do_not_break_the_summary(work: Work, ctx: TenantContext) -> None:
    outputs: list[Any] = [
        {"reasons": ["score"]},
        {"reasons": "score"},
        {"reasons": {"a": 1}},
        {"reasons": None},
        {},
        [],
    ]
    await work.submit(ctx, len(outputs))
    for claim, output in zip(await work.claim("w", len(outputs)), outputs, strict=True):
        await work.finish(claim, output=output, outcome="declined")
    assert [(reason.reason, reason.count) for reason in await work.runs.declined_summary(ctx)] == [("score", 1)]


async def test_cancelling_and_retrying_at_once_ends_in_one_of_the_two_and_no_deadlock(
    work: Work, ctx: TenantContext
) -> None:
    run, on = await executing(work, ctx)
    await work.execution.end(on, RunState.FAILED, error={"code": "x", "message": "x"})
    for _ in range(5):
        acts = [
            work.control.retry(ctx, run.run_id),
            work.control.cancel(ctx, run.run_id),
            work.control.retry(ctx, run.run_id),
        ]
        for answer in await asyncio.gather(*acts, return_exceptions=True):
            assert isinstance(answer, RunView | Conflict)
    assert (await work.runs.get(ctx, run.run_id)).state in (RunState.QUEUED, RunState.CANCELLED)


async def test_a_cancelled_run_gives_up_its_place_in_the_line_of_a_rate_limit(work: Work, ctx: TenantContext) -> None:
    rate, limits, now = RateLimit(limit=1, window_s=60), Limits(work.bus.connection), work.clock.now()
    assert await limits.take(ctx, "bureau", rate, now) == 0
    runs = []
    for place in (1, 2, 3):
        run, on = await executing(work, ctx)
        if place == 2:  # it is queued once more, to undo this
            attempt = await work.execution.begin_step(on, 1, "book", "step", undo=True)
            await work.execution.finish_step(on, 1, attempt, None, reserved=False)
        wait_s = await limits.take(ctx, "bureau", rate, now, holder=f"{run.run_id}/2")
        assert wait_s == 60 * place
        wait = Wait(2, "bureau", Cause.RATE, key="bureau", wake_at=now + timedelta(seconds=wait_s))
        await work.execution.arm_wait(on, wait)
        assert await work.execution.park(on) is RunState.WAITING
        runs.append(run)
    ended = [(await work.control.cancel(ctx, run.run_id)).state for run in runs[:2]]
    assert ended == [RunState.CANCELLED, RunState.QUEUED]
    assert await limits.take(ctx, "bureau", rate, now, holder=f"{runs[2].run_id}/2") == 60

"""Steps are recorded by whoever holds the run, once, and later executions are told what was recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from core.clock import FakeClock
from core.ids import WorkerId
from core.queue.model import DEAD_AFTER_S
from core.runs.execution import Cancelled, Executing, Lost, Wait
from core.runs.model import Cause, RunRequest, RunState
from core.settings import Settings
from core.tenancy import Policy, TenantContext
from tests.fixtures.work import Work, work_in
from tests.fixtures.workers import site_in, working

ERROR = {"code": "step_failed", "message": "no"}
GO = Wait(2, "event: go", Cause.EVENT, key="go/1")


@pytest.fixture
async def work(settings: Settings) -> AsyncIterator[Work]:
    """The rooms, on a clock that stands still."""
    async with work_in(settings, FakeClock()) as rooms:
        yield rooms


@pytest.fixture
async def ctx(work: Work) -> TenantContext:
    """Somebody who is everything in a tenant."""
    return await work.tenant("bank")


async def test_a_worker_that_lost_its_run_records_nothing_more_about_its_steps(work: Work, ctx: TenantContext) -> None:
    (run,) = await work.submit(ctx, 1)
    (claim,) = await work.claim("silent", 1)
    silent = await work.executing(claim)
    first = await work.execution.begin_step(silent, 1, "pay", "step", estimate_microusd=1_000)
    work.clock.advance(DEAD_AFTER_S + 1)
    assert len(await work.queue.recover()) == 1
    await _writes_nothing(work, silent, first)  # while the run is queued again
    (claim,) = await work.claim("other", 1)
    again = await work.executing(claim)
    await _writes_nothing(work, silent, first)  # while another worker executes it
    assert await work.execution.recorded(again, 1) is None
    second = await work.execution.begin_step(again, 1, "pay", "step", estimate_microusd=1_000)
    await work.execution.finish_step(again, 1, second, {"by": "other"}, cost_microusd=700)
    await work.execution.finish_step(again, 1, second, {"by": "other"}, cost_microusd=700)  # its answer was lost
    recorded = await work.execution.recorded(again, 1)
    assert recorded is not None
    assert recorded.result == {"by": "other"}
    assert [(step.attempt, step.state) for step in await work.runs.steps(ctx, run.run_id)] == [
        (1, "started"),
        (2, "done"),
    ]
    events = await work.runs.events(ctx, run.run_id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    balance = await work.usage.balance(ctx, run.run_id)
    assert (balance.reserved_microusd, balance.spent_microusd) == (0, 700)


async def test_an_undo_is_paid_once_whatever_is_left_and_however_often_it_is_begun(work: Work) -> None:
    ctx = await work.tenant("bank", Policy(budget_run_microusd=100))
    (run,) = await work.submit(ctx, 1)
    (claim,) = await work.claim("silent", 1)
    silent = await work.executing(claim)
    for step in (1, 2):
        attempt = await work.execution.begin_step(silent, step, "book", "step", 50, undo=True)
        await work.execution.finish_step(silent, step, attempt, None, cost_microusd=50)
    await work.execution.compensate(silent, {"end": "failed"})
    assert await work.execution.begin_step(silent, -2, "undo book", "undo", 40) == 1
    work.clock.advance(DEAD_AFTER_S + 1)
    assert len(await work.queue.recover()) == 1  # it died between the promise and the payment
    (claim,) = await work.claim("other", 1)
    other = await work.executing(claim)
    assert await work.execution.begin_step(other, -2, "undo book", "undo", 40) == 2
    assert (await work.usage.balance(ctx, run.run_id)).reserved_microusd == 40
    with pytest.raises(Lost):
        await work.execution.finish_step(silent, -2, 1, None, cost_microusd=40)
    for _ in range(2):  # the answer was lost
        await work.execution.finish_step(other, -2, 2, None, cost_microusd=45)
    await work.execution.begin_step(other, -1, "undo book", "undo")
    for _ in range(2):
        await work.execution.finish_step(other, -1, 1, None, cost_microusd=5, reserved=False)  # more than it had said
    balance = await work.usage.balance(ctx, run.run_id)
    assert (balance.limit_microusd, balance.reserved_microusd, balance.spent_microusd) == (100, 0, 150)
    told = [event.data for event in await work.runs.events(ctx, run.run_id) if event.kind == "overrun"]
    assert [(one["step"], one["attempt"], one["account"], one["over_microusd"]) for one in told] == [
        (-2, 2, "run", 45),
        (-1, 1, "run", 50),
    ]


async def test_a_run_that_begins_to_undo_is_paused_no_more_and_woken_by_nothing_else(
    work: Work, ctx: TenantContext
) -> None:
    (run,) = await work.submit(ctx, 1)
    (claim,) = await work.claim("w", 1)
    on = await work.executing(claim)
    attempt = await work.execution.begin_step(on, 1, "book", "step", undo=True)
    await work.execution.finish_step(on, 1, attempt, None, reserved=False)
    await work.execution.await_event(on, Wait(2, "event: go", Cause.EVENT, key="go/1"), "go", "1")
    assert (await work.control.pause(ctx, run.run_id)).held
    await work.execution.compensate(on, {"end": "failed"})
    assert not (await work.runs.get(ctx, run.run_id)).held
    soon = work.clock.now() + timedelta(seconds=10)
    await work.execution.arm_wait(on, Wait(-1, "hall", Cause.RATE, key="hall", wake_at=soon))
    assert await work.execution.park(on) is RunState.WAITING
    await work.runs.send_event(ctx, "go", "1", {})
    parked = await work.runs.get(ctx, run.run_id)
    assert (parked.state, parked.cause) == (RunState.WAITING, Cause.RATE)
    work.clock.advance(10)
    await work.queue.wake_due()
    assert (await work.runs.get(ctx, run.run_id)).state is RunState.QUEUED


async def test_a_wait_that_is_over_before_the_run_has_parked_lets_it_go_on_whatever_else_it_waits_for(
    work: Work, ctx: TenantContext
) -> None:
    (run,) = await work.submit(ctx, 1)
    for number in (1, 2):
        (claim,) = await work.claim("w", 1)
        on = await work.executing(claim)
        await work.execution.await_event(on, Wait(2, "event: go", Cause.EVENT, key="go/1"), "go", "1")
        if number == 1:  # beside it a call that must wait, and a step that takes longer
            soon = work.clock.now() + timedelta(seconds=1)
            await work.execution.arm_wait(on, Wait(1, "hall", Cause.RATE, key="hall", wake_at=soon))
            work.clock.advance(2)
            await work.queue.wake_due()
        assert await work.execution.park(on) is (RunState.QUEUED if number == 1 else RunState.WAITING)
    await work.runs.send_event(ctx, "go", "1", {})
    assert (await work.runs.get(ctx, run.run_id)).state is RunState.QUEUED


async def _writes_nothing(work: Work, silent: Executing, attempt: int) -> None:
    for write in (
        work.execution.finish_step(silent, 1, attempt, {"by": "silent"}, cost_microusd=900),
        work.execution.fail_step(silent, 1, attempt, ERROR),
        work.execution.fail_for_good(silent, 1, "pay", "step", ERROR),
        work.execution.begin_step(silent, 2, "tell", "step"),
        work.execution.await_event(silent, GO, "go", "1"),
    ):
        with pytest.raises(Lost):
            await write


async def test_a_run_that_is_to_stop_neither_begins_a_step_nor_waits(work: Work, ctx: TenantContext) -> None:
    (run,) = await work.submit(ctx, 1)
    (claim,) = await work.claim("w", 1)
    on = await work.executing(claim)
    assert await work.execution.await_event(on, GO, "go", "1") is None
    await work.control.cancel(ctx, run.run_id)
    with pytest.raises(Cancelled):
        await work.execution.begin_step(on, 1, "pay", "step", estimate_microusd=1_000)
    assert await work.execution.park(on) is RunState.CANCELLED
    assert (await work.runs.get(ctx, run.run_id)).state is RunState.CANCELLED
    assert (await work.usage.balance(ctx, run.run_id)).reserved_microusd == 0
    assert await work.runs.send_event(ctx, "go", "1", {"x": 1})
    assert await work.claim("w", 1) == []
    assert await work.queue.faults() == []


async def test_a_step_that_failed_for_good_fails_alike_until_the_run_is_retried(work: Work, ctx: TenantContext) -> None:
    (run,) = await work.submit(ctx, 1)
    (claim,) = await work.claim("w", 1)
    on = await work.executing(claim)
    attempt = await work.execution.begin_step(on, 1, "pay", "step")
    await work.execution.fail_step(on, 1, attempt, ERROR)
    assert await work.execution.recorded(on, 1) is None, "it may be tried again"
    for _ in range(2):
        await work.execution.fail_for_good(on, 1, "pay", "step", ERROR)
    await work.execution.fail_for_good(on, 2, "dear", "step", ERROR)  # one that was never begun
    for step in (1, 2):
        recorded = await work.execution.recorded(on, step)
        assert recorded is not None
        assert recorded.error == ERROR
    assert len(await work.runs.steps(ctx, run.run_id)) == 2
    await work.execution.end(on, RunState.FAILED, error=ERROR)
    await work.control.retry(ctx, run.run_id)
    (claim,) = await work.claim("w", 1)
    on = await work.executing(claim)
    assert await work.execution.recorded(on, 1) is None
    assert await work.execution.begin_step(on, 1, "pay", "step") == 2


async def test_a_caught_failure_is_not_tried_again_when_the_run_goes_on_after_a_wait(
    settings: Settings, tmp_path: Path
) -> None:
    log = tmp_path / "effects"
    async with site_in(settings) as site, working(site):
        run, _ = await site.platform.runs.submit(site.admin, RunRequest("sample-caught", {"log": str(log)}))

        async def asked() -> str | None:
            found = await site.platform.reviews.open(site.reviewer)
            return found[0].review_id if found else None

        await site.platform.reviews.decide(site.reviewer, await site.until(asked), "approve")
        (ended,) = await site.ended([run])
    assert ended.state is RunState.SUCCEEDED
    assert Counter(log.read_text().split()) == {f"{run.run_id}/1": 1, f"{run.run_id}/3": 1}


async def test_a_run_that_goes_on_with_other_steps_than_before_fails_and_says_so(
    settings: Settings, tmp_path: Path
) -> None:
    request = RunRequest("sample-review", {"log": str(tmp_path / "effects")})
    async with site_in(settings) as site:
        run, _ = await site.platform.runs.submit(site.admin, request)
        await site.platform.queue.heartbeat(WorkerId("older"), 1)
        (claim,) = await site.platform.queue.claim(WorkerId("older"), 1)
        on = Executing(site.admin, run.run_id, claim.attempt, claim.budget_microusd, None, None)
        attempt = await site.platform.execution.begin_step(on, 1, "what it was called", "step")
        await site.platform.execution.finish_step(on, 1, attempt, "done")
        await site.platform.execution.hand_back(on)
        async with working(site):
            (ended,) = await site.ended([run])
    assert ended.state is RunState.FAILED
    assert ended.error is not None
    assert "was what it was called and is effect now" in ended.error["message"]

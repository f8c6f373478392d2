"""A run that lasts longer, or has more steps, than its policy allows ends, wherever it stands, and says why."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.clock import FakeClock
from core.runs.duration import Durations
from core.runs.execution import Wait
from core.runs.model import Cause, RunRequest, RunState, RunView
from core.settings import Settings
from core.tenancy import Policy
from tests.fixtures.people import People
from tests.fixtures.work import Work, work_in
from tests.fixtures.workers import Site, site_in, working

LIMIT_S = 4  # enough to come to where a run is held or parks, also on a machine that stalls


@pytest.fixture
async def site(settings: Settings) -> AsyncIterator[Site]:
    async with site_in(settings, Policy(concurrency_cap=4, max_duration_s=LIMIT_S)) as site, working(site):
        yield site


@pytest.fixture
async def work(settings: Settings) -> AsyncIterator[Work]:
    async with work_in(settings, FakeClock()) as opened:
        yield opened


def ended_by_the_limit(run: RunView) -> bool:
    return (
        run.state is RunState.FAILED
        and run.error is not None
        and (run.error["code"], run.error["details"])
        == ("quota_exceeded", {"quota": "max_duration_s", "limit": LIMIT_S})
    )


async def test_a_run_that_executes_is_stopped_in_its_step_and_may_be_retried(site: Site, tmp_path: Path) -> None:
    held = tmp_path / "held"
    held.touch()
    work = {"log": str(tmp_path / "effects"), "hold": str(held)}
    run, _ = await site.platform.runs.submit(site.admin, RunRequest("sample-plain", work))
    (run,) = await site.ended([run])
    assert ended_by_the_limit(run)
    assert run.started_at is not None
    assert run.finished_at is not None
    assert LIMIT_S <= (run.finished_at - run.started_at).total_seconds() < LIMIT_S + 5
    held.unlink()
    (run,) = await site.ended([await site.platform.control.retry(site.admin, run.run_id)])
    assert run.state is RunState.SUCCEEDED
    lines = (tmp_path / "effects").read_text().splitlines()
    effects = [line for line in lines if not line.startswith("holding")]
    assert effects == [f"{run.run_id}/1", f"{run.run_id}/3"]  # what had finished before was not repeated


async def test_a_run_that_is_woken_too_late_fails_before_it_goes_on(site: Site, tmp_path: Path) -> None:
    work = {"log": str(tmp_path / "effects"), "sleep_s": LIMIT_S + 0.5}
    run, _ = await site.platform.runs.submit(site.admin, RunRequest("sample-waits", work))
    await site.runs_until([run], lambda run: run.cause is Cause.TIMER)

    async def woken() -> bool | None:
        return bool(await site.platform.queue.wake_due()) or None

    await site.until(woken)
    (run,) = await site.ended([run])
    assert ended_by_the_limit(run)


async def test_a_run_with_more_steps_than_allowed_fails_before_the_first_of_them(site: Site, tmp_path: Path) -> None:
    operator = await People(site.platform.tenants).operator()
    policy = site.admin.policy.model_copy(update={"max_steps": 1})
    await site.platform.tenants.change_policy(operator, site.admin.tenant_id, policy)
    work = {"log": str(tmp_path / "effects")}
    run, _ = await site.platform.runs.submit(site.admin, RunRequest("sample-plain", work))
    (run,) = await site.ended([run])
    assert run.state is RunState.FAILED
    assert run.error is not None
    assert (run.error["details"]["cause"], "at most 1 step" in run.error["message"]) == ("quota_exceeded", True)
    assert len((tmp_path / "effects").read_text().split()) == 1


async def test_a_parked_run_is_found_and_ended_with_what_it_had_asked_people(work: Work) -> None:
    bank = await work.tenant("bank", Policy(max_duration_s=LIMIT_S))
    patient = await work.tenant("patient", Policy(max_duration_s=3_600))
    durations = Durations(work.db, work.bus, work.queue, work.clock)
    await work.submit(bank, 2)
    await work.submit(patient, 1)
    work.clock.advance(60)  # in the queue it does not count
    for claim in await work.claim("w", 3):
        on = await work.executing(claim)
        await work.reviews.request(on, 1, pool="p", title="t", evidence={}, choices=["approve", "decline"], sla_s=3_600)
        await work.execution.park(on)
    work.clock.advance(LIMIT_S)
    assert await durations.overlong() == []
    work.clock.advance(1)
    overlong = await durations.overlong()
    assert [(found.tenant_id, found.timeout_s) for found in overlong] == [("bank", None)] * 2
    ended = [await durations.end(bank, found.run_id, None) for found in overlong]
    assert ended == [True, True]
    runs = [await work.runs.get(bank, found.run_id) for found in overlong]
    assert all(ended_by_the_limit(run) for run in runs)
    assert await work.reviews.open(bank) == []
    assert len(await work.reviews.open(patient)) == 1
    assert await durations.overlong() == []
    assert [await durations.end(bank, found.run_id, None) for found in overlong] == [False, False]
    events = await work.runs.events(bank, runs[0].run_id)
    assert [event.kind for event in events][-2:] == ["waiting", "failed"]


async def test_a_run_that_was_woken_meanwhile_goes_on(work: Work) -> None:
    bank = await work.tenant("bank", Policy(max_duration_s=LIMIT_S))
    await work.submit(bank, 1)
    (claim,) = await work.claim("w", 1)
    on = await work.executing(claim)
    await work.execution.arm_wait(on, Wait(1, "sleep", Cause.TIMER, wake_at=work.clock.now()))
    await work.execution.park(on)
    work.clock.advance(LIMIT_S + 1)
    durations = Durations(work.db, work.bus, work.queue, work.clock)
    (found,) = await durations.overlong()
    await work.queue.wake_due()
    assert not await durations.end(bank, found.run_id, None)
    assert (await work.runs.get(bank, found.run_id)).state is RunState.QUEUED
    assert len(await work.claim("w", 1)) == 1

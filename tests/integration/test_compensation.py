"""What runs did is undone before they end badly, on a real worker: whatever stops them, and whoever goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from rich.console import Console

from core.commands.runs import as_text, show
from core.errors import Conflict
from core.ids import WorkerId
from core.runs.duration import Durations
from core.runs.model import Cause, RunRequest, RunState, RunView
from core.settings import Settings
from core.tenancy import PLATFORM, Policy, RateLimit, Role
from core.usage.model import usd
from scheduler import worker
from tests.fixtures.people import People
from tests.fixtures.timing import within
from tests.fixtures.upstream import HANG, upstream
from tests.fixtures.workers import Site, site_in, working

CLOSED_WITHIN_S = 0.5
FAILURES = 5
"""After so many a service is left alone."""

BREAKS = WorkerId("breaks")


@pytest.fixture
async def site(settings: Settings) -> AsyncIterator[Site]:
    async with site_in(settings) as opened:
        yield opened


async def started(site: Site, log: Path, **given: object) -> RunView:
    """A run of the saga, parked on its event."""
    run, _ = await site.platform.runs.submit(site.admin, RunRequest("sample-saga", {"log": str(log), **given}))
    (run,) = await site.runs_until([run], lambda seen: seen.cause is Cause.EVENT)
    return run


def durations_of(site: Site) -> Durations:
    return Durations(site.platform.db, site.platform.bus, site.platform.queue, site.platform.clock)


def effects(log: Path) -> list[str]:
    return [line.partition("/")[2] for line in log.read_text().splitlines() if "/" in line]


async def test_a_cancelled_run_closes_its_upstream_call_at_once_and_undoes_what_it_did(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "HEARTBEAT_S", 3_600.0)  # with a heartbeat it looks, too: here it must be told
    async with upstream() as slow:
        given = settings.model_copy(update={"services": {"slow": slow.url}})
        async with site_in(given) as site, working(site):

            async def cancelled() -> float:
                slow.script.append(HANG)
                slow.waiting.clear()
                slow.gone.clear()
                log = tmp_path / f"effects-{len(slow.requests)}"
                run, _ = await site.platform.runs.submit(site.admin, RunRequest("sample-asking", {"log": str(log)}))
                await asyncio.wait_for(slow.waiting.wait(), 30)
                began = asyncio.get_running_loop().time()
                await site.platform.control.cancel(site.admin, run.run_id)
                await asyncio.wait_for(slow.gone.wait(), 30)
                took_s = asyncio.get_running_loop().time() - began
                (run,) = await site.ended([run])
                assert run.state is RunState.CANCELLED
                assert effects(log) == ["1", "-1 undoes 1"]
                kinds = [event.kind for event in await site.platform.runs.events(site.admin, run.run_id)]
                assert kinds[kinds.index("cancel_requested") :] == [
                    "cancel_requested",
                    "step_failed",
                    "compensating",
                    "step_started",
                    "step_done",
                    "cancelled",
                ]
                return took_s

            await within(CLOSED_WITHIN_S, cancelled)


async def test_people_retry_a_compensation_that_failed_and_then_the_run_whose_undone_steps_are_done_again(
    site: Site, tmp_path: Path
) -> None:
    log, obstacle = tmp_path / "effects", tmp_path / "obstacle"
    obstacle.touch()
    control = site.platform.control
    async with working(site):
        run = await started(site, log, number=1, fail=True, hold=str(obstacle))
        await site.platform.runs.send_event(site.admin, "go", "1", {"go": 1})
        (run,) = await site.ended([run])
        assert run.error is not None
        assert (run.state, run.error["code"], run.error["details"]["not_undone"]) == (
            RunState.FAILED,
            "compensation_failed",
            ["book car", "book room"],
        )
        obstacle.unlink()
        (run,) = await site.ended([await control.retry(site.admin, run.run_id)])
        assert run.error is not None
        assert (run.state, run.error["code"]) == (RunState.FAILED, "step_failed")  # as it would have ended
        assert effects(log) == ["1", "2", "4", "-2 undoes 2", "-1 undoes 1"]
        (run,) = await site.ended([await control.retry(site.admin, run.run_id)])
        assert run.state is RunState.FAILED
        assert effects(log)[5:] == ["1/1", "2/1", "-2/1 undoes 2/1", "-1/1 undoes 1/1"]


async def test_another_worker_goes_on_with_the_undos_that_are_not_done(site: Site, tmp_path: Path) -> None:
    log, held = tmp_path / "effects", tmp_path / "held"
    held.touch()
    async with working(site, drain_s=0.1):
        run, _ = await site.platform.runs.submit(
            site.admin, RunRequest("sample-undo-held", {"log": str(log), "hold": str(held), "fail": True})
        )

        async def holding() -> bool | None:
            return (log.exists() and "holding" in log.read_text()) or None

        await site.until(holding)
    stopped = await site.platform.runs.get(site.admin, run.run_id)
    assert (stopped.state, effects(log)) == (RunState.QUEUED, ["1", "2", "3", "-3 undoes 3"])
    held.unlink()
    async with working(site):
        (run,) = await site.ended([run])
    assert run.state is RunState.FAILED
    assert effects(log) == ["1", "2", "3", "-3 undoes 3", "-2 undoes 2", "-1 undoes 1"]
    steps = await site.platform.runs.steps(site.admin, run.run_id)
    assert [(one.step, one.attempt, one.state) for one in steps if one.kind == "undo"] == [
        (-3, 1, "done"),
        (-2, 1, "failed"),
        (-2, 2, "done"),
        (-1, 1, "done"),
    ]


async def test_an_undo_that_must_wait_gives_its_slot_back_is_not_paused_and_goes_on_when_it_is_woken(
    settings: Settings, tmp_path: Path, owner_dsn: str
) -> None:
    logs = [tmp_path / "full", tmp_path / "down"]
    policy = Policy(rate_limits={"hall": RateLimit(limit=1, window_s=4)})
    async with upstream() as slow:
        slow.script.extend([503] * FAILURES)
        given = settings.model_copy(update={"services": {"slow": slow.url}})
        async with site_in(given, policy) as site, working(site) as busy:
            full = await started(site, logs[0], number=4)
            await site.platform.control.cancel(site.admin, full.run_id)
            down, _ = await site.platform.runs.submit(
                site.admin, RunRequest("sample-undo-asking", {"log": str(logs[1])})
            )
            waiting = await site.runs_until([full, down], lambda seen: seen.state is RunState.WAITING)
            assert [(run.cause, run.undoing) for run in waiting] == [(Cause.RATE, True), (Cause.ENDPOINT, True)]

            async def left() -> bool | None:
                return busy.held == 0 or None

            await site.until(left)
            assert await site.platform.reviews.open(site.reviewer) == []  # nobody needs the answer any more
            owner = await asyncpg.connect(owner_dsn)
            await owner.execute("update runs set started_at = started_at - interval '601 s'")
            await owner.close()
            assert await durations_of(site).overlong() == []
            for run in waiting:
                with pytest.raises(Conflict, match="undoing what it did"):
                    await site.platform.control.pause(site.admin, run.run_id)

            async def ended() -> list[RunView] | None:
                await site.platform.queue.wake_due()
                seen = [await site.platform.runs.get(site.admin, run.run_id) for run in waiting]
                return seen if all(run.state.final for run in seen) else None

            assert [run.state for run in await site.until(ended)] == [RunState.CANCELLED, RunState.FAILED]
        assert [effects(log) for log in logs] == [["1", "2", "-2 undoes 2", "-1 undoes 1"], ["1", "-1 undoes 1"]]
        assert len(slow.requests) == FAILURES + 1


async def test_a_dead_run_that_people_cancel_undoes_what_it_did(settings: Settings, tmp_path: Path) -> None:
    log = tmp_path / "effects"
    async with site_in(settings, Policy(max_recoveries=0)) as site:
        queue, control = site.platform.queue, site.platform.control
        async with working(site):
            run = await started(site, log, number=5)
        await site.platform.runs.send_event(site.admin, "go", "5", {"go": 1})
        await queue.heartbeat(BREAKS, 1)
        (claim,) = await queue.claim(BREAKS, 1)
        await queue.give_back(claim.held, {"code": "internal", "message": "KeyError: 'x'"})
        dead = await site.platform.runs.get(site.admin, run.run_id)
        assert (dead.state, effects(log)) == (RunState.DEAD, ["1", "2"])
        cancelled = await control.cancel(site.admin, run.run_id)
        assert (cancelled.state, cancelled.error) == (RunState.QUEUED, None)
        async with working(site):
            (run,) = await site.ended([run])
        assert (run.state, run.error) == (RunState.CANCELLED, None)
        assert effects(log) == ["1", "2", "-2 undoes 2", "-1 undoes 1"]
        assert await queue.faults() == []
        with pytest.raises(Conflict):
            await control.cancel(site.admin, run.run_id)


async def test_a_queued_run_that_did_something_executes_once_more_when_it_is_cancelled_and_money_is_no_matter(
    site: Site, tmp_path: Path
) -> None:
    log = tmp_path / "effects"
    async with working(site):
        run = await started(site, log, number=2)
    await site.platform.runs.send_event(site.admin, "go", "2", {"go": 1})
    balance = await site.platform.usage.balance(site.admin)
    month = Policy(budget_month_microusd=balance.spent_microusd, budget_run_microusd=usd("0.10"))
    await People(site.platform.tenants).operator()
    _, olga = await People(site.platform.tenants).login("olga@platform.example", PLATFORM, Role.OPERATOR)
    await site.platform.tenants.change_policy(olga.ctx, site.admin.tenant_id, month)
    cancelled = await site.platform.control.cancel(site.admin, run.run_id)
    assert cancelled.state is RunState.QUEUED
    async with working(site):
        (run,) = await site.ended([run])
    assert (run.state, effects(log)) == (RunState.CANCELLED, ["1", "2", "-2 undoes 2", "-1 undoes 1"])
    assert run.cost_microusd == usd("0.02")  # that of an undo, which is paid beyond the month's budget
    events = await site.platform.runs.events(site.admin, run.run_id)
    (told,) = [event.data for event in events if event.kind == "overrun"]
    assert (told["step"], told["account"], told["over_microusd"]) == (-2, "month", usd("0.02"))
    console = Console(record=True, width=120)
    console.print(as_text(await show(site.platform, site.admin, run.run_id, None)))
    assert "$0.02 over the month's budget" in console.export_text()
    assert await site.platform.queue.faults() == []


async def test_a_parked_run_that_lasts_longer_than_its_workflow_allows_undoes_what_it_did(
    site: Site, tmp_path: Path, owner_dsn: str
) -> None:
    log = tmp_path / "effects"
    async with working(site):
        run = await started(site, log, number=3)
        owner = await asyncpg.connect(owner_dsn)
        await owner.execute("update runs set started_at = started_at - interval '601 s' where run_id = $1", run.run_id)
        await owner.close()
        (found,) = await durations_of(site).overlong()
        assert await durations_of(site).end(site.admin, found.run_id, found.timeout_s)
        (run,) = await site.ended([run])
    assert run.error is not None
    assert (run.state, run.error["details"]) == (RunState.FAILED, {"quota": "timeout_s", "limit": 600})
    assert effects(log) == ["1", "2", "-2 undoes 2", "-1 undoes 1"]

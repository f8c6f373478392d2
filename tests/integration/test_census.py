"""What the leader counts for metrics, over real rows, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry

from core.clock import FakeClock
from core.runs.model import RunState
from core.settings import Port, Settings
from core.tenancy import Policy
from scheduler.census import SETTLED, Census
from tests.fixtures.ports import free_port_base
from tests.fixtures.work import Work, work_in
from tests.fixtures.workers import WorkerProcess

SETTLED_S = SETTLED.total_seconds()


@pytest.fixture
async def work(settings: Settings) -> AsyncIterator[Work]:
    async with work_in(settings, FakeClock()) as opened:
        yield opened


class Counted:
    """A census and what it shows."""

    def __init__(self, work: Work) -> None:
        self.registry = CollectorRegistry()
        self.census = Census(work.db, work.clock, self.registry)

    def value(self, name: str, **labels: str) -> float | None:
        """One series; None when there is none."""
        return self.registry.get_sample_value(f"bailiwick_{name}", labels)


async def test_the_queue_is_shown_as_it_stands_and_no_slot_is_wanted_beyond_a_cap_or_a_pause(work: Work) -> None:
    bank = await work.tenant("regional-bank", Policy(concurrency_cap=3))
    await work.tenant("credit-union", Policy())
    await work.submit(bank, 6)
    work.clock.advance(20)
    await work.claim("w1", 2)
    work.clock.advance(40)

    counted = Counted(work)
    await counted.census.take()
    bank_shows = {name: counted.value(name, tenant="regional-bank") for name in ("runs_queued", "runs_running")}
    assert bank_shows == {"runs_queued": 4, "runs_running": 2}
    assert counted.value("queue_oldest_seconds", tenant="regional-bank") == 60
    assert counted.value("queue_oldest_seconds", tenant="credit-union") == 0
    assert counted.value("slots_cap", tenant="regional-bank") == 3
    assert counted.value("slots_wanted", tenant="regional-bank") == 3
    assert counted.value("slots_wanted", tenant="credit-union") == 0

    await work.tenants.pause(await work.operator(), bank.tenant_id, paused=True)
    await counted.census.take()
    assert counted.value("slots_wanted", tenant="regional-bank") == 2


async def test_what_ended_is_counted_once_whatever_is_counted_how_often(work: Work) -> None:
    bank = await work.tenant("regional-bank", Policy(concurrency_cap=10, budget_run_microusd=1_000))
    counted = Counted(work)
    await counted.census.take()
    await work.submit(bank, 3)
    work.clock.advance(10)
    first, second, third = await work.claim("w1", 3)
    await work.usage.reserve(bank, "k1", 900, run_id=first.run_id)
    await work.usage.settle(bank, "k1", 1_200)  # the call cost more than was promised
    await work.usage.reserve(bank, "k2", 900, run_id=second.run_id)
    await work.usage.settle(bank, "k2", 1_000)
    work.clock.advance(30)
    await work.finish(first)
    await work.finish(second, RunState.FAILED, error="step_failed")

    await counted.census.take()
    assert counted.value("runs_ended_total", tenant="regional-bank", state="succeeded") == 0  # not settled yet
    for _ in range(2):
        work.clock.advance(SETTLED_S)
        await counted.census.take()
        assert counted.value("runs_ended_total", tenant="regional-bank", state="succeeded") == 1
        assert counted.value("runs_ended_total", tenant="regional-bank", state="failed") == 1
        assert counted.value("runs_overrun_total", tenant="regional-bank") == 1
        assert counted.value("run_seconds_sum", tenant="regional-bank") == 80
        assert counted.value("queue_wait_seconds_sum", tenant="regional-bank") == 20
        assert counted.value("queue_wait_seconds_count", tenant="regional-bank") == 2
    await work.finish(third, RunState.CANCELLED)
    work.clock.advance(SETTLED_S)
    await counted.census.take()
    assert counted.value("runs_ended_total", tenant="regional-bank", state="cancelled") == 1


async def test_waits_and_reviews_are_shown_by_cause_and_pool_until_they_are_over(work: Work) -> None:
    bank = await work.tenant("regional-bank", Policy())
    (run,) = await work.submit(bank, 1)
    (claim,) = await work.claim("w1", 1)
    on = await work.executing(claim)
    asked = await work.reviews.request(
        on, 1, pool="compliance", title="Approve?", evidence={}, choices=["yes", "no"], sla_s=60
    )
    assert asked is None
    assert await work.execution.park(on) is RunState.WAITING
    counted = Counted(work)
    await counted.census.take()
    assert counted.value("runs_waiting", tenant="regional-bank", cause="review") == 1
    pool = {"tenant": "regional-bank", "pool": "compliance", "priority": "free"}
    assert (counted.value("reviews_open", **pool), counted.value("reviews_overdue", **pool)) == (1, 0)
    work.clock.advance(61)
    await counted.census.take()
    assert counted.value("reviews_overdue", **pool) == 1

    await work.control.cancel(bank, run.run_id)
    await counted.census.take()
    assert counted.value("reviews_open", **pool) is None
    assert counted.value("runs_waiting", tenant="regional-bank", cause="review") is None


async def test_one_that_leads_no_more_shows_no_queue_and_counts_nothing_twice_when_it_leads_again(work: Work) -> None:
    bank = await work.tenant("regional-bank")
    counted = Counted(work)
    await counted.census.take()
    counted.census.forget()
    assert counted.value("runs_queued", tenant="regional-bank") is None
    await work.submit(bank, 1)
    (claim,) = await work.claim("w1", 1)
    await work.finish(claim)
    work.clock.advance(60)  # somebody else counted that
    await counted.census.take()
    assert counted.value("runs_ended_total", tenant="regional-bank", state="succeeded") == 0


async def test_a_worker_tells_its_slots_where_it_was_told_to_listen(settings: Settings, tmp_path: Path) -> None:
    base = free_port_base()
    given = settings.model_copy(update={"bind_host": "127.0.0.2", "worker_slots": 7})
    process = WorkerProcess(given, tmp_path, base)
    try:
        async with asyncio.timeout(60), httpx.AsyncClient(base_url=f"http://127.0.0.2:{base + Port.WORKER}") as http:
            said = ""
            while "bailiwick_wakeups_heard 1.0" not in said:  # it answers before Redis listens for it
                await asyncio.sleep(0.2)
                with contextlib.suppress(httpx.TransportError):
                    said = (await http.get("/metrics")).text
    finally:
        process.kill()
    assert "bailiwick_worker_slots 7.0" in said
    assert "bailiwick_worker_slots_held 0.0" in said

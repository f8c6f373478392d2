"""Screens hear that nobody is asked any more, whoever closed the question: each way of it, on real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass

import pytest

from core.clock import FakeClock
from core.queue.model import DEAD_AFTER_S
from core.runs.acts import Act
from core.runs.bulk import Choice
from core.runs.children import Spawning
from core.runs.duration import Durations
from core.runs.execution import Executing
from core.runs.family import Family
from core.runs.model import RunRequest, RunState
from core.settings import Settings
from core.tenancy import Policy, TenantContext
from tests.fixtures.work import Work, work_in

DEADLINE_S = 20.0
DURATION_S = 1_000
BROKE = {"code": "internal", "message": "It broke."}


@dataclass(frozen=True, slots=True)
class Asking:
    """The bank, whose runs ask people, and what its screens are told."""

    work: Work
    ctx: TenantContext

    async def run(self, *, parks: bool = True) -> Executing:
        """One that asks, and waits for the answer or still executes."""
        await self.work.submit(self.ctx, 1)
        return await self.ask(parks=parks)

    async def ask(self, *, parks: bool = True) -> Executing:
        """The next run in the queue asks."""
        (claim,) = await self.work.claim("w", 1)
        on = await self.work.executing(claim)
        asked = self.work.reviews.request(on, 1, pool="p", title="?", evidence={}, choices=["yes"], sla_s=60)
        assert await asked is None
        if parks:
            assert await self.work.execution.park(on) is RunState.WAITING
        return on

    async def told(self, act: Awaitable[object], *run_ids: str) -> list[str]:
        """In which states screens are told that these runs are, once they know that these ask nothing any more.

        Raises ``TimeoutError``.
        """
        left, states = set(run_ids), dict.fromkeys(run_ids, "")
        async with asyncio.timeout(DEADLINE_S), self.work.bus.subscribe(self.ctx.tenant_id) as events:
            await act
            while left or not all(states.values()):
                event = await anext(events)
                run_id = str(event.data.get("run_id"))
                if event.kind == "review" and event.data["state"] == "cancelled":
                    left.remove(run_id)
                elif event.kind == "run" and run_id in states:
                    states[run_id] = event.data["state"]
        return [states[run_id] for run_id in run_ids]


@pytest.fixture
async def asking(settings: Settings) -> AsyncIterator[Asking]:
    async with work_in(settings, FakeClock()) as work:
        yield Asking(work, await work.tenant("bank", Policy(max_recoveries=0, max_duration_s=DURATION_S)))


async def test_people_who_cancel_runs_tell_it_of_one_and_of_many(asking: Asking) -> None:
    work, ctx = asking.work, asking.ctx
    parked, executing = await asking.run(), await asking.run(parks=False)
    assert await asking.told(work.control.cancel(ctx, parked.run_id), parked.run_id) == ["cancelled"]
    assert await asking.told(work.control.cancel(ctx, executing.run_id), executing.run_id) == ["running"]
    many = [(await asking.run()).run_id for _ in range(2)]
    bulk = await work.bulk.preview(ctx, Act.CANCEL, Choice(state=RunState.WAITING))
    assert await asking.told(work.bulk.apply(ctx, bulk.bulk_id), *many) == ["cancelled"] * 2


async def test_the_sweep_of_a_run_that_failed_tells_it_of_its_children(asking: Asking) -> None:
    work, ctx = asking.work, asking.ctx
    await work.submit(ctx, 1)
    (claim,) = await work.claim("w", 1)
    parent = await work.executing(claim)
    step = Spawning(1, "spawn: child", 2, 2)
    spawned = await work.children.spawn(parent, step, range(2), [RunRequest("child", {"n": n}) for n in range(2)])
    assert spawned is not None
    parked, executing = await asking.ask(), await asking.ask(parks=False)
    failed = work.execution.end(parent, RunState.FAILED, error=BROKE)
    assert await asking.told(failed, parked.run_id, executing.run_id) == ["cancelled", "running"]
    assert await Family(work.db, work.bus, work.queue, work.clock).cancel_orphans(ctx) == 0


async def test_a_run_that_lasts_too_long_or_is_dead_tells_it(asking: Asking) -> None:
    work, ctx = asking.work, asking.ctx
    overlong = await asking.run()
    work.clock.advance(DURATION_S + 1)
    ended = Durations(work.db, work.bus, work.queue, work.clock).end(ctx, overlong.run_id, None)
    assert await asking.told(ended, overlong.run_id) == ["failed"]
    broken = await asking.run(parks=False)
    assert await asking.told(work.queue.give_back(broken.held, BROKE), broken.run_id) == ["dead"]
    left = await asking.run(parks=False)
    work.clock.advance(DEAD_AFTER_S + 1)
    assert await asking.told(work.queue.recover(), left.run_id) == ["dead"]

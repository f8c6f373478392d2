"""Paused runs: whatever happens to them meanwhile, they stand still, and go on when they are resumed."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from core.clock import FakeClock
from core.errors import Conflict, NotFound
from core.ids import RunId
from core.queue.model import DEAD_AFTER_S
from core.runs.execution import Cancelled, Executing, Paused, Wait
from core.runs.history import history
from core.runs.model import Cause, RunState
from core.settings import Settings
from core.tenancy import Policy, TenantContext
from tests.fixtures.work import Work, work_in

OPERATIONS = 250
HOUR_S = 3_600.0


@pytest.fixture
async def work(settings: Settings) -> AsyncIterator[Work]:
    """The rooms, on a clock that stands still."""
    async with work_in(settings, FakeClock()) as rooms:
        yield rooms


@pytest.fixture
async def ctx(work: Work) -> TenantContext:
    """Somebody who is everything in a tenant."""
    return await work.tenant("bank", Policy(concurrency_cap=100))


@dataclass(slots=True)
class Model:
    """How a run should stand."""

    run_id: RunId
    state: RunState = RunState.QUEUED
    held: bool = False
    ready: bool = False
    cancelling: bool = False
    woken: bool = False
    waits: set[int] = field(default_factory=set)
    on: Executing | None = None
    steps: int = 0

    @property
    def cause(self) -> Cause | None:
        """Why it waits."""
        if self.state is not RunState.WAITING:
            return None
        return Cause.PAUSED if self.held else Cause.TIMER

    def go_on(self) -> None:
        """What it waited for is over, or its worker is gone."""
        self.state = RunState.WAITING if self.held else RunState.QUEUED
        self.ready, self.woken = self.held, False
        self.on = None

    def end(self, state: RunState) -> None:
        """It is over."""
        self.state, self.held, self.ready, self.on = state, False, False, None
        self.woken = False
        self.waits.clear()


class Life:
    """The same operations on runs and on what they should be."""

    def __init__(self, work: Work, ctx: TenantContext, seed: int) -> None:
        self.work, self.ctx, self.rng = work, ctx, random.Random(seed)
        self.runs: list[Model] = []
        self.seen: set[str] = set()

    async def act(self) -> None:
        """One operation on one run."""
        verbs: dict[Callable[[], Awaitable[None]], float] = {
            self.submit: 3,
            self.claim: 3,
            self.pause: 5,
            self.resume: 2,
            self.cancel: 1,
            self.retry: 1,
        }
        verbs |= {self.step: 1, self.wait: 4, self.park: 4, self.wake: 4, self.end: 1, self.hand_back: 1, self.die: 1.5}
        self.work.clock.advance(self.rng.random())
        await self.rng.choices(list(verbs), list(verbs.values()))[0]()
        await self.compare()

    def one(self, *states: RunState) -> Model | None:
        """Any run, or one in these states."""
        fitting = [run for run in self.runs if not states or run.state in states]
        still_open = [run for run in fitting if not run.state.final]
        chosen = still_open if still_open and self.rng.random() < 0.9 else fitting
        return self.rng.choice(chosen) if chosen else None

    async def told(self, act: Awaitable[Any], allowed: bool, word: str) -> bool:
        """Perform an act that must be done or refused."""
        if allowed:
            await act
            self.seen.add(word)
        else:
            with pytest.raises(Conflict):
                await act
        return allowed

    async def submit(self) -> None:
        if sum(not run.state.final for run in self.runs) < 6:
            (run,) = await self.work.submit(self.ctx, 1)
            self.runs.append(Model(run.run_id))

    async def claim(self) -> None:
        queued = {run.run_id: run for run in self.runs if run.state is RunState.QUEUED}
        claims = await self.work.claim("w", self.rng.randint(1, 3))
        assert {claim.run_id for claim in claims} <= set(queued)
        assert bool(claims) == bool(queued), "what is queued starts, and what is held does not"
        for claim in claims:
            run = queued[claim.run_id]
            run.state, run.on = RunState.RUNNING, await self.work.executing(claim)

    async def pause(self) -> None:
        if run := self.rng.choice([self.one(), next((run for run in self.runs if run.waits and not run.held), None)]):
            allowed = not (run.state.final or run.held or run.cancelling)
            if await self.told(self.work.control.pause(self.ctx, run.run_id), allowed, f"pause {run.state}"):
                run.held, run.ready = True, run.state is RunState.QUEUED
                run.state = RunState.RUNNING if run.state is RunState.RUNNING else RunState.WAITING

    async def resume(self) -> None:
        if run := self.one():
            word = f"resume {run.state} {run.ready} {bool(run.waits)}"
            if await self.told(self.work.control.resume(self.ctx, run.run_id), run.held, word):
                run.held = False
                if run.state is RunState.WAITING and (run.ready or not run.waits):
                    run.go_on()
                run.ready = False

    async def cancel(self) -> None:
        if run := self.one():
            word = f"cancel {run.state} {run.held}"
            if await self.told(self.work.control.cancel(self.ctx, run.run_id), not run.state.final, word):
                run.held = run.ready = False
                if run.state is RunState.RUNNING:
                    run.cancelling = True
                else:
                    run.end(RunState.CANCELLED)

    async def retry(self) -> None:
        if run := self.one():
            allowed = run.state in (RunState.FAILED, RunState.CANCELLED)
            if await self.told(self.work.control.retry(self.ctx, run.run_id), allowed, "retry"):
                run.state, run.cancelling = RunState.QUEUED, False

    async def step(self) -> None:
        run = self.one(RunState.RUNNING)
        if run is None or run.on is None:
            return
        run.steps += 1
        beginning = self.work.execution.begin_step(run.on, run.steps, "work", "step")
        if run.cancelling or run.held:
            with pytest.raises(Cancelled if run.cancelling else Paused):
                await beginning
        else:
            await self.work.execution.finish_step(run.on, run.steps, await beginning, None, reserved=False)

    async def wait(self) -> None:
        run = self.one(RunState.RUNNING)
        if run is None or run.on is None:
            return
        run.steps += 1
        wait = Wait(run.steps, "sleep", Cause.TIMER, wake_at=self.work.clock.now() + timedelta(seconds=HOUR_S))
        sleeping = self.work.execution.sleep(run.on, wait)
        if run.held:
            with pytest.raises(Paused):
                await sleeping
        else:
            assert not await sleeping
            run.waits.add(run.steps)

    async def park(self) -> None:
        run = self.one(RunState.RUNNING)
        if run is None or run.on is None:
            return
        state = await self.work.execution.park(run.on)
        self.seen.add(f"park {run.held} {bool(run.waits)}")
        if run.woken:
            run.go_on()
        elif run.cancelling and run.waits:
            run.end(RunState.CANCELLED)
        elif run.waits and not run.held:
            run.state, run.on = RunState.WAITING, None
        else:
            run.go_on()
        assert state is run.state

    async def wake(self) -> None:
        waiting = [run for run in self.runs if run.waits]
        if not waiting:
            return
        run = self.rng.choice([run for run in waiting if run.held] or waiting)
        step = self.rng.choice(sorted(run.waits))
        run.waits.remove(step)
        self.seen.add(f"wake {run.state} {run.held}")
        async with self.work.db.tenant_transaction(self.ctx) as tx:
            assert await self.work.queue.wake_in(tx, run.run_id, step)
        if run.state is RunState.WAITING:
            run.go_on()
        else:
            run.woken = run.state is RunState.RUNNING

    async def end(self) -> None:
        run = self.one(RunState.RUNNING)
        if run is not None and run.on is not None and not run.waits:
            state = self.rng.choice([RunState.SUCCEEDED, RunState.FAILED])
            self.seen.add(f"end {run.held}")
            assert await self.work.execution.end(run.on, state)
            run.end(state)

    async def hand_back(self) -> None:
        run = self.one(RunState.RUNNING)
        if run is not None and run.on is not None:
            assert await self.work.execution.hand_back(run.on)
            run.go_on()

    async def die(self) -> None:
        self.work.clock.advance(2 * DEAD_AFTER_S)
        lost = [run for run in self.runs if run.state is RunState.RUNNING]
        assert {one.run_id for one in await self.work.queue.recover()} == {run.run_id for run in lost}
        for run in lost:
            self.seen.add(f"die {run.held}")
            run.go_on()

    async def compare(self) -> None:
        """Everything that is seen of the runs, and all counts of the queue."""
        views = {view.run_id: view for view in (await self.work.runs.list(self.ctx))[0]}
        for run in self.runs:
            view = views[run.run_id]
            cause = view.cause if view.state is RunState.WAITING else None
            assert (view.state, cause, view.held) == (run.state, run.cause, run.held), self.seen
        assert await self.work.queue.faults() == []

    async def finish(self) -> None:
        """Everything is resumed, woken and executed: nothing is stuck."""
        for run in self.runs:
            if run.held:
                await self.work.control.resume(self.ctx, run.run_id)
        self.work.clock.advance(2 * HOUR_S)
        await self.work.queue.wake_due()
        await self.work.queue.recover()
        for claim in await self.work.claim("w", 100):
            await self.work.finish(claim)
        for run in self.runs:
            assert (await self.work.runs.get(self.ctx, run.run_id)).state.final


async def test_a_paused_run_stands_as_it_should_whatever_happens_in_whatever_order(work: Work) -> None:
    seen: set[str] = set()
    for seed in (1, 2):
        life = Life(work, await work.tenant(f"bank-{seed}", Policy(concurrency_cap=100)), seed)
        for _ in range(OPERATIONS):
            await life.act()
        await life.finish()
        seen |= life.seen
    needed = {"wake waiting True", "park True True", "park True False", "die True", "cancel waiting True"}
    assert needed <= seen, needed - seen


async def test_all_that_a_paused_run_waited_has_its_cause(work: Work, ctx: TenantContext) -> None:
    (run,) = await work.submit(ctx, 1)
    work.clock.advance(5)
    await work.control.pause(ctx, run.run_id)
    work.clock.advance(10)
    await work.control.resume(ctx, run.run_id)
    work.clock.advance(1)
    (claim,) = await work.claim("w", 1)
    on = await work.executing(claim)
    work.clock.advance(2)
    wait = Wait(1, "sleep", Cause.TIMER, wake_at=work.clock.now() + timedelta(seconds=100))
    assert not await work.execution.sleep(on, wait)
    await work.execution.park(on)
    work.clock.advance(20)
    assert (await work.control.pause(ctx, run.run_id)).cause is Cause.PAUSED
    work.clock.advance(30)
    assert (await work.control.resume(ctx, run.run_id)).cause is Cause.TIMER
    work.clock.advance(40)
    standing = await work.runs.standing(ctx, await work.runs.get(ctx, run.run_id))
    assert standing.waited_s == {Cause.NO_WORKER: 6.0, Cause.PAUSED: 40.0, Cause.TIMER: 60.0}
    found = await history(work.db, ctx, run.run_id, work.clock.now())
    assert [(entry.name, entry.lasted_s(found.now)) for entry in found.timeline()] == [
        ("queued", 5.0),
        ("paused", 10.0),
        ("queued", 1.0),
        ("resumed", 0.0),
        ("slot", 2.0),
        ("sleep", 90.0),
        ("timer", 20.0),
        ("paused", 30.0),
        ("timer", 40.0),
        ("resumed", 0.0),
    ]


async def test_nobody_pauses_or_resumes_what_is_not_theirs(work: Work, ctx: TenantContext) -> None:
    (run,) = await work.submit(ctx, 1)
    other = await work.tenant("other")
    for act in (work.control.pause, work.control.resume):
        with pytest.raises(NotFound):
            await act(other, run.run_id)
    assert (await work.runs.get(ctx, run.run_id)).state is RunState.QUEUED

"""Runs moved at random by everybody who moves them, on Postgres, against a model of what must become of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as budget
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from core.clock import FakeClock
from core.errors import Conflict
from core.ids import RunId
from core.queue.model import DEAD_AFTER_S, Claim
from core.reviews.model import ReviewState
from core.runs import execution_store
from core.runs.execution import Cancelled, Executing, Lost, Wait
from core.runs.model import Cause, RunState
from core.settings import Settings
from core.tenancy import Policy, TenantContext
from tests.fixtures.work import Work, work_in

MOST_RECOVERIES = 2
FAILED = {"code": "step_failed", "message": "refused"}

Result = TypeVar("Result")


def when(*states: RunState) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A rule for when some run is in one of these states: others would do nothing, and find nothing."""
    return precondition(lambda machine: machine.some(0, *states) is not None)


@dataclass
class Model:
    """What must be true of one run. ``done``: its done steps that can be undone, and are not; ``past``: its claims that
    are over; ``asks``: people are asked something about it."""

    run_id: str
    state: RunState = RunState.QUEUED
    steps: int = 0
    done: list[int] = field(default_factory=list)
    cancelled: bool = False
    recoveries: int = 0
    to_end: RunState | None = None
    claim: Claim | None = None
    past: list[Claim] = field(default_factory=list)
    asks: bool = False


class Machine(RuleBasedStateMachine):
    """Up to three runs of a tenant of its own, and one worker, which may claim a run again that it had lost."""

    work: Work
    runner: asyncio.Runner
    tenants = 0

    def do(self, act: Coroutine[Any, Any, Result]) -> Result:
        return self.runner.run(act)

    @initialize()
    def begin(self) -> None:
        Machine.tenants += 1
        policy = Policy(concurrency_cap=10, max_recoveries=MOST_RECOVERIES)
        self.ctx: TenantContext = self.do(self.work.tenant(f"tenant-{Machine.tenants}", policy))
        self.runs: dict[str, Model] = {}
        self.submit()
        self.submit()
        self.claim()

    def some(self, number: int, *states: RunState) -> Model | None:
        found = [run for run in self.runs.values() if run.state in states]
        return found[number % len(found)] if found else None

    def on(self, run: Model) -> Executing:
        assert run.claim is not None
        return self.do(self.work.executing(run.claim))

    def ask(self, on: Executing, step: int, cause: Cause = Cause.REVIEW) -> None:
        request = self.work.reviews.request
        asked = request(on, step, pool="p", title="?", evidence={}, choices=["yes"], sla_s=60, cause=cause)
        assert self.do(asked) is None

    @precondition(lambda self: len(self.runs) < 3)
    @rule()
    def submit(self) -> None:
        self.work.clock.advance(1)  # so that runs are claimed in this order
        (run,) = self.do(self.work.submit(self.ctx, 1))
        self.runs[run.run_id] = Model(run.run_id)

    @when(RunState.QUEUED)
    @rule()
    def claim(self) -> None:
        for claim in self.do(self.work.claim(f"worker-of-{self.ctx.tenant_id}", 1)):
            run = self.runs[claim.run_id]
            assert run.state is RunState.QUEUED
            run.past += [run.claim] if run.claim is not None else []
            run.state, run.claim = RunState.RUNNING, claim

    @precondition(lambda self: any(run.past for run in self.runs.values()))
    @rule()
    def echo(self) -> None:
        """Earlier executions write once more, because the answer was lost, whoever has the run now."""
        execution = self.work.execution
        for claim in (claim for run in self.runs.values() for claim in run.past):
            on = self.do(self.work.executing(claim))
            assert not self.do(execution.end(on, RunState.FAILED, error=FAILED))
            assert self.do(execution.park(on)) is None
            assert not self.do(execution.hand_back(on))
            assert self.do(self.work.queue.give_back(on.held, FAILED)) is None
            for cause in (Cause.REVIEW, Cause.BUDGET):
                with pytest.raises(Lost):
                    self.ask(on, 97, cause)
            with pytest.raises(Lost):
                self.do(self.work.reviews.used(on, 96))
            with pytest.raises(Lost):
                self.do(execution.arm_wait(on, Wait(95, "hall", Cause.RATE, key="hall")))

    @when(RunState.RUNNING)
    @rule(number=st.integers(0, 2), cause=st.sampled_from([Cause.REVIEW, Cause.BUDGET]))
    def question(self, number: int, cause: Cause) -> None:
        """Also by one that is to stop: its worker may not have heard of that."""
        run = self.some(number, RunState.RUNNING)
        if run is not None and run.to_end is None:
            self.ask(self.on(run), 98 if cause is Cause.REVIEW else 96, cause)
            run.asks = True

    @when(RunState.RUNNING)
    @rule(number=st.integers(0, 2), undo=st.booleans())
    def step(self, number: int, undo: bool) -> None:
        if (run := self.some(number, RunState.RUNNING)) is None or run.to_end is not None:
            return
        on, execution = self.on(run), self.work.execution
        try:
            attempt = self.do(execution.begin_step(on, run.steps + 1, "step", "step", undo=undo))
        except Cancelled:
            assert run.cancelled
            self.end(run, RunState.CANCELLED, len(run.done))
            return
        assert not run.cancelled
        run.steps += 1
        self.do(execution.finish_step(on, run.steps, attempt, run.steps, reserved=False))
        if undo:
            run.done.append(run.steps)

    @when(RunState.RUNNING)
    @rule(number=st.integers(0, 2))
    def park(self, number: int) -> None:
        run = self.some(number, RunState.RUNNING)
        if run is None or run.to_end is not None:
            return
        on = self.on(run)
        self.do(self.work.execution.arm_wait(on, Wait(99, "event", Cause.EVENT, key="go/1")))
        state = self.do(self.work.execution.park(on))
        if not run.cancelled:
            assert state is RunState.WAITING
        else:
            assert state is (RunState.QUEUED if run.done else RunState.CANCELLED)
        assert state is not None
        run.state, run.asks = state, run.asks and not run.cancelled

    @when(RunState.WAITING)
    @rule(number=st.integers(0, 2))
    def wake(self, number: int) -> None:
        if (run := self.some(number, RunState.WAITING)) is not None:
            assert self.do(self._woken(run.run_id))
            run.state = RunState.QUEUED

    async def _woken(self, run_id: str) -> bool:
        async with self.work.db.tenant_transaction(self.ctx) as tx:
            return await self.work.queue.wake_in(tx, RunId(run_id), 99)

    @precondition(lambda self: self.to_cancel(0) is not None)
    @rule(number=st.integers(0, 2))
    def cancel(self, number: int) -> None:
        run = self.to_cancel(number)
        assert run is not None
        self.do(self.work.control.cancel(self.ctx, run.run_id))
        run.cancelled = True
        if run.state is RunState.DEAD:
            run.recoveries = 0
        run.asks = False
        if run.state is not RunState.RUNNING:
            run.state = RunState.QUEUED if run.done or run.to_end else RunState.CANCELLED

    def to_cancel(self, number: int) -> Model | None:
        over = (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED)
        found = [run for run in self.runs.values() if not run.cancelled and run.state not in over]
        return found[number % len(found)] if found else None

    @precondition(lambda self: self.undoing() is not None)
    @rule()
    def pause(self) -> None:
        """One that undoes what it did is not paused; what becomes of the others is in test_pausing."""
        run = self.undoing()
        assert run is not None
        with pytest.raises(Conflict):
            self.do(self.work.control.pause(self.ctx, run.run_id))

    def undoing(self) -> Model | None:
        under_way = (RunState.QUEUED, RunState.RUNNING)
        return next((one for one in self.runs.values() if one.to_end and one.state in under_way), None)

    @when(RunState.RUNNING)
    @rule(number=st.integers(0, 2))
    def hand_over(self, number: int) -> None:
        if (run := self.some(number, RunState.RUNNING)) is not None:
            assert self.do(self.work.execution.hand_back(self.on(run)))
            run.state = RunState.QUEUED

    @when(RunState.RUNNING)
    @rule(number=st.integers(0, 2), broken=st.booleans())
    def lose(self, number: int, broken: bool) -> None:
        """The worker of a run breaks over it, or dies; all workers that hold something are silent then."""
        if (chosen := self.some(number, RunState.RUNNING)) is None:
            return
        if broken:
            self.do(self.work.queue.give_back(self.on(chosen).held, FAILED))
            lost = [chosen]
        else:
            self.work.clock.advance(DEAD_AFTER_S + 1)
            taken = {each.run_id for each in self.do(self.work.queue.recover())}
            lost = [run for run in self.runs.values() if run.state is RunState.RUNNING]
            assert taken == {run.run_id for run in lost}
        for run in lost:
            run.recoveries += 1
            dead = run.recoveries > MOST_RECOVERIES
            run.state, run.asks = RunState.DEAD if dead else RunState.QUEUED, run.asks and not dead

    @when(RunState.RUNNING)
    @rule(number=st.integers(0, 2), well=st.booleans(), most=st.integers(0, 2))
    def finish(self, number: int, well: bool, most: int) -> None:
        """The function returned or failed; of the undos, ``most`` succeed and the next one does not."""
        if (run := self.some(number, RunState.RUNNING)) is None:
            return
        if run.to_end is not None:
            self.end(run, run.to_end, most)
        elif well:
            assert self.do(self.work.execution.end(self.on(run), RunState.SUCCEEDED))
            run.state, run.asks = RunState.SUCCEEDED, False
        else:
            self.end(run, RunState.FAILED, most)

    def end(self, run: Model, state: RunState, most: int) -> None:
        on, execution = self.on(run), self.work.execution
        to_undo = self.do(execution.compensate(on, {"end": state}))
        assert set(run.done) <= set(to_undo)
        undone = sorted(run.done, reverse=True)[:most]
        for step in undone:
            attempt = self.do(execution.begin_step(on, -step, "undo", "undo"))
            self.do(execution.finish_step(on, -step, attempt, None, reserved=False))
            run.done.remove(step)
        error = {"code": "compensation_failed", "message": "stuck"} if run.done else FAILED
        run.to_end = state if run.done else None
        run.state, run.asks = RunState.FAILED if run.done else state, False
        assert self.do(execution.end(on, run.state, error=error))

    @when(RunState.FAILED, RunState.CANCELLED, RunState.DEAD)
    @rule(number=st.integers(0, 2))
    def retry(self, number: int) -> None:
        run = self.some(number, RunState.FAILED, RunState.CANCELLED, RunState.DEAD)
        if run is not None:
            self.do(self.work.control.retry(self.ctx, run.run_id))
            run.state, run.cancelled, run.recoveries = RunState.QUEUED, False, 0

    @invariant()
    def every_run_stands_where_the_model_says(self) -> None:
        for run in getattr(self, "runs", {}).values():
            seen = self.do(self.work.runs.get(self.ctx, run.run_id))
            assert seen.state is run.state
            assert self.do(self._undoable(run.run_id)) == bool(run.done)
            asked = self.do(self.work.reviews.find(self.ctx, of_run=run.run_id))
            assert any(one.state == ReviewState.OPEN for one in asked) == run.asks

    async def _undoable(self, run_id: str) -> bool:
        async with self.work.db.tenant_transaction(self.ctx) as tx:
            return await execution_store.undoable(tx, run_id)

    def teardown(self) -> None:
        if hasattr(self, "ctx"):
            assert self.do(self.work.queue.faults()) == []
            for run in self.runs.values():  # the next example finds an empty queue
                if run.state in (RunState.QUEUED, RunState.WAITING, RunState.RUNNING):
                    self.leave(run)

    def leave(self, run: Model) -> None:
        while run.state is not RunState.RUNNING:
            if run.state is RunState.WAITING:
                self.wake(0)
            self.claim()
        assert self.do(self.work.execution.end(self.on(run), RunState.SUCCEEDED))
        run.state = RunState.SUCCEEDED


@pytest.fixture
def machine(settings: Settings) -> Iterator[type[Machine]]:
    with asyncio.Runner() as runner:
        opening = work_in(settings, FakeClock())
        Machine.work, Machine.runner = runner.run(opening.__aenter__()), runner
        yield Machine
        runner.run(opening.__aexit__(None, None, None))


def test_runs_stand_where_a_model_says_whoever_moves_them(machine: type[Machine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=budget(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            phases=(
                Phase.explicit,
                Phase.generate,
            ),  # what fails is told as it was found: to make it short takes minutes
            suppress_health_check=list(HealthCheck),
        ),
    )

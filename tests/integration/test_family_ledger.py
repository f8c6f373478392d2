"""The money of families of runs: whatever is promised, paid, given back and agreed to in whatever order, every run's
account says what it and those below it spend, and the month counts it once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as configured
from hypothesis import strategies as st

from core.clock import FakeClock
from core.errors import BudgetExceeded
from core.settings import Settings
from core.tenancy import Policy, TenantContext
from tests.fixtures.work import Work, work_in

MONTH = 1_000
PARENTS = {"root": None, "left": "root", "right": "root", "below": "left", "last": "below"}
BUDGETS = {"root": 500, "left": 300, "right": 400, "below": 300, "last": 100}
NUMBERS = count(1)


@pytest.fixture
async def work(settings: Settings) -> AsyncIterator[Work]:
    """The rooms, on a clock that stands still."""
    async with work_in(settings, FakeClock()) as rooms:
        yield rooms


@dataclass(frozen=True, slots=True)
class Reserve:
    """Promise an amount under a key, in a run."""

    key: str
    amount: int
    run: str


@dataclass(frozen=True, slots=True)
class Settle:
    """Say what was spent under a key."""

    key: str
    amount: int


@dataclass(frozen=True, slots=True)
class Abandon:
    """Give back what is open under keys with this beginning."""

    prefix: str


@dataclass(frozen=True, slots=True)
class Cover:
    """Somebody agrees that a run may spend so much more."""

    run: str
    amount: int


Act = Reserve | Settle | Abandon | Cover
keys = st.sampled_from(["a/1/1", "a/1/2", "a/2/1", "b/1/1", "b/2/1", "c/1/1"])
acts: st.SearchStrategy[Act] = st.one_of(
    st.builds(Reserve, keys, st.integers(0, 320), st.sampled_from(sorted(PARENTS))),
    st.builds(Settle, keys, st.integers(0, 200)),
    st.builds(Abandon, st.sampled_from(["a/1/", "a/", "b/", "nothing"])),
    st.builds(Cover, st.sampled_from(sorted(PARENTS)), st.integers(0, 200)),
)


def line(run: str) -> list[str]:
    """A run and those above it, from the root down."""
    above = PARENTS[run]
    return [*([] if above is None else line(above)), run]


@dataclass(slots=True)
class Model:
    """What the accounts should hold, in the plainest terms."""

    limits: dict[str, int] = field(default_factory=lambda: dict(BUDGETS))
    promised: dict[str, Reserve] = field(default_factory=dict)
    spent: dict[str, int] = field(default_factory=dict)

    def used(self, run: str | None) -> tuple[int, int]:
        """What is promised and what was spent, by a run and those below it, or (None) by all."""
        of = [key for key, act in self.promised.items() if run is None or run in line(act.run)]
        open_ = sum(self.promised[key].amount for key in of if key not in self.spent)
        return open_, sum(self.spent.get(key, 0) for key in of)

    def lacking(self, act: Reserve) -> str:
        """Whose account lacks the money for this, or ``ok``."""
        if act.key in self.promised:
            return "ok"
        if sum(self.used(None)) + act.amount > MONTH:
            return "month"
        for run in line(act.run):
            if sum(self.used(run)) + act.amount > self.limits[run]:
                return "run" if run == act.run else "parent"
        return "ok"


async def family(work: Work, ctx: TenantContext) -> dict[str, str]:
    """Five runs that spawned each other, by name."""
    ids: dict[str, str] = {}
    for name, parent in PARENTS.items():
        owned = replace(ctx, policy=Policy(budget_month_microusd=MONTH, budget_run_microusd=BUDGETS[name]))
        given: dict[str, Any] = {} if parent is None else {"parent_run_id": ids[parent], "parent_step": 1}
        (run,) = await work.submit(owned, 1, **given)
        ids[name] = run.run_id
    return ids


async def perform(work: Work, ctx: TenantContext, ids: dict[str, str], model: Model, act: Act) -> None:
    """Do it to both; they must agree on what happens."""
    match act:
        case Reserve():
            expected = model.lacking(act)
            try:
                await work.usage.reserve(ctx, act.key, act.amount, run_id=ids[act.run])
                told = "ok"
            except BudgetExceeded as refused:
                told = refused.details["account"]
            assert told == expected, act
            if told == "ok":
                model.promised.setdefault(act.key, act)
        case Settle():
            new = act.key in model.promised and act.key not in model.spent
            assert await work.usage.settle(ctx, act.key, act.amount) is new, act
            if new:
                model.spent[act.key] = act.amount
        case Abandon():
            given = [key for key in model.promised if key.startswith(act.prefix) and key not in model.spent]
            assert await work.usage.abandon(ctx, act.prefix) == len(given), act
            model.spent |= dict.fromkeys(given, 0)
        case Cover():
            await work.usage.cover(ctx, ids[act.run], BUDGETS[act.run], act.amount)
            for run in line(act.run):
                model.limits[run] = max(model.limits[run], sum(model.used(run)) + act.amount)


async def agrees(work: Work, ctx: TenantContext, ids: dict[str, str], model: Model) -> None:
    """The accounts say what the model says; a parent has spent what it and its children have."""
    assert (await work.usage.balance(ctx)).spent_microusd == model.used(None)[1]
    for name, run_id in ids.items():
        balance = await work.usage.balance(ctx, run_id)
        assert (balance.reserved_microusd, balance.spent_microusd) == model.used(name), name


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for all examples."""
    with asyncio.Runner() as runner:
        yield runner


def test_any_sequence_keeps_the_books_of_a_family(settings: Settings, runner: asyncio.Runner) -> None:
    opened = work_in(settings, FakeClock())
    work = runner.run(opened.__aenter__())

    @given(st.lists(acts, min_size=5, max_size=20))
    @example([Reserve("a/1/1", 300, "left"), Reserve("a/2/1", 250, "right"), Settle("a/1/1", 100)])
    @example([Cover("last", 200), Reserve("a/1/1", 200, "last"), Abandon("a/"), Reserve("b/1/1", 200, "last")])
    @configured(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def play(sequence: list[Act]) -> None:
        async def example_of_its_own() -> None:
            policy = Policy(budget_month_microusd=MONTH)
            ctx = await work.tenant(f"tenant-{next(NUMBERS)}", policy)
            ids, model = await family(work, ctx), Model()
            for act in sequence:
                await perform(work, ctx, ids, model, act)
                await agrees(work, ctx, ids, model)

        runner.run(example_of_its_own())

    try:
        play()
    finally:
        runner.run(opened.__aexit__(None, None, None))


async def test_children_that_promise_and_pay_at_once_never_block_each_other_and_never_overdraw_their_parent(
    work: Work,
) -> None:
    ctx = await work.tenant("bank", Policy(budget_month_microusd=10**9, budget_run_microusd=1_000))
    (parent,) = await work.submit(ctx, 1)
    children = await work.submit(ctx, 40, parent_run_id=parent.run_id, parent_step=1)

    lacking: set[str] = set()

    async def spends(run_id: str) -> int:
        try:
            await work.usage.reserve(ctx, f"{run_id}/1/1", 60, run_id=run_id)
        except BudgetExceeded as refused:
            lacking.add(refused.details["account"])
            return 0
        await work.usage.settle(ctx, f"{run_id}/1/1", 50)
        return 50

    spent = sum(await asyncio.gather(*(spends(child.run_id) for child in children)))
    assert lacking <= {"parent"}
    balance = await work.usage.balance(ctx, parent.run_id)
    assert (balance.reserved_microusd, balance.spent_microusd) == (0, spent)
    assert 16 * 50 <= spent <= 1_000  # 16 promises of 60 fit, however the others fall in between

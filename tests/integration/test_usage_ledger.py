"""The ledger against a model of it, in any order, at once, and after crashes: every cent is promised and spent once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import count

import asyncpg
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as configured
from hypothesis import strategies as st

from core.clock import FakeClock
from core.errors import BudgetExceeded
from core.runs.execution import Wait
from core.runs.model import Cause, RunState
from core.settings import Settings
from core.tenancy import Policy, TenantContext
from core.usage.model import Overrun
from tests.fixtures.work import Work, work_in

MONTH, RUN = 1_000, 400
POLICY = Policy(budget_month_microusd=MONTH, budget_run_microusd=RUN)
HOUR_S = 3_600.0
NUMBERS = count(1)


@pytest.fixture
async def work(settings: Settings) -> AsyncIterator[Work]:
    """The rooms, on a clock that stands still."""
    async with work_in(settings, FakeClock()) as rooms:
        yield rooms


# In any order ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reserve:
    """Promise an amount under a key, in a run or outside of any; ``beyond`` the limits if need be."""

    key: str
    amount: int
    run: str | None
    beyond: bool = False


@dataclass(frozen=True, slots=True)
class Settle:
    """Say what was spent under a key; ``whole``: and under all that continue it, as at the end of an attempt."""

    key: str
    amount: int
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Abandon:
    """Give back what is open under keys with this beginning."""

    prefix: str


@dataclass(frozen=True, slots=True)
class Forsake:
    """An hour goes by and housekeeping comes."""


@dataclass(frozen=True, slots=True)
class Cover:
    """People agree that a run may spend so much more."""

    run: str
    amount: int


Act = Reserve | Settle | Cover | Abandon | Forsake
# Keys that are beginnings of each other, and words that languages sort in ways of their own.
keys = st.sampled_from(
    ["run_1/1/1", "run_1/1/1/1", "run_1/1/2", "run_1/10/1", "Run_1/1/1", "run-1/1/1", "é/1/1", "model_1"]
)
amounts = st.integers(0, 450)
acts: st.SearchStrategy[Act] = st.one_of(
    st.builds(Reserve, keys, amounts, st.sampled_from([None, "run_1", "run_2"]), st.sampled_from([False, False, True])),
    st.builds(Settle, keys, st.integers(0, 600), st.booleans()),
    st.builds(Cover, st.sampled_from(["run_1", "run_2"]), amounts),
    st.builds(Abandon, st.sampled_from(["run_1/1/", "run_1/", "é/", "nothing"])),
    st.just(Forsake()),
)


@dataclass(slots=True)
class Model:
    """What the ledger should hold, in the plainest terms."""

    promised: dict[str, Reserve] = field(default_factory=dict)
    spent: dict[str, int] = field(default_factory=dict)
    agreed: dict[str, int] = field(default_factory=dict)

    def limit(self, run: str) -> int:
        """What a run may spend."""
        return self.agreed.get(run, RUN)

    def open(self, run: str | None = None) -> int:
        """What is promised and not settled, of a run or of all."""
        return sum(act.amount for key, act in self.promised.items() if key not in self.spent and run in (None, act.run))

    def paid(self, run: str | None = None) -> int:
        """What was spent, in a run or in all."""
        return sum(amount for key, amount in self.spent.items() if run in (None, self.promised[key].run))

    def covered(self, act: Reserve) -> str:
        """The account that lacks the money for this, or ``ok``."""
        if act.key in self.promised or act.beyond:
            return "ok"
        if self.open() + self.paid() + act.amount > MONTH:
            return "month"
        if act.run is not None and self.open(act.run) + self.paid(act.run) + act.amount > self.limit(act.run):
            return "run"
        return "ok"

    def overrun(self, run: str) -> Overrun | None:
        """By how much a run, else the month, has more promised and spent than it may."""
        for account, over in (
            ("run", self.open(run) + self.paid(run) - self.limit(run)),
            ("month", self.open() + self.paid() - MONTH),
        ):
            if over > 0:
                return Overrun(account, over)
        return None

    def give_back(self, prefix: str) -> int:
        """Settle at nothing what is open under these keys; how many."""
        given = [key for key in self.promised if key.startswith(prefix) and key not in self.spent]
        self.spent |= dict.fromkeys(given, 0)
        return len(given)


async def settled(work: Work, ctx: TenantContext, act: Settle) -> bool | None:
    """Whether it was settled now; None: it does not say."""
    if not act.whole:
        return await work.usage.settle(ctx, act.key, act.amount)
    async with work.db.tenant_transaction(ctx) as tx:
        await work.usage.settle_step_in(tx, act.key, act.amount, None, run_id="run_1", step=1, attempt=1, learn=True)
    return None


async def perform(work: Work, ctx: TenantContext, model: Model, act: Act) -> None:
    """Do it to both; they must agree on what happens."""
    match act:
        case Reserve():
            expected = model.covered(act)
            try:
                async with work.db.tenant_transaction(ctx) as tx:
                    await work.usage.reserve_in(tx, ctx, act.key, act.amount, run_id=act.run, beyond=act.beyond)
                told = "ok"
            except BudgetExceeded as refused:
                told = refused.details["account"]
            assert told == expected, act
            if told == "ok":
                model.promised.setdefault(act.key, act)
        case Settle():
            new = act.key in model.promised and act.key not in model.spent
            assert await settled(work, ctx, act) in (new, None), act
            if new:
                model.spent[act.key] = act.amount
                model.give_back(f"{act.key}/" if act.whole else "nothing")
        case Cover():
            await work.usage.cover(ctx, act.run, RUN, act.amount)
            needed = model.open(act.run) + model.paid(act.run) + act.amount
            model.agreed[act.run] = max(model.limit(act.run), needed)
        case Abandon():
            assert await work.usage.abandon(ctx, act.prefix) == model.give_back(act.prefix), act
        case Forsake():
            work.clock.advance(1)
            assert await work.usage.release_forsaken(0) == model.give_back("")


async def agrees(work: Work, ctx: TenantContext, model: Model) -> None:
    """The accounts say what the model says."""
    for run, limit in ((None, MONTH), *((run, model.limit(run)) for run in ("run_1", "run_2"))):
        balance = await work.usage.balance(ctx, run)
        assert (balance.limit_microusd, balance.reserved_microusd, balance.spent_microusd) == (
            limit,
            model.open(run),
            model.paid(run),
        ), run
    async with work.db.tenant_transaction(ctx) as tx:
        for run in ("run_1", "run_2"):
            assert await work.usage.overrun_in(tx, ctx, run) == model.overrun(run)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for all examples."""
    with asyncio.Runner() as runner:
        yield runner


def test_any_sequence_of_promises_payments_and_retries_keeps_the_books(
    settings: Settings, owner_dsn: str, runner: asyncio.Runner
) -> None:
    opened = work_in(settings, FakeClock())
    work = runner.run(opened.__aenter__())

    @given(st.lists(acts, max_size=25))
    @example([Reserve("run_1/1/1", 400, "run_1"), Settle("run_1/1/1", 600), Reserve("model_1", 400, None)])
    @example([Reserve("run_1/1/1", 9, "run_1"), Reserve("run_1/1/1/1", 9, "run_1"), Settle("run_1/1/1", 12, True)])
    @example([Reserve("run_1/1/1", 400, "run_1", True), Reserve("run_1/1/2", 400, "run_1", True), Cover("run_1", 9)])
    @example([Reserve("model_1", 0, None), Settle("model_1", 5), Settle("model_1", 5), Reserve("model_1", 9, None)])
    @configured(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def play(sequence: list[Act]) -> None:
        async def example_of_its_own() -> None:
            await work.usage.release_forsaken(-1)  # of the examples before
            ctx = await work.tenant(f"tenant-{next(NUMBERS)}", POLICY)
            model = Model()
            for act in sequence:
                await perform(work, ctx, model, act)
                await agrees(work, ctx, model)

        runner.run(example_of_its_own())

    try:
        play()
        runner.run(books_balance(owner_dsn))
    finally:
        runner.run(opened.__aexit__(None, None, None))


async def books_balance(owner_dsn: str) -> None:
    """Accounts, entries and open reservations tell one story, for every tenant."""
    owner = await asyncpg.connect(owner_dsn)
    try:
        wrong = await owner.fetch(
            """
            with entries as (
                select r.tenant_id, r.key, r.amount_microusd as promised, s.amount_microusd as spent, accounts.account
                from ledger r left join ledger s on s.tenant_id = r.tenant_id and s.key = r.key and s.kind = 'settle'
                cross join lateral (
                    select 'month:' || r.month union all select 'run:' || r.run_id
                    union all select 'run:' || a from runs u, unnest(u.ancestors) a where u.run_id = r.run_id
                ) accounts (account)
                where r.kind = 'reserve' and accounts.account is not null
            ), sums as (
                select tenant_id, account, sum(promised) filter (where spent is null) as reserved, sum(spent) as spent
                from entries group by 1, 2
            )
            select 'account ' || a.account from budget_accounts a left join sums s using (tenant_id, account)
            where (a.reserved_microusd, a.spent_microusd) <> (coalesce(s.reserved, 0), coalesce(s.spent, 0))
            union all
            select 'reservation ' || coalesce(o.key, e.key)
            from (select * from reservations) o
            full join (select distinct tenant_id, key from entries where spent is null) e using (tenant_id, key)
            where o.key is null or e.key is null
            union all
            select 'settled without a promise: ' || s.key from ledger s
            where s.kind = 'settle' and not exists (
                select from ledger r where r.tenant_id = s.tenant_id and r.key = s.key and r.kind = 'reserve')
            """
        )
    finally:
        await owner.close()
    assert wrong == []


# At once --------------------------------------------------------------------------------------------------


async def test_concurrent_promises_are_admitted_exactly_up_to_the_limit(work: Work, owner_dsn: str) -> None:
    ctx = await work.tenant("bank", POLICY)

    async def promise(number: int, run: str | None) -> bool:
        try:
            await work.usage.reserve(ctx, f"key-{number}", 130, run_id=run)
        except BudgetExceeded:
            return False
        return True

    assert sum(await asyncio.gather(*(promise(n, "run_1") for n in range(20)))) == RUN // 130
    assert sum(await asyncio.gather(*(promise(100 + n, None) for n in range(20)))) == (MONTH - 3 * 130) // 130
    await books_balance(owner_dsn)


async def test_the_same_promise_and_the_same_payment_made_many_times_at_once_count_once(
    work: Work, owner_dsn: str
) -> None:
    ctx = await work.tenant("bank", POLICY)
    await asyncio.gather(*(work.usage.reserve(ctx, "key", 100, run_id="run_1") for _ in range(12)))
    assert (await work.usage.balance(ctx)).reserved_microusd == 100
    settled = await asyncio.gather(
        *(work.usage.settle(ctx, "key", 70) for _ in range(6)), *(work.usage.abandon(ctx, "ke") for _ in range(6))
    )
    assert sum(map(int, settled)) == 1
    assert (await work.usage.balance(ctx, "run_1")).spent_microusd in (0, 70)
    await books_balance(owner_dsn)


async def test_steps_of_one_run_that_promise_and_pay_at_the_same_time_never_block_each_other(
    work: Work, owner_dsn: str
) -> None:
    ctx = await work.tenant("bank", Policy(budget_month_microusd=10**9, budget_run_microusd=10**9))

    async def step(number: int) -> None:
        for attempt in range(6):
            key = f"run_1/{number}/{attempt}"
            await work.usage.reserve(ctx, key, 10, run_id="run_1")
            await work.usage.settle(ctx, key, 9)

    await asyncio.gather(*(step(number) for number in range(8)))
    balance = await work.usage.balance(ctx, "run_1")
    assert (balance.reserved_microusd, balance.spent_microusd) == (0, 8 * 6 * 9)
    await books_balance(owner_dsn)


# What nobody settles --------------------------------------------------------------------------------------


async def test_what_a_dead_process_promised_comes_back_unless_its_run_may_still_settle_it(
    work: Work, owner_dsn: str
) -> None:
    ctx, other = await work.tenant("bank", POLICY), await work.tenant("union", POLICY)
    executing, ended, parked = await work.submit(ctx, 3)
    claims = {claim.run_id: claim for claim in await work.claim("w", 3)}
    for number, run_id in enumerate([None, executing.run_id, ended.run_id, parked.run_id, "run_that_never_was"]):
        await work.usage.reserve(ctx, f"old-{number}", 10, run_id=run_id)
    await work.usage.reserve(other, "old", 10)
    await work.finish(claims[ended.run_id], RunState.FAILED)
    on = await work.executing(claims[parked.run_id])
    await work.execution.arm_wait(on, Wait(1, "timer", Cause.TIMER))
    await work.execution.park(on)
    work.clock.advance(HOUR_S)
    await work.usage.reserve(ctx, "young", 10)

    assert await work.usage.release_forsaken(HOUR_S + 1) == 0
    assert await work.usage.release_forsaken(HOUR_S - 1) == 4
    assert await work.usage.release_forsaken(HOUR_S - 1) == 0
    assert (await work.usage.balance(ctx)).reserved_microusd == 30  # of the two runs, and the young one
    assert (await work.usage.balance(other)).reserved_microusd == 0
    await work.finish(claims[executing.run_id])
    assert await work.usage.release_forsaken(HOUR_S - 1) == 1
    await books_balance(owner_dsn)


async def test_no_role_of_a_running_process_changes_or_deletes_an_entry(work: Work, owner_dsn: str) -> None:
    ctx = await work.tenant("bank", POLICY)
    await work.usage.reserve(ctx, "key", 10)
    owner = await asyncpg.connect(owner_dsn)
    try:
        for role in ("bailiwick_app", "bailiwick_control", "bailiwick_lock"):
            await owner.execute(f"set role {role}")
            for act in ("update ledger set amount_microusd = 0", "delete from ledger", "truncate ledger"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await owner.execute(act)
            await owner.execute("reset role")
        assert await owner.fetchval("select amount_microusd from ledger where key = 'key'") == 10
    finally:
        await owner.close()


async def test_a_negative_amount_is_refused_and_leaves_nothing(work: Work, owner_dsn: str) -> None:
    ctx = await work.tenant("bank", POLICY)
    await work.usage.reserve(ctx, "key", 10)
    with pytest.raises(ValueError, match="negative"):
        await work.usage.reserve(ctx, "gift", -5)
    with pytest.raises(ValueError, match="negative"):
        await work.usage.settle(ctx, "key", -5)
    assert (await work.usage.balance(ctx)).reserved_microusd == 10
    await books_balance(owner_dsn)

"""What one run may spend, as people set it while it is under way: who may, how far, and who goes on then."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from core.clock import FakeClock
from core.errors import Conflict, Forbidden, InvalidInput
from core.runs.children import Spawning
from core.runs.executing import Executing
from core.runs.model import Cause, RunRequest, RunState
from core.settings import Settings
from core.tenancy import Policy, Role, TenantContext
from core.usage.model import usd
from tests.fixtures.work import Work, work_in
from tests.fixtures.workers import site_in, working

ENOUGH = Policy(concurrency_cap=100, budget_run_microusd=usd("1"))
HOLDS_SOMEBODY_UP = """
select exists (select from pg_locks l where not l.granted and pg_backend_pid() = any(pg_blocking_pids(l.pid)))
"""


async def with_ten_cents(work: Work, ctx: TenantContext) -> Executing:
    """A run that executes under a budget of its own."""
    await work.submit(ctx, 1)
    (claim,) = await work.claim("w", 1)
    on = await work.executing(claim)
    await work.control.budget(ctx, on.run_id, usd("0.10"))
    return on


async def test_a_budget_is_never_less_than_what_is_used_and_no_more_than_the_policy_allows_the_family(
    settings: Settings,
) -> None:
    async with work_in(settings, FakeClock()) as work:
        ctx = await work.tenant("bank", ENOUGH)
        on = await with_ten_cents(work, ctx)
        spawned = await work.children.spawn(on, Spawning(1, "spawn: child"), [0], [RunRequest("child", {})])
        assert spawned is not None
        (claim,) = await work.claim("w", 1)
        child = await work.executing(claim)
        assert claim.budget_microusd == usd("0.10"), "what its parent has left"
        attempt = await work.execution.begin_step(child, 1, "work", "step", usd("0.04"))
        await work.execution.finish_step(child, 1, attempt, None, cost_microusd=usd("0.03"))
        await work.execution.begin_step(child, 2, "more", "step", usd("0.02"))

        for refused in ("0.049999", "1.01", "-1", "1e30"):
            with pytest.raises(InvalidInput):
                await work.control.budget(ctx, child.run_id, usd(refused))
        assert (await work.control.budget(ctx, child.run_id, usd("0.05"))).budget_microusd == usd("0.05")
        grown = await work.control.budget(ctx, child.run_id, usd("0.90"))
        parent = await work.runs.get(ctx, on.run_id)
        assert (grown.budget_microusd, parent.budget_microusd) == (usd("0.90"), usd("0.90"))
        await work.execution.begin_step(on, 2, "own", "step", usd("0.02"))
        await work.control.budget(ctx, child.run_id, usd("0.98"))
        with pytest.raises(InvalidInput, match=on.run_id):
            await work.control.budget(ctx, child.run_id, usd("0.99"))
        assert (await work.runs.get(ctx, child.run_id)).budget_microusd == usd("0.98"), (
            "what was refused changed nothing"
        )

        member = await work.context("bank", Role.MEMBER, Role.REVIEWER)
        with pytest.raises(Forbidden):
            await work.control.budget(member, child.run_id, usd("0.99"))
        await work.execution.end(child, RunState.SUCCEEDED)
        with pytest.raises(Conflict):
            await work.control.budget(ctx, child.run_id, usd("0.99"))
        told = [entry for entry in await work.audit.recent(ctx) if entry.act == "run.budget"]
        assert [(entry.before, entry.after) for entry in told[:2]] == [
            (
                {"budget_microusd": usd("0.90")},
                {"budget_microusd": usd("0.98"), "above": {on.run_id: usd("1")}},
            ),
            (
                {"budget_microusd": usd("0.05")},
                {"budget_microusd": usd("0.90"), "above": {on.run_id: usd("0.90")}},
            ),
        ]


async def test_a_child_that_asks_for_money_and_works_on_another_step_and_a_new_budget_do_not_wait_in_a_ring(
    settings: Settings, owner_dsn: str
) -> None:
    async with work_in(settings, FakeClock()) as work:
        ctx = await work.tenant("bank", ENOUGH)
        on = await with_ten_cents(work, ctx)
        await work.children.spawn(on, Spawning(1, "spawn: child"), [0], [RunRequest("child", {})])
        (claim,) = await work.claim("w", 1)
        child = await work.executing(claim)
        asked = await work.reviews.request(
            child, 1, pool="budget", title="?", evidence={}, choices=["raise", "stop"], sla_s=60, cause=Cause.BUDGET
        )
        assert asked is None

        # What a step does: first its run, then the accounts of the family.
        step = await asyncpg.connect(owner_dsn)
        async with asyncio.timeout(20), step.transaction():
            await step.execute("select from runs where run_id = $1 for update", child.run_id)
            setting = asyncio.create_task(work.control.budget(ctx, on.run_id, usd("0.20")))
            while not await step.fetchval(HOLDS_SOMEBODY_UP):  # noqa: ASYNC110 - the server sets no event
                await asyncio.sleep(0.01)
            await step.execute("select from budget_accounts where account = $1 for update", f"run:{on.run_id}")
        await step.close()
        assert (await setting).budget_microusd == usd("0.20")
        assert await work.execution.park(child) is RunState.QUEUED


async def test_a_question_about_money_stands_until_its_figures_are_not_true_any_more(settings: Settings) -> None:
    async with work_in(settings, FakeClock()) as work:
        ctx = await work.tenant("bank", ENOUGH)
        on = await with_ten_cents(work, ctx)
        asked = await work.reviews.request(
            on, 1, pool="budget", title="?", evidence={}, choices=["raise", "stop"], sla_s=60, cause=Cause.BUDGET
        )
        assert asked is None
        assert await work.execution.park(on) is RunState.WAITING
        (question,) = await work.reviews.open(ctx)

        same = await work.control.budget(ctx, on.run_id, usd("0.10"))
        assert (same.state, await work.reviews.open(ctx)) == (RunState.WAITING, [question])
        less = await work.control.budget(ctx, on.run_id, usd("0.05"))
        assert (less.state, await work.reviews.open(ctx)) == (RunState.QUEUED, [])
        told = [entry.after for entry in await work.audit.recent(ctx) if entry.act == "run.budget"]
        assert told == [{"budget_microusd": usd("0.05")}, {"budget_microusd": usd("0.10")}]


async def test_runs_that_lack_money_go_on_when_their_budget_or_that_of_their_family_covers_the_step(
    settings: Settings, tmp_path: Path
) -> None:
    async with site_in(settings, ENOUGH) as site, working(site):
        control, platform = site.platform.control, site.platform
        given = {"count": 6, "cost": usd("0.02")}
        family, _ = await platform.runs.submit(site.admin, RunRequest("family-map", given))
        lone, _ = await platform.runs.submit(
            site.admin, RunRequest("sample-replan", {"log": str(tmp_path / "effects")})
        )
        await site.runs_until([lone], lambda seen: seen.cause is Cause.BUDGET)

        async def all_but_one_ended() -> bool | None:
            born, _ = await platform.runs.list(site.admin, parent=family.run_id)
            left = [child for child in born if not child.state.final]
            return (len(born) == 6 and [child.cause for child in left] == [Cause.BUDGET]) or None

        await site.until(all_but_one_ended)

        await control.budget(site.admin, family.run_id, usd("0.12"))
        (ended,) = await site.ended([family])
        assert (ended.state, ended.cost_microusd, ended.budget_microusd) == (
            RunState.SUCCEEDED,
            usd("0.12"),
            usd("0.12"),
        )

        await control.budget(site.admin, lone.run_id, usd("0.55"))

        async def asked_anew() -> bool | None:
            asked = await platform.reviews.open(site.reviewer)
            return [review.evidence["budget"] for review in asked] == ["$0.55"] or None

        await site.until(asked_anew)
        await site.runs_until([lone], lambda seen: seen.cause is Cause.BUDGET)
        await control.budget(site.admin, lone.run_id, usd("0.60"))
        (ended,) = await site.ended([lone])
        assert (ended.state, ended.cost_microusd) == (RunState.SUCCEEDED, usd("0.58"))
        assert await platform.reviews.open(site.reviewer) == []
        assert await platform.queue.faults() == []

"""Acts on many runs: seen before, done once, whatever happens in between."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from core.clock import FakeClock
from core.errors import Forbidden, InvalidInput, NotFound
from core.runs.acts import Act
from core.runs.bulk import MAX_RUNS, Choice
from core.runs.model import RunState
from core.settings import Settings
from core.tenancy import Policy, TenantContext
from tests.fixtures.work import Work, work_in


@pytest.fixture
async def work(settings: Settings) -> AsyncIterator[Work]:
    """The rooms, on a clock that stands still."""
    async with work_in(settings, FakeClock()) as rooms:
        yield rooms


@pytest.fixture
async def ctx(work: Work) -> TenantContext:
    """Somebody who is everything in a tenant."""
    return await work.tenant("bank", Policy(concurrency_cap=100))


async def told(work: Work, ctx: TenantContext, run_id: str, bulk_id: str) -> list[str]:
    """Kinds of the run's events that name the bulk."""
    events = await work.runs.events(ctx, run_id)
    return [event.kind for event in events if event.data.get("bulk_id") == bulk_id]


async def test_a_preview_changes_nothing_and_what_changed_since_is_skipped(work: Work, ctx: TenantContext) -> None:
    (early,) = await work.submit(ctx, 1, "loan-approval")
    (claim,) = await work.claim("w", 1)
    work.clock.advance(1)
    queued = await work.submit(ctx, 4, "loan-approval", batch_id="bat_1")
    await work.submit(ctx, 2, "claim", batch_id="bat_1")
    choice = Choice(workflow="loan-approval", submitted_until=work.clock.now() + timedelta(seconds=1))
    bulk = await work.bulk.preview(ctx, Act.CANCEL, choice)
    assert (bulk.state, bulk.runs, bulk.by_state, bulk.left) == ("previewed", 5, {"queued": 4, "running": 1}, 5)
    assert {one.run_id for one in bulk.sample} == {early.run_id, *(run.run_id for run in queued)}
    assert {view.state for view in await work.runs.some(ctx, [run.run_id for run in queued])} == {RunState.QUEUED}

    await work.control.pause(ctx, queued[0].run_id)
    await work.finish(claim)
    await work.submit(ctx, 1, "loan-approval")  # came too late to be chosen
    bulk = await work.bulk.apply(ctx, bulk.bulk_id)
    assert (bulk.state, bulk.done, bulk.skipped, bulk.left) == ("done", 3, 2, 0)
    assert set(bulk.reasons) == {
        "It was queued when it was chosen and is waiting now.",
        "It was running when it was chosen and is succeeded now.",
    }
    states = Counter(view.state for view in (await work.runs.list(ctx))[0])
    assert states == {RunState.CANCELLED: 3, RunState.QUEUED: 3, RunState.WAITING: 1, RunState.SUCCEEDED: 1}
    assert await work.queue.faults() == []

    assert await work.bulk.apply(ctx, bulk.bulk_id) == bulk, "twice does nothing twice"
    assert await told(work, ctx, queued[1].run_id, bulk.bulk_id) == ["cancelled"]
    acts = [entry for entry in await work.audit.recent(ctx) if (entry.after or {}).get("bulk_id") == bulk.bulk_id]
    assert [(entry.act, entry.actor, entry.before) for entry in acts] == [
        ("run.cancel", ctx.actor, {"state": "queued"})
    ] * 3
    assert [entry.act for entry in await work.audit.recent(ctx)].count("bulk.cancel") == 1


async def test_every_act_chooses_the_runs_that_it_fits(work: Work, ctx: TenantContext) -> None:
    runs = await work.submit(ctx, 4)
    for claim in await work.claim("w", 3):
        state = RunState.SUCCEEDED if claim.run_id == runs[0].run_id else RunState.FAILED
        await work.finish(claim, state, error=None if state is RunState.SUCCEEDED else "bureau_down")
    chosen = {act: (await work.bulk.preview(ctx, act, Choice())).runs for act in Act}
    finished = await work.runs.list(ctx, state="failed")
    assert chosen == {Act.CANCEL: 1, Act.PAUSE: 1, Act.RESUME: 0, Act.RETRY: len(finished[0])}
    assert (await work.bulk.preview(ctx, Act.RETRY, Choice(error_code="other"))).runs == 0
    assert (await work.bulk.preview(ctx, Act.RETRY, Choice(user_id="usr_nobody"))).runs == 0
    retried = await work.bulk.preview(ctx, Act.RETRY, Choice(error_code="bureau_down", state=RunState.FAILED))
    assert (await work.bulk.apply(ctx, retried.bulk_id)).done == len(finished[0])
    paused = await work.bulk.preview(ctx, Act.PAUSE, Choice())
    assert (await work.bulk.apply(ctx, paused.bulk_id)).done == 1 + len(finished[0])
    resumed = await work.bulk.preview(ctx, Act.RESUME, Choice())
    assert (await work.bulk.apply(ctx, resumed.bulk_id)).done == 1 + len(finished[0])
    assert await work.queue.faults() == []


async def test_each_run_is_changed_once_by_whoever_and_however_many_apply_it(work: Work, ctx: TenantContext) -> None:
    runs = await work.submit(ctx, 24)
    bulk = await work.bulk.preview(ctx, Act.PAUSE, Choice())
    begun = await work.bulk.apply(ctx, bulk.bulk_id, for_s=0)
    assert (begun.state, begun.done) == ("applying", 1), "the process dies here"
    (left,) = await work.bulk.unfinished()
    assert (left.tenant_id, left.bulk_id, f"{left.actor_kind}:{left.actor_id}") == ("bank", bulk.bulk_id, ctx.actor)
    await asyncio.gather(*(work.bulk.apply(ctx, bulk.bulk_id) for _ in range(3)))
    assert (await work.bulk.get(ctx, bulk.bulk_id)).done == len(runs)
    assert await work.bulk.unfinished() == []
    for run in runs:
        assert await told(work, ctx, run.run_id, bulk.bulk_id) == ["waiting"]


async def test_a_bulk_is_its_tenants_has_a_limit_and_is_forgotten(
    work: Work, ctx: TenantContext, owner_dsn: str
) -> None:
    (run,) = await work.submit(ctx, 1)
    bulk = await work.bulk.preview(ctx, Act.PAUSE, Choice())
    other = await work.tenant("other")
    for look in (work.bulk.get, work.bulk.apply):
        with pytest.raises(NotFound):
            await look(other, bulk.bulk_id)
    with pytest.raises(Forbidden):
        await work.bulk.apply(await work.context("bank"), bulk.bulk_id)
    assert (await work.runs.get(ctx, run.run_id)).state is RunState.QUEUED

    await work.control.cancel(ctx, run.run_id)
    owner = await asyncpg.connect(owner_dsn)
    await owner.execute(
        "insert into runs select (jsonb_populate_record(r, jsonb_build_object('run_id', r.run_id || n))).* "
        "from runs r, generate_series(1, $1) n",
        MAX_RUNS,
    )
    await owner.close()
    with pytest.raises(InvalidInput):
        await work.bulk.preview(ctx, Act.RETRY, Choice())
    work.clock.advance(31 * 86_400)
    assert await work.bulk.forget() == 1
    with pytest.raises(NotFound):
        await work.bulk.get(ctx, bulk.bulk_id)

"""Runs that are done again from a step on: what came before it stays as it was, and is not paid twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core.clock import FakeClock
from core.errors import Conflict, Forbidden, IdempotencyConflict, InvalidInput, NotFound, QuotaExceeded
from core.ids import RunId
from core.runs.children import Spawning
from core.runs.execution import Executing, Wait
from core.runs.model import Cause, RunRequest, RunState
from core.settings import Settings
from core.tenancy import Policy, TenantContext
from tests.fixtures.work import Work, work_in
from tests.fixtures.workers import Site, site_in, working

ASK: dict[str, Any] = {"pool": "p", "title": "t", "evidence": {}, "choices": ["approve"], "sla_s": 60.0}
FAULT = {"code": "x", "message": "x"}


@pytest.fixture
async def work(settings: Settings) -> AsyncIterator[Work]:
    """The rooms, on a clock that stands still."""
    async with work_in(settings, FakeClock()) as rooms:
        yield rooms


@pytest.fixture
async def ctx(work: Work) -> TenantContext:
    """Somebody who is everything in a tenant."""
    return await work.tenant("bank", Policy(concurrency_cap=100, daily_runs=3))


@pytest.fixture
async def site(settings: Settings) -> AsyncIterator[Site]:
    """An installation with a worker."""
    async with site_in(settings) as site, working(site):
        yield site


async def claimed(work: Work) -> Executing:
    """The next run, claimed."""
    (claim,) = await work.claim("w", 1)
    return await work.executing(claim)


async def paid(work: Work, on: Executing, step: int, cost: int) -> int:
    """A step that is done and paid; the number of its attempt."""
    attempt = await work.execution.begin_step(on, step, f"step {step}", "step", cost)
    await work.execution.finish_step(on, step, attempt, {"step": step, "attempt": attempt}, cost_microusd=cost)
    return attempt


async def test_what_is_retried_from_a_step_keeps_the_steps_before_it_and_is_charged_for_the_others_only(
    work: Work, ctx: TenantContext
) -> None:
    (run,) = await work.submit(ctx, 1)
    on = await claimed(work)
    for step in (1, 2, 3):
        await paid(work, on, step, 100)
    assert await work.reviews.request(on, 4, **ASK) is None
    await work.execution.park(on)
    (review,) = await work.reviews.open(ctx)
    with pytest.raises(Conflict):
        await work.control.retry(ctx, run.run_id, from_step=2)
    await work.reviews.decide(ctx, review.review_id, "approve")
    on = await claimed(work)
    assert await work.reviews.request(on, 4, **ASK) is not None
    await work.execution.end(on, RunState.FAILED, error=FAULT)

    with pytest.raises(InvalidInput):
        await work.control.retry(ctx, run.run_id, from_step=5)
    assert (await work.runs.get(ctx, run.run_id)).state is RunState.FAILED, "what was refused changed nothing"
    await work.control.retry(ctx, run.run_id, from_step=2)
    on = await claimed(work)
    first = await work.execution.recorded(on, 1)
    assert first is not None
    assert first.result == {"step": 1, "attempt": 1}
    assert await work.execution.recorded(on, 2) is None
    assert [await paid(work, on, step, 10) for step in (2, 3)] == [2, 2]
    assert await work.execution.redone(on, 2) == 1
    assert await work.reviews.request(on, 4, **ASK) is None, "people are asked again"
    assert (await work.runs.get(ctx, run.run_id)).cost_microusd == 320
    assert [(step.step, step.attempt, step.state) for step in await work.runs.steps(ctx, run.run_id)] == [
        (1, 1, "done"),
        (2, 1, "set aside"),
        (2, 2, "done"),
        (3, 1, "set aside"),
        (3, 2, "done"),
        (4, 1, "set aside"),
        (4, 2, "started"),
    ]
    audit = [entry for entry in await work.audit.recent(ctx) if entry.act == "run.retry"]
    assert [(entry.before, entry.after) for entry in audit] == [({"state": "failed"}, {"from_step": 2})]


async def test_a_fork_counts_against_the_quota_and_belongs_to_the_tenant_of_its_run(
    work: Work, ctx: TenantContext
) -> None:
    (run,) = await work.submit(ctx, 1)
    on = await claimed(work)
    await paid(work, on, 1, 100)
    for step in (0, 3):
        with pytest.raises(InvalidInput):
            await work.control.fork(ctx, run.run_id, from_step=step)
    other = await work.tenant("other")
    with pytest.raises(NotFound):
        await work.control.fork(other, run.run_id, from_step=1)
    forks = [
        await work.control.fork(ctx, run.run_id, from_step=2, idempotency_key="once", document={"row": 9})
        for _ in range(2)
    ]
    assert [created for _, created in forks] == [True, False]
    assert (forks[0][0].forked_from, forks[0][0].input, forks[0][0].attempt) == (run.run_id, {"row": 9}, 0)
    with pytest.raises(IdempotencyConflict):
        await work.control.fork(ctx, run.run_id, from_step=1, idempotency_key="once", document={"row": 9})
    work.clock.advance(1)
    await work.control.fork(ctx, run.run_id, from_step=1)
    with pytest.raises(QuotaExceeded):
        await work.control.fork(ctx, run.run_id, from_step=1)
    fork = await claimed(work)
    recorded = await work.execution.recorded(fork, 1)
    assert recorded is not None
    view = await work.runs.get(ctx, fork.run_id)
    assert (view.cost_microusd, view.attempt) == (0, 1), "what it was given costs nothing"
    kinds = [event.kind for event in await work.runs.events(ctx, run.run_id)]
    assert kinds.count("forked") == 2


async def test_a_fork_goes_on_after_a_decision_and_with_another_input_asks_people_again(
    site: Site, tmp_path: Path
) -> None:
    log, control = str(tmp_path / "effects"), site.platform.control
    run, _ = await site.platform.runs.submit(site.admin, RunRequest("sample-review", {"log": log, "number": 7}))
    await site.runs_until([run], lambda run: run.state is RunState.WAITING)
    (review,) = await site.platform.reviews.open(site.reviewer)
    await site.platform.reviews.decide(site.reviewer, review.review_id, "decline")
    (run,) = await site.ended([run])
    with pytest.raises(InvalidInput):
        await control.fork(site.admin, run.run_id, from_step=3, document={"number": "seven"})
    fork, _ = await control.fork(site.reviewer, run.run_id, from_step=3, document=run.input)
    (fork,) = await site.ended([fork])
    assert (fork.state, fork.outcome, fork.output) == (RunState.SUCCEEDED, "decline", run.output)
    keys = Path(log).read_text().split()
    assert keys == [f"{run.run_id}/1", f"{run.run_id}/3", f"{fork.run_id}/3"], "only what came after it was done"
    other = {"log": log, "number": 8}
    with pytest.raises(InvalidInput, match="decided step 2 about another input"):
        await control.fork(site.admin, run.run_id, from_step=3, document=other)
    fork, _ = await control.fork(site.admin, run.run_id, from_step=2, document=other)
    await site.runs_until([fork], lambda fork: fork.state is RunState.WAITING)
    (asked,) = await site.platform.reviews.open(site.reviewer)
    assert asked.run_id == fork.run_id


async def test_a_step_that_is_done_again_gets_another_idempotency_key_and_one_that_failed_does_not(
    site: Site, tmp_path: Path
) -> None:
    log, control = str(tmp_path / "effects"), site.platform.control
    run, _ = await site.platform.runs.submit(site.admin, RunRequest("sample-plain", {"log": log, "fail": True}))
    for from_step in (2, 1, None):
        (run,) = await site.ended([run])
        await control.retry(site.admin, run.run_id, from_step=from_step)
        await site.runs_until([run], lambda run: run.attempt > 1 and run.state.final)
    assert Path(log).read_text().split() == [f"{run.run_id}/1", f"{run.run_id}/1/1"]


async def test_a_private_run_is_forked_by_its_submitter_only(site: Site, tmp_path: Path) -> None:
    request = RunRequest("sample-private", {"log": str(tmp_path / "effects")})
    run, _ = await site.platform.runs.submit(site.admin, request)
    await site.ended([run])
    with pytest.raises(Forbidden):
        await site.platform.control.fork(site.reviewer, run.run_id, from_step=2)
    fork, _ = await site.platform.control.fork(site.admin, run.run_id, from_step=2)
    assert (await site.ended([fork]))[0].output == (await site.platform.runs.get(site.admin, run.run_id)).output


async def test_a_fork_keeps_the_children_that_ended_well_and_spawns_the_others_as_its_own(work: Work) -> None:
    ctx = await work.tenant("family", Policy(concurrency_cap=100))
    await work.submit(ctx, 1)
    on = await claimed(work)
    single, many = Spawning(1, "spawn: child"), Spawning(2, "spawn: child", 4, 3)
    lone = await work.children.spawn(on, single, [0], [RunRequest("child", {"n": 9})])
    assert await work.children.spawn(on, many, range(3), [RunRequest("child", {"n": n}) for n in range(3)]) is None
    for claim in await work.claim("w", 3):
        if claim.input["n"] in (0, 1):
            await work.finish(claim, RunState.FAILED if claim.input["n"] else RunState.SUCCEEDED, error="no")
    fork, _ = await work.control.fork(ctx, on.run_id, from_step=3)
    await work.finish((await work.claim("w", 1))[0])  # the last child of the other run
    forked = await claimed(work)
    assert forked.run_id == fork.run_id
    assert await work.execution.recorded(forked, 1) is None, "the lone child was open: it is spawned anew"
    again = await work.children.spawn(forked, single, [0], [RunRequest("child", {"n": 9})])
    assert again != lone
    wait = Wait(3, "map: child", Cause.CHILDREN, key="2")
    look = await work.children.look(forked, many, wait)
    assert look.numbers == [1, 2, 3]
    spawned = await work.children.spawn(forked, many, [1, 2, 3], [RunRequest("child", {"n": n}) for n in (1, 2, 3)])
    assert spawned is not None
    found = {run.run_id: run for run in await work.runs.some(ctx, spawned)}
    assert [found[RunId(one)].input["n"] for one in spawned] == [0, 1, 2, 3]
    assert [found[RunId(one)].parent_run_id for one in spawned] == [on.run_id, *[fork.run_id] * 3]

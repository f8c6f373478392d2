"""Parents and children at awkward moments: ends at once, a crash before the children are cancelled, a retry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from core.clock import FakeClock
from core.ids import RunId
from core.runs.children import ChildRuns, Look, Spawning
from core.runs.execution import Executing, Lost, Paused, Wait
from core.runs.family import Family
from core.runs.model import Cause, RunRequest, RunState
from core.settings import Settings
from core.tenancy import Policy, TenantContext
from tests.fixtures.deciders import deciders_in
from tests.fixtures.work import Work, work_in

POLICY = Policy(concurrency_cap=200, queue_depth=1_000)
MAP = Wait(2, "map: child", Cause.CHILDREN, key="1")


def all_of(count: int, at_once: int | None = None) -> Spawning:
    """The step that spawns."""
    return Spawning(1, "spawn: child", count, at_once or count)


async def spawn(children: ChildRuns, on: Executing, numbers: Sequence[int], spawning: Spawning) -> list[str] | None:
    """The children of these numbers are spawned now."""
    return await children.spawn(on, spawning, numbers, [RunRequest("child", {"n": n}) for n in numbers])


@pytest.fixture
async def work(settings: Settings) -> AsyncIterator[Work]:
    """The rooms, on a clock that stands still."""
    async with work_in(settings, FakeClock()) as rooms:
        yield rooms


@pytest.fixture
async def ctx(work: Work) -> TenantContext:
    """Somebody who is everything in a tenant."""
    return await work.tenant("bank", POLICY)


@pytest.fixture
def children(work: Work) -> ChildRuns:
    """What spawns and waits."""
    return work.children


async def parent_of(work: Work, ctx: TenantContext, children: ChildRuns, count: int) -> tuple[Executing, list[str]]:
    """A parent that executes, and what it has spawned."""
    await work.submit(ctx, 1)
    (claim,) = await work.claim("w", 1)
    on = await work.executing(claim)
    spawned = await spawn(children, on, range(count), all_of(count))
    assert spawned is not None
    return on, spawned


async def parked(work: Work, on: Executing, children: ChildRuns, spawned: list[str]) -> None:
    """The parent waits for its children."""
    assert await children.ends(on, MAP, spawned) is None
    assert await work.execution.park(on) is RunState.WAITING


async def states(work: Work, ctx: TenantContext, run_ids: list[str]) -> list[RunState]:
    """Where runs stand."""
    return [run.state for run in await work.runs.some(ctx, run_ids)]


async def test_children_that_end_at_the_same_time_wake_their_parent_once_with_the_last(
    work: Work, ctx: TenantContext, children: ChildRuns
) -> None:
    on, spawned = await parent_of(work, ctx, children, 12)
    await parked(work, on, children, spawned)
    first, *others = await work.claim("w", 12)
    await asyncio.gather(*(work.finish(claim) for claim in others))
    assert await states(work, ctx, [on.run_id]) == [RunState.WAITING]
    await work.finish(first, RunState.FAILED, error="step_failed")
    assert await states(work, ctx, [on.run_id]) == [RunState.QUEUED]
    (again,) = await work.claim("w", 5)
    ends = await children.ends(await work.executing(again), MAP, spawned)
    assert ends is not None
    assert [end.run_id for end in ends] == spawned
    assert sum(end.state is RunState.FAILED for end in ends) == 1
    assert await work.queue.faults() == []


async def test_a_parent_that_has_not_parked_when_its_last_child_ends_goes_on(
    work: Work, ctx: TenantContext, children: ChildRuns
) -> None:
    on, spawned = await parent_of(work, ctx, children, 2)
    assert await children.ends(on, MAP, spawned) is None
    await asyncio.gather(*(work.finish(claim) for claim in await work.claim("w", 2)))
    assert await work.execution.park(on) is RunState.QUEUED


async def test_a_child_that_is_retried_counts_again(work: Work, ctx: TenantContext, children: ChildRuns) -> None:
    on, spawned = await parent_of(work, ctx, children, 2)
    await parked(work, on, children, spawned)
    first, second = await work.claim("w", 2)
    await work.finish(first, RunState.FAILED, error="step_failed")
    await work.control.retry(ctx, first.run_id)
    await work.finish(second)
    assert await states(work, ctx, [on.run_id]) == [RunState.WAITING]
    (again,) = await work.claim("w", 5)
    await work.finish(again)
    assert await states(work, ctx, [on.run_id]) == [RunState.QUEUED]


async def test_what_a_crash_left_of_a_cancellation_is_done_later_and_once(
    work: Work, ctx: TenantContext, children: ChildRuns
) -> None:
    on, spawned = await parent_of(work, ctx, children, 130)
    await parked(work, on, children, spawned)
    executing, *_ = await work.claim("w", 1)
    async with work.db.tenant_transaction(ctx) as tx:
        await work.queue.cancel_in(tx, on.run_id)  # and whoever did this dies
    family = Family(work.db, work.bus, work.queue, work.clock)
    assert await family.orphaned() == [ctx.tenant_id]
    assert sum(await asyncio.gather(*(family.cancel_orphans(ctx) for _ in range(3)))) >= 130
    assert await family.orphaned() == []
    assert await family.cancel_orphans(ctx) == 0
    stood = await states(work, ctx, spawned)
    assert (stood.count(RunState.CANCELLED), stood.count(RunState.RUNNING)) == (129, 1)
    events = [event.kind for event in await work.runs.events(ctx, executing.run_id)]
    assert events.count("cancel_requested") == 1
    await work.finish(executing, RunState.CANCELLED)
    assert await work.queue.faults() == []


async def test_a_retried_parent_queues_what_was_cancelled_with_it_and_a_retry_from_the_spawn_spawns_others(
    work: Work, ctx: TenantContext, children: ChildRuns
) -> None:
    on, spawned = await parent_of(work, ctx, children, 3)
    await parked(work, on, children, spawned)
    (done,) = await work.claim("w", 1)
    await work.finish(done)
    await work.control.cancel(ctx, on.run_id)
    assert sorted(await states(work, ctx, spawned)) == ["cancelled", "cancelled", "succeeded"]
    work.clock.advance(1)
    await work.control.retry(ctx, on.run_id)
    (again,) = await work.claim("w", 1)
    assert await children.ends(await work.executing(again), MAP, spawned) is None
    assert sorted(await states(work, ctx, spawned)) == ["queued", "queued", "succeeded"]

    await work.finish(again, RunState.FAILED, error="step_failed")
    await work.control.retry(ctx, on.run_id, from_step=1)
    (anew,) = await work.claim("w", 1)
    others = await spawn(children, await work.executing(anew), range(3), all_of(3))
    assert others is not None
    assert set(others).isdisjoint(spawned)
    assert await children.ends(await work.executing(anew), MAP, others) is None


async def test_a_worker_that_lost_its_run_spawns_nothing(work: Work, ctx: TenantContext, children: ChildRuns) -> None:
    await work.submit(ctx, 1)
    (claim,) = await work.claim("w", 1)
    on = await work.executing(claim)
    assert await work.execution.hand_back(on)
    with pytest.raises(Lost):
        await spawn(children, on, [0], all_of(1))
    found, _ = await work.runs.list(ctx, parent=RunId(claim.run_id))
    assert list(found) == []


async def test_children_that_end_together_wake_a_window_once_and_are_replaced_one_for_one(
    work: Work, ctx: TenantContext, children: ChildRuns
) -> None:
    await work.submit(ctx, 1)
    (claim,) = await work.claim("w", 1)
    window, on = all_of(10, at_once=4), await work.executing(claim)
    assert await spawn(children, on, range(4), window) is None
    assert await children.look(on, window, MAP) == Look()
    assert await work.execution.park(on) is RunState.WAITING
    first, second, third, _ = await work.claim("w", 4)
    for ended in (first, second, third):
        await work.finish(ended)
    kinds = [event.kind for event in await work.runs.events(ctx, on.run_id)]
    assert (kinds.count("woken"), await states(work, ctx, [on.run_id])) == (1, [RunState.QUEUED])

    (again,) = await work.claim("w", 1)
    assert again.run_id == on.run_id
    on = await work.executing(again)
    look = await children.look(on, window, MAP)
    assert look.numbers == [4, 5, 6]
    assert await spawn(children, on, look.numbers, window) is None
    assert await spawn(children, on, look.numbers, window) is None, "what was written is not written twice"
    born, _ = await work.runs.list(ctx, parent=on.run_id)
    assert sorted(run.input["n"] for run in born) == list(range(7))
    assert await children.look(on, window, MAP) == Look()
    assert await work.execution.park(on) is RunState.WAITING
    assert await work.queue.faults() == []


async def test_a_window_goes_on_where_it_was_after_a_takeover_a_pause_and_a_failure(
    work: Work, ctx: TenantContext, children: ChildRuns
) -> None:
    await work.submit(ctx, 1)
    (claim,) = await work.claim("w", 1)
    window, on = all_of(4, at_once=2), await work.executing(claim)
    assert await spawn(children, on, range(2), window) is None
    assert await work.execution.hand_back(on)
    (claim,) = await work.claim("w", 1)
    on = await work.executing(claim)
    assert await children.look(on, window, MAP) == Look()
    for child in await work.claim("w", 2):
        await work.finish(child, RunState.FAILED if child.input["n"] else RunState.SUCCEEDED, error="no")
    look = await children.look(on, window, MAP)
    assert (look.numbers, [end.state for end in look.ends]) == (None, [RunState.SUCCEEDED, RunState.FAILED])
    await work.execution.end(on, RunState.FAILED, error={"code": "child_failed", "message": "x"})

    work.clock.advance(1)
    await work.control.retry(ctx, on.run_id)
    (claim,) = await work.claim("w", 1)
    on = await work.executing(claim)
    assert (await children.look(on, window, MAP)).numbers == [2], "the one that failed is open again"
    await work.control.pause(ctx, on.run_id)
    with pytest.raises(Paused):
        await spawn(children, on, [2], window)
    await work.control.resume(ctx, on.run_id)
    assert await spawn(children, on, [2], window) is None
    for child in await work.claim("w", 2):
        await work.finish(child)
    assert (await children.look(on, window, MAP)).numbers == [3]
    spawned = await spawn(children, on, [3], window)
    assert spawned is not None
    found = {str(run.run_id): run.input["n"] for run in await work.runs.some(ctx, spawned)}
    assert [found[run_id] for run_id in spawned] == [0, 1, 2, 3]
    assert await children.ends(on, MAP, spawned) is None
    for child in await work.claim("w", 1):
        await work.finish(child)
    ends = await children.ends(on, MAP, spawned)
    assert ends is not None
    assert [end.run_id for end in ends] == spawned

    await work.execution.end(on, RunState.FAILED, error={"code": "x", "message": "x"})
    await work.control.retry(ctx, on.run_id, from_step=1)
    (claim,) = await work.claim("w", 1)
    on = await work.executing(claim)
    assert (await children.look(on, window, MAP)).numbers == [0, 1], "from the spawn on, others are spawned"
    assert await work.queue.faults() == []


@pytest.mark.usefixtures("ctx")
async def test_whoever_submitted_a_run_by_key_decides_about_none_of_its_descendants(
    work: Work, children: ChildRuns
) -> None:
    deciders = await deciders_in(work)
    parent, spawned = await parent_of(work, deciders.key, children, 1)
    await parked(work, parent, children, spawned)
    (claim,) = await work.claim("w", 1)
    child = await work.executing(claim)
    grandchildren = await spawn(children, child, range(1), all_of(1))
    (claim,) = await work.claim("w", 1)
    assert [claim.run_id] == grandchildren
    for on in (child, await work.executing(claim)):
        await deciders.only_ravi_decides(on, 7)

"""Child runs on a real worker: a wide fan-out, one that fails, cancellation that goes down, the money of a family."""

from __future__ import annotations

import time
from typing import Any

import pytest

from core.errors import ChildFailed
from core.runs.model import Cause, RunRequest, RunState, RunView
from core.settings import Settings
from core.tenancy import Policy
from core.usage.model import usd
from core.workflows import telling
from tests.fixtures.workers import Site, site_in, working

WIDE = Policy(concurrency_cap=100, daily_runs=100_000, queue_depth=10_000, review_sla_s=3_600)


async def submit(site: Site, workflow: str, **given: Any) -> RunView:
    """A run that enters the queue now."""
    return (await site.platform.runs.submit(site.admin, RunRequest(workflow, given)))[0]


async def children(site: Site, run: RunView) -> list[RunView]:
    """What a run spawned."""
    found, _ = await site.platform.runs.list(site.admin, parent=run.run_id, limit=1_000)
    return list(found)


async def open_runs(site: Site) -> list[RunView]:
    """Runs of the tenant that have not ended."""
    found, _ = await site.platform.runs.list(site.admin, limit=1_000)
    return [run for run in found if not run.state.final]


async def test_a_thousand_children_end_in_order_and_wake_their_parent_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "_LAST_WORDS_S", 60.0)  # how far the parent has come is told, however busy the machine
    async with site_in(settings, WIDE) as site, working(site):
        began = time.monotonic()
        run = await submit(site, "family-map", count=1_000)
        (parked,) = await site.runs_until([run], lambda seen: seen.state is RunState.WAITING)
        assert parked.cause is Cause.CHILDREN
        (ended,) = await site.ended([run])
        took_s = time.monotonic() - began
        assert ended.output == [number * number for number in range(1_000)]
        assert ended.attempt == 2  # it executed to spawn, and once more when all had ended
        assert ended.progress == {"done": 1_000, "total": 1_000, "note": ""}
        born = await children(site, run)
        assert {(child.source, child.parent_run_id, child.user_id) for child in born} == {
            ("run", run.run_id, ended.user_id)
        }
        assert await site.platform.queue.faults() == []
        print(f"\n1,000 children: {took_s:.1f} s, {1_001 / took_s:.0f} runs/s")


async def test_what_becomes_of_families(settings: Settings, owner_dsn: str) -> None:
    async with site_in(settings, WIDE) as site, working(site):
        failing = await submit(site, "family-map", count=5, odd=3, at_once=1)
        endless = await submit(site, "family-endless")
        costly = await submit(site, "family-map", count=6, cost=usd("0.02"))
        asked = await submit(site, "family-grand", count=3)

        # One child that fails.
        (failed,) = await site.ended([failing])
        assert failed.error is not None
        assert (failed.state, failed.error["code"]) == (RunState.FAILED, ChildFailed.code)
        assert failed.error["details"]["state"] == "failed"
        assert failed.error["details"]["error"]["details"]["step"] == "failing"
        assert len(await children(site, failing)) == 4  # one at a time: the last was never spawned

        # A fork of it, with an input that mends it: what went well is kept, the rest is spawned by the fork.
        mended, _ = await site.platform.control.fork(
            site.admin, failing.run_id, from_step=2, document={"count": 5, "at_once": 1}
        )
        (forked,) = await site.ended([mended])
        assert forked.output == [number * number for number in range(5)]
        assert sorted(child.input["number"] for child in await children(site, mended)) == [3, 4]

        # A family that is too deep.
        (too_deep,) = await site.ended([endless])
        assert too_deep.error is not None
        assert "5 runs above it" in too_deep.error["message"]

        # The parent's budget is the ceiling of all.
        async def all_but_one_ended() -> RunView | None:
            born = await children(site, costly)
            left = [child for child in born if not child.state.final]
            return left[0] if len(born) == 6 and [child.cause for child in left] == [Cause.BUDGET] else None

        short = await site.until(all_but_one_ended)
        (parked,) = await site.runs_until([costly], lambda seen: seen.state is RunState.WAITING)
        assert (parked.cause, parked.budget_microusd) == (Cause.CHILDREN, usd("0.10"))
        assert parked.cost_microusd == usd("0.10")
        (review,) = [one for one in await site.platform.reviews.open(site.reviewer) if one.run_id == short.run_id]
        await site.platform.reviews.decide(site.reviewer, review.review_id, "raise")
        (paid,) = await site.ended([costly])
        assert (paid.state, paid.cost_microusd) == (RunState.SUCCEEDED, usd("0.12"))

        # A parent that is cancelled takes everything below it along, and a retry begins that anew.
        await site.runs_until([asked], lambda seen: seen.cause is Cause.CHILDREN)
        (child,) = await children(site, asked)
        await site.runs_until([child], lambda seen: seen.cause is Cause.CHILDREN)
        grandchildren = await children(site, child)
        await site.runs_until(grandchildren, lambda seen: seen.cause is Cause.REVIEW)
        await site.platform.control.cancel(site.admin, asked.run_id)
        assert await open_runs(site) == []
        assert await site.platform.reviews.open(site.reviewer) == []
        await site.platform.control.retry(site.admin, asked.run_id)
        await site.runs_until(grandchildren, lambda seen: seen.cause is Cause.REVIEW)
        for review in await site.platform.reviews.open(site.reviewer):
            await site.platform.reviews.decide(site.reviewer, review.review_id, "approve")
        (again,) = await site.ended([asked])
        assert (again.state, again.output) == (RunState.SUCCEEDED, ["approve"] * 3)
        assert len(await children(site, child)) == 3
        assert await site.platform.queue.faults() == []

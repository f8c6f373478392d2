"""What operations look at: the aggregates of 0009 over real tenants, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from core.clock import FakeClock
from core.db.pool import Row
from core.db.queries import Query
from core.runs import history
from core.runs.execution import Wait
from core.runs.model import Cause, RunState
from core.settings import Settings
from core.tenancy import Policy, TenantContext
from ops_dashboard import data
from ops_dashboard.data import SQL, RunFilter
from ops_dashboard.measures import fairness
from tests.fixtures.work import Work, work_in

MINUTES = 60


@pytest.fixture
async def work(settings: Settings) -> AsyncIterator[Work]:
    async with work_in(settings, FakeClock()) as opened:
        yield opened


async def test_worker_seconds_are_counted_exactly_in_the_buckets_in_which_they_were_used(work: Work) -> None:
    bank = await work.tenant("regional-bank", Policy(weight=5, concurrency_cap=50))
    start = work.clock.now()
    await work.submit(bank, 2)
    work.clock.advance(30)
    first, second = await work.claim("w1", 2)
    work.clock.advance(60)
    await work.finish(first)
    work.clock.advance(90)  # the second still executes: 150 s in its slot

    now = work.clock.now()
    operator = await work.operator()
    seen = await data.window(work.db, operator, now, seconds=180, bucket_s=60)

    row = seen.service.iloc[0]
    assert (row.tenant_id, row.worker_s, row.backlog_s, row.starts) == ("regional-bank", 210.0, 30.0, 2)
    assert (row.wait_p50_s, row.wait_p99_s) == (30.0, 30.0)
    buckets = {
        round((bucket.bucket - start).total_seconds()): bucket.worker_s
        for bucket in seen.service_over_time.itertuples()
    }
    assert buckets == {0: 60.0, 60: 90.0, 120: 60.0}
    depth = {round((d.bucket - start).total_seconds()): d.queued for d in seen.depth_over_time.itertuples()}
    assert depth == {0: 2, 60: 0, 120: 0, 180: 0}
    # A bucket that is still filling up is left out of the plots.
    work.clock.advance(59)
    later = await data.window(work.db, operator, work.clock.now(), seconds=180, bucket_s=60)
    assert later.until == seen.until
    assert later.service_over_time.equals(seen.service_over_time)
    # A window that begins in the middle of a slot counts only what lies inside.
    (clipped,) = (await data.window(work.db, operator, now, seconds=45, bucket_s=60)).service.itertuples()
    assert clipped.worker_s == 45.0
    assert second.attempt == 1


async def test_the_sla_counts_runs_that_are_overdue_and_not_ended_as_late(work: Work) -> None:
    shop = await work.tenant("fintech-startup", Policy(run_sla_s=10 * MINUTES))
    await work.submit(shop, 3)
    done, failed = await work.claim("w1", 2)
    work.clock.advance(5 * MINUTES)
    await work.finish(done)
    await work.finish(failed, RunState.FAILED, error="step_failed")
    work.clock.advance(10 * MINUTES)  # the third is 15 minutes old and still queued

    window = await data.window(work.db, await work.operator(), work.clock.now(), seconds=3600, bucket_s=60)
    (row,) = window.endings.itertuples()
    assert (row.succeeded, row.failed, row.in_time, row.late) == (1, 1, 2, 1)
    assert (row.duration_p50_s, row.duration_p99_s) == (300.0, 300.0)
    assert [tuple(f) for f in window.failures.itertuples(index=False)] == [
        ("fintech-startup", "loan-approval", "step_failed", 1)
    ]


async def test_the_pulse_names_why_nothing_moves_and_how_long_the_oldest_run_is_queued(work: Work) -> None:
    union = await work.tenant("credit-union", Policy(concurrency_cap=1, daily_runs=20, timezone="Europe/Berlin"))
    submitted = work.clock.now()
    await work.submit(union, 3)
    (claim,) = await work.claim("w1", 5)  # its cap lets one through
    on = await work.executing(claim)
    await work.usage.reserve(on.ctx, "chat/1", 2_500)
    work.clock.advance(20)

    pulse = await data.pulse(work.db, await work.operator(), work.clock.now())
    (tenant,) = pulse.tenants
    assert (tenant.name, tenant.tier, tenant.queue_depth) == ("Credit Union", "free", Policy().queue_depth)
    assert (tenant.queued, tenant.running, tenant.queued_by_cause) == (2, 1, {Cause.CAP: 2})
    assert tenant.oldest_queued_at == submitted
    assert (tenant.runs_today, tenant.daily_runs) == (3, 20)
    assert (tenant.month_reserved_microusd, tenant.month_limit_microusd) == (2_500, Policy().budget_month_microusd)
    assert [(worker.worker_id, worker.held, worker.state) for worker in pulse.workers] == [("w1", 1, "silent")]

    rate = Wait(2, "credit-bureau", Cause.RATE, key="credit-bureau", wake_at=submitted + timedelta(hours=1))
    await work.execution.arm_wait(on, rate)
    await work.execution.park(on)
    pulse = await data.pulse(work.db, union, work.clock.now())
    (tenant,) = pulse.tenants
    assert tenant.waiting == {"rate": 1}
    assert pulse.workers == ()  # workers are the operators' business


async def test_a_parked_run_shows_when_it_queued_executed_and_waited(work: Work) -> None:
    bank = await work.tenant("regional-bank")
    (run,) = await work.submit(bank, 1)
    start = work.clock.now()
    work.clock.advance(5)
    (claim,) = await work.claim("w1", 1)
    on = await work.executing(claim)
    attempt = await work.execution.begin_step(on, 1, "verify_identity", "step")
    work.clock.advance(2)
    await work.execution.finish_step(on, 1, attempt, {"secret": "result"}, model="offline-small")
    timer = Wait(2, "sleep", Cause.TIMER, wake_at=work.clock.now() + timedelta(minutes=1))
    await work.execution.arm_wait(on, timer)
    await work.execution.park(on)
    work.clock.advance(61)
    await work.queue.wake_due()
    work.clock.advance(3)

    for ctx in (bank, await work.operator()):
        detail = await data.run_detail(work.db, work.queue, ctx, run.run_id, work.clock.now())
        assert detail is not None
        seconds = [
            [None if moment is None else (moment - start).total_seconds() for moment in passage]
            for passage in detail.passages[["queued_at", "claimed_at", "released_at"]]
            .astype(object)
            .where(detail.passages.notna(), None)
            .itertuples(index=False)
        ]
        assert seconds == [[0, 5, 7], [68, None, None]]
        assert [(s.name, s.state, s.model) for s in detail.steps.itertuples()] == [
            ("verify_identity", "done", "offline-small")
        ]
        causes = [t.cause for t in detail.transitions.itertuples() if t.kind == "waiting"]
        assert causes == ["timer"]
        assert "secret" not in repr(detail)


async def test_fairness_compares_those_who_kept_a_backlog_apart_from_those_who_wanted_little(work: Work) -> None:
    contexts = [
        await work.tenant("regional-bank", Policy(weight=4, concurrency_cap=4)),
        await work.tenant("credit-union", Policy(weight=2, concurrency_cap=2)),
        await work.tenant("fintech-startup", Policy(weight=1, concurrency_cap=3)),
    ]
    for ctx, runs in zip(contexts, (20, 20, 1), strict=True):
        await work.submit(ctx, runs)
    claims = await work.claim("w1", 100)
    assert len(claims) == 7
    work.clock.advance(10)
    quiet = next(claim for claim in claims if claim.tenant_id == "fintech-startup")
    await work.finish(quiet)
    work.clock.advance(50)

    operator = await work.operator()
    pulse = await data.pulse(work.db, operator, work.clock.now())
    services = await data.services(work.db, operator, pulse.tenants, work.clock.now(), 60)
    found = fairness(services)
    assert (found.tenants, found.contenders) == (3, 2)
    assert found.contending == pytest.approx(1.0)
    assert found.overall == pytest.approx((60 + 60 + 10) ** 2 / (3 * (60**2 + 60**2 + 10**2)))


async def test_beyond_the_largest_tenants_a_plot_has_one_row_a_bucket_for_all_others(work: Work) -> None:
    for number in range(5):
        await work.submit(await work.tenant(f"tenant-{number}", Policy(concurrency_cap=1)), number + 1)
    work.clock.advance(60)
    await work.claim("w1", 5)
    now = work.clock.advance(60)
    operator = await work.operator()
    async with work.db.tenant_transaction(operator) as tx:
        depths = await tx.fetch(SQL["op_depth_over_time"], now - timedelta(seconds=120), now, 60, 2)
        service = await tx.fetch(SQL["op_service_over_time"], now - timedelta(seconds=120), now, 60, 2)
    found = {(row["tenant_id"], row["bucket"]): row["queued"] for row in depths}
    ends = [now - timedelta(seconds=seconds) for seconds in (120, 60, 0)]
    assert [found["tenant-4", end] for end in ends] == [5, 4, 4]
    assert [found["tenant-3", end] for end in ends] == [4, 3, 3]
    assert [found[None, end] for end in ends] == [1 + 2 + 3, 0 + 1 + 2, 0 + 1 + 2]
    assert len(found) == 9
    assert {row["tenant_id"] for row in service} == {"tenant-0", "tenant-1", None}
    assert sum(row["worker_s"] for row in service) == 5 * 60
    window = await data.window(work.db, operator, now, seconds=120, bucket_s=60)
    assert set(window.depth_over_time["tenant_id"]) == {f"tenant-{number}" for number in range(5)}
    assert {row.tenant_id for row in window.waits_over_time.itertuples()} == {f"tenant-{n}" for n in range(5)}
    assert {(row.bucket, row.wait_p95_s) for row in window.waits_over_time.itertuples()} == {
        (now - timedelta(seconds=60), 60.0)
    }
    causes = window.wait_causes.set_index("tenant_id")
    assert list(causes.loc["tenant-4", ["starts", "share_s", "capped_s", "no_worker_s"]]) == [1, 0, 0, 60]


async def test_a_tenants_user_sees_only_their_own_numbers_and_operators_functions_answer_nobody_else(
    work: Work,
) -> None:
    bank = await work.tenant("regional-bank")
    union = await work.tenant("credit-union")
    await work.submit(bank, 2)
    (foreign,) = await work.submit(union, 1)
    now = work.clock.now()

    async def ask(ctx: TenantContext, query: Query, *args: object) -> list[Row]:
        async with work.db.tenant_transaction(ctx) as tx:
            return await tx.fetch(query, *args)

    assert {row["tenant_id"] for row in await ask(bank, SQL["pulse"], now)} == {"regional-bank"}
    assert {row["tenant_id"] for row in await data.runs(work.db, bank, RunFilter())} == {"regional-bank"}
    assert await data.run_detail(work.db, work.queue, bank, foreign.run_id, now) is None
    since = now - timedelta(hours=1)
    arguments: dict[str, tuple[object, ...]] = {
        "op_pulse": (now,),
        "op_service": (since, now),
        "op_endings": (since, now),
        "op_failures": (since, now),
        "op_service_over_time": (since, now, 60, 8),
        "op_depth_over_time": (since, now, 60, 8),
        "op_run_rows": (None, None, None, None, None, None, None, None, None, 10),
        "op_wait_causes": (since, now),
        "op_wait_over_time": (since, now, 60, 8),
        "op_platform": (),
        "op_workers": (),
        "op_audit": (),
    }
    of_one_run: dict[str, tuple[object, ...]] = {
        "op_run_rows": (None, None, None, foreign.run_id, 10),
        "op_step_rows": (foreign.run_id,),
        "op_passage_rows": (foreign.run_id, now),
        "op_transition_rows": (foreign.run_id,),
        "op_relative_rows": (foreign.run_id,),
    }
    for queries, given in ((SQL, arguments), (history.SQL, of_one_run)):
        assert set(given) == {name for name in queries if name.startswith("op_")}
        for name, args in given.items():
            assert await ask(bank, queries[name], *args) == [], name
    operator = await work.operator()
    assert {row["tenant_id"] for row in await data.runs(work.db, operator, RunFilter())} == {
        "regional-bank",
        "credit-union",
    }


async def test_uses_of_slots_are_forgotten_a_week_after_and_never_of_a_run_that_is_still_parked(work: Work) -> None:
    bank = await work.tenant("regional-bank", Policy(concurrency_cap=10))
    await work.submit(bank, 4)
    parked, *ended = await work.claim("w1", 3)
    on = await work.executing(parked)
    await work.execution.arm_wait(on, Wait(1, "approval", Cause.REVIEW))
    await work.execution.park(on)
    for claim in ended:
        await work.finish(claim)
    work.clock.advance(7 * 86_400)
    (late,) = await work.claim("w1", 1)
    await work.finish(late)
    assert await work.queue.forget_uses() == 0
    work.clock.advance(60)
    assert await work.queue.forget_uses() == 2
    detail = await data.run_detail(work.db, work.queue, await work.operator(), late.run_id, work.clock.now())
    assert detail is not None
    assert len(detail.passages) == 1
    detail = await data.run_detail(work.db, work.queue, await work.operator(), parked.run_id, work.clock.now())
    assert detail is not None
    assert len(detail.passages) == 1


async def test_pages_of_runs_follow_each_other_without_gap_or_repetition_across_tenants(work: Work) -> None:
    bank, union = await work.tenant("regional-bank"), await work.tenant("credit-union")
    for ctx in (bank, union, bank, union, bank):
        await work.submit(ctx, 2, batch_id=f"batch-{ctx.tenant_id}")
        work.clock.advance(1)
    operator = await work.operator()
    seen: list[str] = []
    before = None
    while page := await data.runs(work.db, operator, RunFilter(), before=before, limit=3):
        seen += [row["run_id"] for row in page]
        before = (page[-1]["submitted_at"], page[-1]["run_id"])
    assert len(seen) == len(set(seen)) == 10
    assert seen == sorted(seen, reverse=True)
    batch = await data.runs(work.db, operator, RunFilter(search="batch-credit-union"))
    assert len(batch) == 4
    assert await data.runs(work.db, operator, RunFilter(tenant_id="regional-bank", state="running")) == []
    assert len(await data.runs(work.db, bank, RunFilter(user_id="usr_somebody_else"))) == 0

"""Runs from submission to their end, on a real worker, real Postgres and real Redis."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.errors import (
    BudgetExceeded,
    Conflict,
    Forbidden,
    IdempotencyConflict,
    InvalidInput,
    QuotaExceeded,
    TooManyRuns,
)
from core.runs.model import Cause, RunRequest, RunState
from core.settings import Settings
from core.tenancy import Policy, RateLimit
from core.usage.model import usd
from tests.fixtures.workers import Site, site_in, working

POLICY = Policy(
    concurrency_cap=8, daily_runs=500, queue_depth=400, rate_limits={"bureau": RateLimit(limit=2, window_s=3600)}
)


@pytest.fixture
async def site(settings: Settings) -> AsyncIterator[Site]:
    """An installation without a worker."""
    async with site_in(settings, POLICY) as site:
        yield site


@pytest.fixture
async def worker(site: Site) -> AsyncIterator[None]:
    """A worker."""
    async with working(site):
        yield


@pytest.fixture
def log(tmp_path: Path) -> str:
    """Where effects are counted."""
    return str(tmp_path / "effects")


def request(workflow: str, log: str, **more: object) -> RunRequest:
    """A run of a sample workflow."""
    return RunRequest(workflow, {"log": log, **more})


@pytest.mark.usefixtures("worker")
async def test_a_batch_runs_to_its_end_and_every_step_once(site: Site, log: str) -> None:
    requests = [request("sample-plain", log, number=n) for n in range(60)]
    runs = await site.ended(await site.platform.runs.submit_many(site.admin, requests))
    assert Counter(run.state for run in runs) == {RunState.SUCCEEDED: 60}
    assert {run.outcome for run in runs} == {"done"}
    assert set(Counter(Path(log).read_text().split()).values()) == {1}
    steps = await site.platform.runs.steps(site.admin, runs[0].run_id)
    assert [(step.step, step.attempt, step.name, step.state) for step in steps] == [
        (1, 1, "effect", "done"),
        (2, 1, "second effect", "done"),
    ]
    events = await site.platform.runs.events(site.admin, runs[0].run_id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    step = ["step_started", "step_done"]
    assert [event.kind for event in events] == ["submitted", "claimed", *step, *step, "succeeded"]


@pytest.mark.usefixtures("worker")
async def test_a_review_parks_the_run_and_the_first_decision_resumes_it(site: Site, log: str) -> None:
    reviews = site.platform.reviews
    run, _ = await site.platform.runs.submit(site.admin, request("sample-review", log, number=7))
    await site.runs_until([run], lambda run: run.state is RunState.WAITING)
    (review,) = await reviews.open(site.reviewer)
    assert (review.title, review.evidence) == ("Work 7", {"number": 7})
    with pytest.raises(InvalidInput):
        await reviews.decide(site.reviewer, review.review_id, "perhaps")
    with pytest.raises(Forbidden):
        await reviews.decide(site.admin, review.review_id, "approve")  # submitted it
    await reviews.decide(site.reviewer, review.review_id, "decline", "too thin")
    with pytest.raises(Conflict) as again:
        await reviews.decide(site.reviewer, review.review_id, "approve")
    assert again.value.details["verdict"] == "decline"
    (ended,) = await site.ended([run])
    assert (ended.state, ended.outcome) == (RunState.SUCCEEDED, "decline")
    assert len(Path(log).read_text().split()) == 2  # the step before the review was not repeated


@pytest.mark.usefixtures("worker")
async def test_timers_and_events_are_waited_for_without_a_slot(site: Site, log: str) -> None:
    run, _ = await site.platform.runs.submit(site.admin, request("sample-waits", log, number=3, sleep_s=0.05))
    await site.runs_until([run], lambda run: run.cause is Cause.TIMER)

    async def woken() -> bool | None:
        return bool(await site.platform.queue.wake_due()) or None

    await site.until(woken)
    await site.runs_until([run], lambda run: run.cause is Cause.EVENT)
    assert await site.platform.runs.send_event(site.admin, "go", "3", {"x": 5})
    (ended,) = await site.ended([run])
    assert ended.output["payload"] == {"x": 5}


@pytest.mark.usefixtures("worker")
async def test_a_transient_fault_is_retried_and_a_refusal_is_not(site: Site, log: str) -> None:
    flaky, _ = await site.platform.runs.submit(site.admin, request("sample-flaky", log))
    refused, _ = await site.platform.runs.submit(site.admin, request("sample-plain", log, fail=True))
    flaky, refused = await site.ended([flaky, refused])
    assert flaky.output["first"] == "3"
    assert refused.state is RunState.FAILED
    assert refused.error is not None
    assert "work 0 is refused" in refused.error["message"]
    again = await site.platform.control.retry(site.admin, refused.run_id)
    (again,) = await site.ended([again])
    assert again.state is RunState.FAILED
    assert len(Path(log).read_text().split()) == 1  # the step that had finished was not repeated


@pytest.mark.usefixtures("worker")
async def test_calls_beyond_the_rate_limit_wait_and_others_go_on(site: Site, log: str) -> None:
    runs = await site.platform.runs.submit_many(site.admin, [request("sample-call", log, number=n) for n in range(5)])
    runs = await site.runs_until(runs, lambda run: run.state.final or run.state is RunState.WAITING)
    assert Counter(run.cause for run in runs) == {None: 2, Cause.RATE: 3}
    assert (await site.ended([(await site.platform.runs.submit(site.admin, request("sample-plain", log)))[0]]))[
        0
    ].state is RunState.SUCCEEDED


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("verdict", ["raise", "stop"])
async def test_a_run_parks_before_the_step_it_cannot_afford_and_people_choose(
    site: Site, log: str, verdict: str
) -> None:
    run, _ = await site.platform.runs.submit(site.admin, request("sample-paid", log))
    (run,) = await site.runs_until([run], lambda run: run.state is RunState.WAITING)
    assert (run.cause, run.cost_microusd) == (Cause.BUDGET, usd("0.08"))
    balance = await site.platform.usage.balance(site.admin, run.run_id)
    assert (balance.spent_microusd, balance.reserved_microusd) == (usd("0.08"), 0)
    assert len(Path(log).read_text().split()) == 2
    (review,) = await site.platform.reviews.open(site.reviewer)
    assert review.evidence == {"step": "effect", "needed": "$0.12", "spent": "$0.08", "budget": "$0.10"}
    await site.platform.reviews.decide(site.reviewer, review.review_id, verdict)
    (ended,) = await site.ended([run])
    if verdict == "raise":
        assert (ended.state, ended.cost_microusd) == (RunState.SUCCEEDED, usd("0.20"))
    else:
        assert (ended.state, ended.cost_microusd) == (RunState.FAILED, usd("0.08"))
        assert ended.error is not None
        assert ended.error["details"]["cause"] == "budget_exceeded"


@pytest.mark.usefixtures("worker")
async def test_cancelling_a_running_run_stops_its_step(site: Site, log: str, tmp_path: Path) -> None:
    held = tmp_path / "held"
    held.touch()
    run, _ = await site.platform.runs.submit(site.admin, request("sample-plain", log, hold=str(held)))

    async def holding() -> bool | None:
        return (Path(log).exists() and "holding" in Path(log).read_text()) or None

    await site.until(holding)
    await site.platform.control.cancel(site.admin, run.run_id)
    (ended,) = await site.ended([run])
    assert ended.state is RunState.CANCELLED
    with pytest.raises(Conflict):
        await site.platform.control.cancel(site.admin, run.run_id)


@pytest.mark.usefixtures("worker")
async def test_a_run_that_is_cancelled_between_two_attempts_does_not_wait_for_the_next(site: Site, log: str) -> None:
    run, _ = await site.platform.runs.submit(site.admin, request("sample-patient", log))

    async def failed() -> bool | None:
        return any(step.state == "failed" for step in await site.platform.runs.steps(site.admin, run.run_id)) or None

    await site.until(failed)
    await site.platform.control.cancel(site.admin, run.run_id)
    (ended,) = await site.ended([run])
    assert (ended.state, Path(log).read_text().split()) == (RunState.CANCELLED, [f"{run.run_id}/1"])


@pytest.mark.usefixtures("worker")
async def test_what_a_private_workflow_is_given_and_returns_is_its_submitters_only(site: Site, log: str) -> None:
    runs = site.platform.runs
    run, _ = await runs.submit(site.admin, request("sample-private", log))
    (mine,) = await site.ended([run])
    assert mine.input["log"] == log
    assert mine.output is not None
    theirs = await runs.get(site.reviewer, run.run_id)
    listed, _ = await runs.list(site.reviewer, workflow="sample-private")
    assert [(view.input, view.output, view.state) for view in (theirs, *listed)] == [({}, None, RunState.SUCCEEDED)] * 2
    broken, _ = await runs.submit(site.admin, RunRequest("sample-private", {"log": log, "fail": True}))
    await site.ended([broken])
    errors = [[step.error for step in await runs.steps(who, broken.run_id)] for who in (site.admin, site.reviewer)]
    assert all(errors[0])
    assert errors[1] == [None] * len(errors[0])


async def test_the_same_idempotency_key_is_one_run(site: Site, log: str) -> None:
    runs = site.platform.runs
    first, new = await runs.submit(site.admin, RunRequest("sample-plain", {"log": log}, idempotency_key="k"))
    again, replayed = await runs.submit(site.admin, RunRequest("sample-plain", {"log": log}, idempotency_key="k"))
    assert (again.run_id, new, replayed) == (first.run_id, True, False)
    with pytest.raises(IdempotencyConflict):
        await runs.submit(site.admin, RunRequest("sample-plain", {"log": "other"}, idempotency_key="k"))


async def test_quotas_and_bad_input_refuse_before_anything_is_written(site: Site, log: str) -> None:
    runs = site.platform.runs
    with pytest.raises(InvalidInput) as wrong:
        await runs.submit(site.admin, RunRequest("sample-plain", {"log": 5}))
    assert wrong.value.details["errors"][0]["pointer"] == "/input/log"
    with pytest.raises(QuotaExceeded) as full:
        await runs.submit_many(site.admin, [request("sample-plain", log) for _ in range(401)])
    assert full.value.details["quota"] == "queue_depth"
    with pytest.raises(QuotaExceeded) as daily:
        await runs.submit_many(site.admin, [request("sample-plain", log) for _ in range(501)])
    assert daily.value.details["quota"] == "daily_runs"
    for refused in (full.value, daily.value):  # so many never fit, however long one waits
        assert isinstance(refused, TooManyRuns)
        assert refused.retry_after_s is None
    assert (await runs.list(site.admin))[0] == []
    refusals = [entry.act for entry in await site.platform.audit.recent(site.admin)]
    assert refusals.count("refusal") == 2


async def test_an_exhausted_month_refuses_new_runs(site: Site, log: str) -> None:
    month = site.admin.policy.budget_month_microusd
    await site.platform.usage.reserve(site.admin, "everything", month)
    await site.platform.usage.settle(site.admin, "everything", month)
    with pytest.raises(BudgetExceeded):
        await site.platform.runs.submit(site.admin, request("sample-plain", log))


async def test_the_audit_chain_is_whole_and_notices_a_change(site: Site, owner_dsn: str) -> None:
    import asyncpg

    for number in range(5):
        await site.platform.audit.append(site.admin, "test.act", f"thing:{number}", after={"n": number})
    await site.platform.audit.seal_all()
    assert await site.platform.audit.verify(site.admin) is None
    connection = await asyncpg.connect(owner_dsn)
    try:
        await connection.execute("update audit set actor = 'nobody' where tenant_id = 'bank' and subject = 'thing:2'")
        seq = await connection.fetchval("select seq from audit where subject = 'thing:2'")
    finally:
        await connection.close()
    assert await site.platform.audit.verify(site.admin) == seq

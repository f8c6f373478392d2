"""What the in-memory harness does beyond what servers do: jump in time, and find what does not repeat itself."""

from __future__ import annotations

import itertools
from typing import assert_type

import httpx
import pytest
from pydantic import BaseModel

from core.demo.services.app import QUESTIONS
from core.errors import Conflict, InvalidInput
from core.reviews.form import schema_of
from core.reviews.model import Terms
from core.runs.model import Cause, RunState
from core.tenancy import Policy, RateLimit
from core.usage.model import usd
from core.workflows import Run, Step, workflow
from core.workflows import usd as money
from core.workflows.in_memory.reviews import Question
from core.workflows.loans import loan_approval, read_applications
from core.workflows.testing import Waited, in_memory
from tests.fixtures.applications import csv_file, good

HOUR_S = 3600.0


class Given(BaseModel):
    """What the workflows here are given."""

    text: str = "x"
    sleep_s: float = HOUR_S


class Answer(BaseModel):
    """What they return."""

    text: str


class Reason(BaseModel):
    """A form."""

    why: str


counter = itertools.count()


async def echo(step: Step, given: Given) -> str:
    """A step without an effect."""
    return f"{given.text}{step.number}"


async def ask(step: Step, given: Given) -> str:
    """A step that asks a service."""
    return (await step.http("oracle").get(f"/{given.text}")).text


@workflow("asks", version="1")
async def asks(run: Run, given: Given) -> Answer:
    """One call."""
    return Answer(text=await run.call("oracle", ask, given))


@workflow("both", version="1")
async def both(run: Run, given: Given) -> Answer:
    """A question, a timer and an event at once."""
    verdict, _, payload = await run.gather(
        run.review("pool", title="Well?", evidence=given, choices=("yes", "no")),
        run.sleep(given.sleep_s),
        run.event("news", given.text, timeout_s=3 * HOUR_S),
    )
    await run.progress(1, 1, "told")
    return Answer(text=f"{verdict.verdict} {payload}")


@workflow("long", version="1")
async def long(run: Run, given: Given) -> Answer:
    """A sleep and a step."""
    await run.sleep(given.sleep_s)
    return Answer(text=await run.step(echo, given))


@workflow("dear", version="1", budget=money("5.00"))
async def dear(run: Run, given: Given) -> Answer:
    """A step of $0.70."""
    return Answer(text=await run.step(echo, given, estimate=money("0.70")))


@workflow("counts", version="1")
async def counts(run: Run, given: Given) -> Answer:
    """Counts outside of a step."""
    await run.step(echo, given)
    return Answer(text=str(next(counter)))


@workflow("turns", version="1")
async def turns(run: Run, given: Given) -> Answer:
    """Calls other steps every second time."""
    first, second = ("a", "b") if next(counter) % 2 else ("b", "a")
    await run.step(echo, given, name=first)
    return Answer(text=await run.step(echo, given, name=second))


@workflow("signed", version="1")
async def signed(run: Run, given: Given) -> Answer:
    """Needs two of three people, with a reason."""
    terms = Terms(needed=2, of=3, form=schema_of(Reason))
    verdict = await run.review("board", title="Sign?", evidence=given, choices=("yes", "no"), terms=terms)
    return Answer(text=f"{verdict.verdict}: {Reason.model_validate(verdict.answer).why}")


async def test_a_review_may_need_several_voices_and_a_form() -> None:
    async with in_memory(signed) as run_of:
        run = await run_of(Given())
        with pytest.raises(InvalidInput):
            await run.answer("yes", by="ravi", form={"why": 5})
        await run.answer("yes", by="ravi", form={"why": "it is sound"})
        with pytest.raises(Conflict):
            await run.answer("yes", by="ravi", form={"why": "again"})
        await run.answer("yes", by="rosa", form={"why": "I agree"})
        assert run.output.text == "yes: I agree"


async def test_the_output_has_the_type_that_the_workflow_returns() -> None:
    async with in_memory(long) as run_of:
        run = await run_of(Given())
    assert_type(run.output, Answer)
    assert run.output == Answer(text="x2")
    assert run.waits == [Waited(1, Cause.TIMER, HOUR_S)]


async def test_waits_that_begin_together_end_one_by_one() -> None:
    async with in_memory(both) as run_of:
        run = await run_of(Given())
        assert run.waits_for == [(1, Cause.REVIEW), (2, Cause.TIMER), (3, Cause.EVENT)]
        with pytest.raises(InvalidInput):
            await run.answer("perhaps")
        await run.answer("yes")
        assert run.waits_for == [(2, Cause.TIMER), (3, Cause.EVENT)]
        await run.let_time_pass()
        assert run.waits_for == [(3, Cause.EVENT)]
        await run.send("news", "other", 1)
        assert run.state is RunState.WAITING
        await run.send("news", "x", 2)
    assert run.output.text == "yes 2"
    assert run.progress == {"done": 1, "total": 1, "note": "told"}
    with pytest.raises(AssertionError, match="asks nothing"):
        await run.answer("yes")


async def test_an_event_that_nobody_sends_times_out() -> None:
    async with in_memory(both, reviews="no") as run_of:
        run = await run_of(Given())
        await run.let_time_pass()
        await run.let_time_pass()
    assert (run.state, sum(wait.seconds for wait in run.waits)) == (RunState.FAILED, 3 * HOUR_S)
    with pytest.raises(AssertionError, match="No event news/x came"):
        run.output.model_dump()


async def test_a_function_answers_the_questions_it_knows() -> None:
    def answer(question: Question) -> str | None:
        return "no" if question.evidence["text"] == "known" else None

    async with in_memory(both, reviews=answer) as run_of:
        known, unknown = await run_of(Given(text="known")), await run_of(Given(text="unknown"))
    assert [cause for _, cause in known.waits_for] == [Cause.TIMER, Cause.EVENT]
    assert [cause for _, cause in unknown.waits_for] == [Cause.REVIEW, Cause.TIMER, Cause.EVENT]


async def test_runs_of_one_test_share_the_month_and_it_ends() -> None:
    policy = Policy(budget_run_microusd=usd("1.00"), budget_month_microusd=usd("1.00"), timezone="Europe/Berlin")
    async with in_memory(dear, policy=policy) as run_of:
        first, second = await run_of(Given()), await run_of(Given())
    assert (first.cost_microusd, first.waits) == (usd("0.70"), [])
    (wait,) = second.waits
    assert (wait.cause, wait.step, second.state) == (Cause.BUDGET, 1, RunState.SUCCEEDED)
    assert run_of.clock.now().isoformat() == "2026-01-31T23:00:00+00:00"


async def test_a_budget_of_a_workflow_is_never_more_than_the_tenants() -> None:
    async with in_memory(dear, policy=Policy(budget_run_microusd=usd("0.50")), reviews="stop") as run_of:
        run = await run_of(Given())
    assert (run.state, run.cost_microusd) == (RunState.FAILED, 0)
    assert run.questions[0].evidence["budget"] == "$0.50"


async def test_a_run_that_lasts_too_long_fails_as_it_would_on_a_worker() -> None:
    async with in_memory(long, policy=Policy(max_duration_s=3600)) as run_of:
        run = await run_of(Given(sleep_s=3600))
        short = await run_of(Given(sleep_s=3599))
    assert (run.error or {})["details"]["quota"] == "max_duration_s"
    assert short.state is RunState.SUCCEEDED


async def test_no_window_holds_more_calls_than_the_limit_allows() -> None:
    at = []

    def oracle(request: httpx.Request) -> httpx.Response:
        at.append((run_of.clock.now() - started).total_seconds())
        return httpx.Response(200, text=request.url.path)

    policy = Policy(rate_limits={"oracle": RateLimit(limit=2, window_s=60)})
    async with in_memory(asks, policy=policy, services={"oracle": oracle}) as run_of:
        started = run_of.clock.now()
        runs = [await run_of(Given(text=str(number))) for number in range(5)]
    assert at == [0, 0, 60, 60, 120]
    assert [run.output.text for run in runs] == ["/0", "/1", "/2", "/3", "/4"]


async def test_a_service_that_the_test_does_not_give_is_named() -> None:
    async with in_memory(asks) as run_of:
        run = await run_of(Given())
    assert "services={'oracle': ...}" in (run.error or {})["message"]


async def test_a_result_made_outside_of_a_step_is_found() -> None:
    async with in_memory(counts) as run_of:
        with pytest.raises(AssertionError, match="did not end as before"):
            await run_of(Given())
    async with in_memory(counts, replay=False) as run_of:
        assert (await run_of(Given())).state is RunState.SUCCEEDED


async def test_another_order_of_steps_is_found() -> None:
    async with in_memory(turns) as run_of:
        with pytest.raises(AssertionError, match="the order has changed"):
            await run_of(Given())


async def test_the_loan_workflow_ends_in_memory_with_a_person_where_there_is_no_model() -> None:
    async def answering(request: httpx.Request) -> httpx.Response:
        _, question = QUESTIONS[f"/{request.url.host.removesuffix('.test')}{request.url.path}"]
        return httpx.Response(200, json=question.model_validate_json(request.content).answer())

    (application,) = read_applications(csv_file(good(1))).applications
    services = {service: answering for service, _ in QUESTIONS.values()}
    async with in_memory(loan_approval, services=services, policy=Policy(budget_run_microusd=usd("2"))) as run_of:
        run = await run_of(application)
        assert "models=..." in str(run.questions[0].evidence)
        await run.answer("approve", by="ravi")
    assert (run.outcome, run.output.decided_by) == ("approved", "user:ravi")
    assert [step.name for step in run.steps if step.kind != "review"][-1] == "record_decision"

"""Real applications through the real workflow: worker, offline model and demo services over the network."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import httpx
import pytest

from core.demo.tenants import organisations
from core.embedded.process import Reaper
from core.ids import RunId
from core.models.offline.rules.compliance import assess
from core.runs.model import Cause, RunRequest, RunState, RunView
from core.settings import Port, Settings
from core.tenancy import Policy, RateLimit
from core.workflows import loan_rules as rules
from core.workflows.loan_intake import read_applications
from core.workflows.loan_model import ComplianceFinding, Decision, LoanApplication, ReviewEvidence
from tests.fixtures.data import real_data
from tests.fixtures.serving import serving
from tests.fixtures.workers import Site, site_in, working

BANK = organisations("us-east-1")[0].policy.model_copy(update={"review_sla_s": 1})


@pytest.fixture
def rows() -> list[LoanApplication]:
    """Real applications of every kind: ordinary ones, some with bad reports, one of a child."""
    every = read_applications(real_data("loans/credit-card-applications.csv").read_bytes()).applications
    bad = [row for row in every if row.reports > 2][:4]
    doubtful = [row for row in every if row.reports == 1 and row.income > 3.5][:4]
    return [*every[:15], *bad, *doubtful, next(row for row in every if row.age < 18)]


@pytest.fixture
async def demo(settings: Settings, offline_model: str, reaper: Reaper) -> AsyncIterator[Settings]:
    """An installation beside which the demo services and the offline model run."""
    settings = settings.model_copy(update={"model_url": offline_model})
    async with serving(settings, "core.demo.services", Port.DEMO, reaper):
        yield settings


async def submit(site: Site, rows: list[LoanApplication]) -> list[RunView]:
    requests = [RunRequest("loan-approval", row.model_dump(mode="json"), batch_id="bat_1") for row in rows]
    return await site.platform.runs.submit_many(site.admin, requests)


async def effects(settings: Settings) -> dict[str, dict[str, int]]:
    async with httpx.AsyncClient(trust_env=False) as http:
        answer: dict[str, dict[str, int]] = (
            await http.get(f"http://127.0.0.1:{settings.port(Port.DEMO)}/effects")
        ).json()
    return answer


async def test_every_application_is_decided_by_the_rules_or_by_a_person(
    demo: Settings, rows: list[LoanApplication]
) -> None:
    async with site_in(demo, BANK) as site, working(site):
        submitted = await submit(site, rows)
        settled = await site.runs_until(submitted, lambda run: run.state.final or run.cause is Cause.REVIEW)
        assert {run.state for run in settled} == {RunState.SUCCEEDED, RunState.WAITING}

        reviews = {review.run_id: review for review in await site.platform.reviews.open(site.reviewer)}
        for run in settled:
            if run.state is RunState.WAITING:
                evidence = ReviewEvidence.model_validate(reviews[run.run_id].evidence)
                assert rules.needs_review(evidence.case, evidence.finding)
                assert not {"age", "dependents"} & set(reviews[run.run_id].evidence["case"])
                found = assess(evidence.case.model_dump(mode="json"))
                assert (evidence.finding.confidence, evidence.finding.reasons) == (found.confidence, found.reasons)
            else:
                decision = Decision.model_validate(run.output)
                assert (decision.verdict == "approve") == (run.outcome == "approved")
                assert (decision.decided_by, bool(decision.reasons)) == ("rules", decision.verdict == "decline")
        assert Counter(run.outcome for run in settled)["approved"] > 5
        assert Counter(run.outcome for run in settled)["declined"] > 3
        assert len(reviews) > 3

        await _recheck_finds_what_is_pending(site, len(reviews))
        await _a_changed_feed_is_summarised(site)
        await _reviewers_decide(site, settled, list(reviews))
        counts = await effects(demo)
        assert {name: one["effects"] for name, one in counts.items()} == dict.fromkeys(
            ("identity", "credit-bureau", "compliance", "decisions"), len(rows)
        )
        assert sum(one["duplicated_effects"] for one in counts.values()) == 0


async def _recheck_finds_what_is_pending(site: Site, in_review: int) -> None:
    due_at = max(review.due_at for review in await site.platform.reviews.open(site.reviewer))
    while site.platform.clock.now() <= due_at:  # noqa: ASYNC110 - time sets no event
        await asyncio.sleep(0.05)
    async with site.platform.bus.subscribe(site.admin.tenant_id) as events:
        recheck, _ = await site.platform.runs.submit(site.admin, RunRequest("loan-recheck", {}))
        reminded: set[str] = set()
        async with asyncio.timeout(30):
            async for event in events:
                if event.kind == "review" and event.data["state"] == "overdue":
                    reminded.add(event.data["review_id"])
                if len(reminded) == in_review:
                    break
    (done,) = await site.ended([recheck])
    assert done.output is not None
    assert (done.outcome, done.output["overdue"], done.output["waiting_by_cause"]) == (
        "overdue",
        in_review,
        {"review": in_review},
    )
    assert {reminder["review_id"] for reminder in done.output["reminders"]} == reminded


async def _a_changed_feed_is_summarised(site: Site) -> None:
    entries = [{"id": str(number), "title": f"Guideline  {number}\n"} for number in range(25)]
    change = {"url": "https://example.org/feed", "entries": [*entries, {"id": "x", "content": "word " * 200}]}
    page = {"url": "https://example.org/page", "content": "No feed at all."}
    requests = [RunRequest("feed-changed", {"change": seen}) for seen in (change, page)]
    feed, plain = await site.ended(await site.platform.runs.submit_many(site.admin, requests))
    assert feed.output is not None
    assert (feed.outcome, feed.output["new_entries"], feed.output["complete"]) == ("new entries", 26, False)
    assert feed.output["headlines"][:2] == ["Guideline 0", "Guideline 1"]
    assert len(feed.output["headlines"]) == 20
    assert plain.output == {
        "url": "https://example.org/page",
        "new_entries": 0,
        "headlines": ["No feed at all."],
        "complete": True,
    }


async def _reviewers_decide(site: Site, settled: list[RunView], waiting: list[RunId]) -> None:
    reviews = {review.run_id: review for review in await site.platform.reviews.open(site.reviewer)}
    for number, run_id in enumerate(waiting):
        verdict = rules.DECLINE if number == 0 else rules.APPROVE
        await site.platform.reviews.decide(site.reviewer, reviews[run_id].review_id, verdict, "Checked by phone.")
    ended = {run.run_id: run for run in await site.ended([run for run in settled if run.run_id in waiting])}
    refused = Decision.model_validate(ended[waiting[0]].output)
    assert refused.reasons[0] == rules.REFUSED_BY_REVIEWER
    assert (refused.decided_by, refused.comment) == (site.reviewer.actor, "Checked by phone.")
    assert {ended[run_id].outcome for run_id in waiting[1:]} == {"approved"}
    summary = await site.platform.runs.declined_summary(site.admin, "bat_1")
    assert rules.REFUSED_BY_REVIEWER in {one.reason for one in summary}


async def test_calls_beyond_the_tenants_window_wait_and_a_silent_model_is_a_case_for_people(
    demo: Settings, rows: list[LoanApplication]
) -> None:
    policy = Policy(concurrency_cap=10, rate_limits={"credit-bureau": RateLimit(limit=2, window_s=3600)})
    nobody = demo.model_copy(update={"model_url": f"http://127.0.0.1:{demo.port(Port.MODEL)}/v1"})
    async with site_in(nobody, policy) as site, working(site):
        submitted = await submit(site, rows[:5])
        parked = await site.runs_until(submitted, lambda run: run.cause in (Cause.RATE, Cause.REVIEW))
        assert Counter(run.cause for run in parked) == {Cause.RATE: 3, Cause.REVIEW: 2}
        for review in await site.platform.reviews.open(site.reviewer):
            finding = ComplianceFinding.model_validate(review.evidence["finding"])
            assert finding.confidence == 0
            assert "could not assess" in review.title
        assert (await effects(demo))["credit-bureau"]["effects"] == 2

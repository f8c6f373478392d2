"""The lending rules: every decision explained, none of them touched by who the applicant is."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.clock import FakeClock
from core.demo.services.app import DemoServices
from core.demo.services.feed import Feed
from core.demo.services.journal import Journal
from core.ids import RunId, TenantId
from core.models.offline.rules.compliance import assess
from core.tenancy import ActorKind, Policy, TenantContext
from core.workflows import loan_rules as rules
from core.workflows import loans
from core.workflows.loan_intake import read_applications
from core.workflows.loan_model import (
    BureauReport,
    ComplianceCase,
    ComplianceFinding,
    Decision,
    IdentityCheck,
    LoanApplication,
    Outcome,
    Screening,
)
from core.workflows.meter import StepMeter
from core.workflows.services import Services
from core.workflows.step import Step
from tests.fixtures.data import real_data

CTX = TenantContext(
    TenantId("bank"),
    None,
    ActorKind.RUN,
    "run_1",
    frozenset(),
    policy=Policy(),
    policy_version=1,
    org_id="o",
    region="r",
)
OFFLINE = {"approve": Outcome.CLEAR, "decline": Outcome.CONCERN, "review": Outcome.UNCERTAIN}

applications = st.builds(
    LoanApplication,
    application_id=st.just("1"),
    reports=st.integers(0, 6),
    age=st.floats(18, 110),
    income=st.floats(0, 20),
    share=st.floats(0, 1),
    expenditure=st.floats(0, 5_000),
    owner=st.booleans(),
    selfemp=st.booleans(),
    dependents=st.integers(0, 10),
    months=st.integers(0, 600),
    majorcards=st.integers(0, 1),
    active=st.integers(0, 40),
)
findings = st.builds(
    ComplianceFinding,
    outcome=st.sampled_from(Outcome),
    confidence=st.floats(0, 1),
    reasons=st.lists(st.text(max_size=400), max_size=8).map(tuple),
)
cases = st.builds(
    ComplianceCase,
    identity=st.sampled_from([IdentityCheck(verified=True), IdentityCheck(verified=False, concerns=("Too young.",))]),
    report=st.builds(
        BureauReport,
        score=st.integers(300, 850),
        derogatory_reports=st.integers(0, 9),
        active_accounts=st.integers(0, 40),
        factors=st.just(()),
    ),
    screening=st.just(Screening(flags=())),
    yearly_income_usd=st.floats(0, 500_000),
    spending_share=st.floats(0, 1),
    months_at_address=st.integers(0, 600),
    major_cards=st.integers(0, 3),
    home_owner=st.booleans(),
    self_employed=st.booleans(),
)


class DemoInProcess(Services):
    """The real demo services, reached without a socket; remembers what it was sent."""

    def __init__(self, folder: Path) -> None:
        journal, feed = Journal.open(folder / "effects.jsonl"), Feed(folder / "feed.jsonl")
        self.transport = httpx.ASGITransport(DemoServices(journal, feed, FakeClock(), delay_s=0).app())
        self.sent: list[bytes] = []

    def client(self, service: str, tenant: TenantId) -> httpx.AsyncClient:
        async def remember(request: httpx.Request) -> None:
            if service != "identity":
                self.sent.append(await request.aread())

        return httpx.AsyncClient(
            base_url=f"http://demo/{service}", transport=self.transport, event_hooks={"request": [remember]}
        )


class Assessor:
    """All steps of a loan run in order, with the offline model's compliance rules as the agent."""

    def __init__(self, folder: Path) -> None:
        self.services = DemoInProcess(folder)
        self._keys = itertools.count()

    def __call__(self, application: LoanApplication) -> tuple[ComplianceCase, Decision | None, list[bytes]]:
        """The case, the decision (None: a person decides) and what left the platform besides the identity check."""
        self.services.sent.clear()
        return asyncio.run(self._assess(application))

    async def _assess(self, application: LoanApplication) -> tuple[ComplianceCase, Decision | None, list[bytes]]:
        step = Step(RunId("run_1"), next(self._keys), 1, CTX, self.services, StepMeter(0))
        case = rules.case_of(
            application,
            await loans.verify_identity(step, application),
            await loans.pull_report(step, application),
            await loans.screen(step, application),
        )
        found = assess(case.model_dump(mode="json"))
        finding = ComplianceFinding(
            outcome=OFFLINE[found.outcome], confidence=found.confidence, reasons=tuple(found.reasons)
        )
        if rules.needs_review(case, finding):
            return case, None, list(self.services.sent)
        decision = rules.by_rules(application.application_id, case, finding)
        await loans.record_decision(step, decision)
        return case, decision, list(self.services.sent)


@pytest.fixture(scope="module")
def decide(tmp_path_factory: pytest.TempPathFactory) -> Assessor:
    """The way from an application to a decision."""
    return Assessor(tmp_path_factory.mktemp("demo"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(applications, st.floats(18, 110), st.integers(0, 100))
def test_protected_attributes_change_no_decision_and_no_byte_anybody_is_sent(
    decide: Assessor, application: LoanApplication, age: float, dependents: int
) -> None:
    other = application.model_copy(update={"age": age, "dependents": dependents})
    assert decide(other) == decide(application)


@given(cases, findings)
def test_every_refusal_has_a_reason_and_no_approval_breaks_a_rule(
    case: ComplianceCase, finding: ComplianceFinding
) -> None:
    if rules.needs_review(case, finding):
        assert rules.refusals(case) == ()
        assert rules.evidence("1", case, finding).question
        for verdict in (rules.APPROVE, rules.DECLINE):
            decision = rules.by_reviewer("1", case, finding, verdict, "Seen.", "user:usr_1")
            assert (decision.verdict, bool(decision.reasons)) == (verdict, verdict == rules.DECLINE)
        return
    decision = rules.by_rules("1", case, finding)
    assert (decision.verdict == rules.DECLINE) == bool(decision.reasons)
    assert all(reason.strip() for reason in decision.reasons)
    if decision.verdict == rules.APPROVE:
        assert case.report.score >= rules.MINIMUM_SCORE
        assert case.spending_share <= rules.MAXIMUM_SPENDING_SHARE
        assert case.identity.verified
        assert finding.outcome is Outcome.CLEAR
        assert finding.confidence >= rules.SURE


@given(cases, findings, st.integers(0, 300), st.floats(0, 1))
def test_a_worse_record_never_turns_a_refusal_into_an_approval(
    case: ComplianceCase, finding: ComplianceFinding, points: int, spending: float
) -> None:
    report = case.report.model_copy(update={"score": max(300, case.report.score - points)})
    worse = case.model_copy(update={"report": report, "spending_share": case.spending_share + spending})
    assert set(rules.refusals(case)) <= set(rules.refusals(worse))
    if rules.refusals(case):
        assert rules.by_rules("1", worse, finding).verdict == rules.DECLINE


def test_a_minor_or_an_impossible_age_is_looked_at_by_a_person(decide: Assessor) -> None:
    rows = read_applications(real_data("loans/credit-card-applications.csv").read_bytes()).applications
    children = [row for row in rows if row.age < 18]
    assert len(children) == 7
    for child in children:
        case, decision, _ = decide(child)
        assert decision is None
        assert case.identity.concerns == ("The stated age is below 18.",)


def test_real_applications_are_approved_refused_and_reviewed_in_sensible_shares(decide: Assessor) -> None:
    rows = read_applications(real_data("loans/credit-card-applications.csv").read_bytes()).applications[::5]
    verdicts = [decision.verdict if decision else "review" for _, decision, _ in map(decide, rows)]
    shares = {verdict: verdicts.count(verdict) / len(rows) for verdict in ("approve", "decline", "review")}
    assert 0.5 < shares["approve"] < 0.9
    assert 0.05 < shares["decline"] < 0.35
    assert 0.02 < shares["review"] < 0.25

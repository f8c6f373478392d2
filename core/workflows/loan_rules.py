"""The lending rules: pure, explainable, and blind to protected attributes.

Order: what the rules refuse is refused, and no reviewer is asked for an approval the rules would not allow.
What they allow goes to a person when the compliance finding is unsure or the identity is not settled. What
is left follows the finding. Every refusal has at least one reason; the texts are few and stable, so that
refusals can be counted by reason.
"""

from __future__ import annotations

from typing import Final

from core.workflows.loan_model import (
    BureauReport,
    ComplianceCase,
    ComplianceFinding,
    Decision,
    IdentityCheck,
    LoanApplication,
    Outcome,
    ReviewEvidence,
    Screening,
)

MINIMUM_SCORE = 620
MAXIMUM_SPENDING_SHARE = 0.35
SURE = 0.9
APPROVE: Final = "approve"
DECLINE: Final = "decline"
RULES = "rules"

LOW_SCORE = f"The credit score is below {MINIMUM_SCORE}."
HIGH_DEBT = f"Card spending exceeds {MAXIMUM_SPENDING_SHARE:.0%} of the income."
REFUSED_BY_REVIEWER = "A reviewer declined after looking at the case."
UNEXPLAINED_CONCERN = "Compliance raised a concern."


def case_of(
    application: LoanApplication, identity: IdentityCheck, report: BureauReport, screening: Screening
) -> ComplianceCase:
    """What may be looked at from here on; age and dependents stay behind."""
    return ComplianceCase(
        identity=identity,
        report=report,
        screening=screening,
        yearly_income_usd=application.yearly_income_usd,
        spending_share=application.share,
        months_at_address=application.months,
        major_cards=application.majorcards,
        home_owner=application.owner,
        self_employed=application.selfemp,
    )


def refusals(case: ComplianceCase) -> tuple[str, ...]:
    """Why the rules refuse, whatever anybody thinks of the case; empty when they do not."""
    reasons = []
    if case.report.score < MINIMUM_SCORE:
        reasons.append(LOW_SCORE)
    if case.spending_share > MAXIMUM_SPENDING_SHARE:
        reasons.append(HIGH_DEBT)
    return tuple(reasons)


def needs_review(case: ComplianceCase, finding: ComplianceFinding) -> bool:
    """Whether a person has to decide."""
    if refusals(case):
        return False
    return not case.identity.verified or finding.outcome is Outcome.UNCERTAIN or finding.confidence < SURE


def evidence(application_id: str, case: ComplianceCase, finding: ComplianceFinding) -> ReviewEvidence:
    """What the reviewer is shown, with the question put plainly."""
    doubts = case.identity.concerns or _told(finding) or ("The compliance finding is not certain.",)
    return ReviewEvidence(application_id=application_id, question=doubts[0], case=case, finding=finding)


def by_rules(application_id: str, case: ComplianceCase, finding: ComplianceFinding) -> Decision:
    """The decision on a case that needs no review."""
    reasons = refusals(case)
    if finding.outcome is Outcome.CONCERN and finding.confidence >= SURE:
        reasons += _told(finding) or (UNEXPLAINED_CONCERN,)
    return Decision(
        application_id=application_id,
        verdict=DECLINE if reasons else APPROVE,
        reasons=reasons,
        score=case.report.score,
        decided_by=RULES,
    )


def by_reviewer(
    application_id: str, case: ComplianceCase, finding: ComplianceFinding, verdict: str, comment: str, reviewer: str
) -> Decision:
    """The decision on a case a person decided."""
    declined = verdict != APPROVE
    return Decision(
        application_id=application_id,
        verdict=DECLINE if declined else APPROVE,
        reasons=(REFUSED_BY_REVIEWER, *case.identity.concerns, *_told(finding)) if declined else (),
        score=case.report.score,
        decided_by=reviewer,
        comment=comment,
    )


def _told(finding: ComplianceFinding) -> tuple[str, ...]:
    # A model may be talkative, or say nothing: a decision keeps what fits a letter to the applicant.
    said = (" ".join(reason.split())[:300] for reason in finding.reasons)
    return tuple(reason for reason in said if reason)[:5]

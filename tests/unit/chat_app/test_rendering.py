"""What the chat shows: cases, starters and errors in words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from chat_app.rendering import (
    duration,
    error_in_words,
    facts,
    refusal_in_words,
    review_card,
    starters,
)
from core.errors import (
    BailiwickError,
    BudgetExceeded,
    NoModelEndpoint,
    NotFound,
    QuotaExceeded,
    Unauthenticated,
    Unavailable,
)
from core.ids import ReviewId, RunId, TenantId, UserId
from core.reviews.model import ReviewView
from core.tenancy import ActorKind, Policy, Role, TenantContext, scopes_of

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
REVIEW = ReviewView(
    review_id=ReviewId("rev_1"),
    run_id=RunId("run_1"),
    pool="compliance",
    title="Application 7: Are the facts enough?",
    evidence={
        "application_id": "7",
        "question": "Are the facts enough?",
        "case": {
            "identity": {"verified": True, "concerns": []},
            "report": {"score": 640, "factors": ["few accounts", "short history"]},
            "yearly_income_usd": 45200.0,
            "spending_share": 0.033,
        },
        "finding": {"outcome": "uncertain", "confidence": 0.6, "reasons": ["The income is high but new."]},
    },
    choices=["approve", "decline"],
    state="open",
    verdict=None,
    comment=None,
    decided_by=None,
    created_at=NOON,
    due_at=NOON,
    decided_at=None,
    thread_id=None,
)


def context(*roles: Role, policy: Policy | None = None) -> TenantContext:
    return TenantContext(
        tenant_id=TenantId("bank"),
        user_id=UserId("usr_1"),
        actor_kind=ActorKind.USER,
        actor_id="usr_1",
        scopes=scopes_of(roles),
        policy=policy or Policy(),
        policy_version=1,
        org_id="org",
        region="us-east-1",
    )


def test_a_case_shows_its_facts_with_labels_and_units() -> None:
    card = review_card(REVIEW, Policy(timezone="America/New_York"), may_decide=True)

    assert card["due"] == "due Mon 5 Jan, 07:00"
    assert card["reasons"] == ["The income is high but new."]
    assert {fact["label"]: fact["value"] for fact in card["facts"]} == {
        "Application id": "7",
        "Verified": "yes",
        "Score": "640",
        "Factors": "few accounts; short history",
        "Yearly income": "$45,200.00",
        "Spending share": "3%",
        "Outcome": "uncertain",
        "Confidence": "60%",
    }


def test_facts_of_the_same_name_keep_apart() -> None:
    assert facts({"a": {"score": 1}, "b": {"score": 2}}) == [("A score", "1"), ("B score", "2")]


def test_a_decided_case_says_who_decided_it_and_when() -> None:
    decided = replace(REVIEW, state="decided", verdict="approve", comment="Fine.", decided_at=NOON)
    card = review_card(decided, Policy(), may_decide=True, decider="Ravi")
    assert card["decided"] == "Approve by Ravi, Mon 5 Jan, 12:00"


def test_starters_fit_what_the_person_may_do() -> None:
    member = [starter.label for starter in starters(context(Role.MEMBER), 3)]
    reviewer = [starter.label for starter in starters(context(Role.REVIEWER), 3)]
    denied = context(Role.REVIEWER, policy=Policy(denied_tools=("create_schedule", "list_reviews")))

    assert reviewer == ["Review 3 waiting cases", *member]
    assert [starter.label for starter in starters(denied, 3)] == [
        label for label in member if label != "Re-check pending cases every weekday"
    ]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Unauthenticated("The session is over. Log in again."), "[Log in](/login)"),
        (BudgetExceeded("The month's budget of $1.00 does not cover $0.02 more."), "operator raises the budget"),
        (QuotaExceeded("The daily quota of 5 runs is used up.", retry_after_s=7_300), "Try again in 2 hours"),
        (NoModelEndpoint(retry_after_s=5), "Nothing was sent anywhere else. Try again in 5 seconds."),
        (Unavailable(retry_after_s=1), "does not answer. Send your message again in 1 second."),
        (BailiwickError("Something else."), "Something else."),
    ],
)
def test_an_error_says_what_to_do_next(error: BailiwickError, told: str) -> None:
    assert told in error_in_words(error)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Unauthenticated("The session is over. Log in again."), "The session is over. Log in again."),
        (QuotaExceeded("The daily quota of 5 runs is used up."), "used up. Your operator can raise the quota."),
        (Unavailable(retry_after_s=2), "A part that is needed here does not answer. Try again in 2 seconds."),
        (Unavailable(), "A part that is needed here does not answer. Try again in a moment."),
        (NotFound("There is no such run."), "There is no such run."),
    ],
)
def test_a_button_that_did_not_work_says_what_to_do_next_in_plain_text(error: BailiwickError, told: str) -> None:
    assert refusal_in_words(error).endswith(told)


def test_nobody_who_chats_is_told_where_a_part_stands() -> None:
    error = Unavailable("Postgres does not answer: connect call failed ('10.0.0.1', 5432)")
    assert not any("10.0.0.1" in words(error) for words in (error_in_words, refusal_in_words))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 second"), (40, "40 seconds"), (300, "5 minutes"), (3_600, "1 hour"), (9_000, "2 hours")],
)
def test_a_waiting_time_is_said_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words

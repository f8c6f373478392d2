"""The rules of the demo services."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from core.demo.services.answers import BureauQuestion, IdentityQuestion, ScreeningQuestion

bureau_questions = st.builds(
    BureauQuestion,
    reference=st.just("run_1"),
    application_id=st.just("1"),
    derogatory_reports=st.integers(0, 20),
    active_accounts=st.integers(0, 60),
    yearly_income_usd=st.floats(0, 500_000),
    spending_share=st.floats(0, 2),
    months_at_address=st.integers(0, 600),
)


@given(bureau_questions)
def test_a_score_is_always_between_300_and_850_and_names_what_moved_it(question: BureauQuestion) -> None:
    answer = question.answer()
    assert 300 <= answer["score"] <= 850
    moved = sum(int(factor.rsplit(" ", 1)[1]) for factor in answer["factors"])
    assert answer["score"] == max(300, min(850, 680 + moved))


@given(bureau_questions, st.integers(1, 5), st.floats(0, 1))
def test_more_derogatory_reports_or_more_spending_never_raise_a_score(
    question: BureauQuestion, reports: int, spending: float
) -> None:
    worse = question.model_copy(
        update={
            "derogatory_reports": question.derogatory_reports + reports,
            "spending_share": question.spending_share + spending,
        }
    )
    assert worse.answer()["score"] <= question.answer()["score"]


@pytest.mark.parametrize(
    ("age", "verified"), [(0.5, False), (17.99, False), (18.0, True), (83.5, True), (110.0, True), (111.0, False)]
)
def test_an_identity_is_verified_for_plausible_adults_only(age: float, verified: bool) -> None:
    answer = IdentityQuestion(reference="run_1", application_id="1", age=age).answer()
    assert answer["verified"] is verified
    assert bool(answer["concerns"]) is not verified


@given(st.floats(18, 110))
def test_the_identity_answer_is_the_same_for_every_adult_age(age: float) -> None:
    assert IdentityQuestion(reference="run_1", application_id="1", age=age).answer() == {
        "verified": True,
        "concerns": [],
    }


def test_screening_names_every_pattern_that_applies() -> None:
    plain = ScreeningQuestion(
        reference="run_1",
        application_id="1",
        monthly_spending_usd=100,
        yearly_income_usd=40_000,
        spending_share=0.03,
        active_accounts=5,
        major_cards=1,
        months_at_address=20,
    )
    assert plain.answer() == {"flags": []}
    odd = plain.model_copy(
        update={"spending_share": 0.6, "active_accounts": 0, "major_cards": 0, "months_at_address": 0}
    )
    assert odd.answer()["flags"] == [
        "figures_disagree",
        "spends_half_of_income",
        "no_credit_history",
        "new_at_address",
    ]


def test_the_bureau_takes_no_protected_attribute() -> None:
    sent = {
        "reference": "run_1",
        "application_id": "1",
        "derogatory_reports": 0,
        "active_accounts": 1,
        "yearly_income_usd": 1,
        "spending_share": 0,
        "months_at_address": 1,
    }
    BureauQuestion.model_validate(sent)
    with pytest.raises(ValidationError):
        BureauQuestion.model_validate(sent | {"age": 40})

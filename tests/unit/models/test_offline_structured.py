"""The offline model answers in JSON: schema-valid always, from the input's fields where it has them."""

from __future__ import annotations

import json
from datetime import date
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from pydantic import BaseModel, Field

from core.models.offline.prompt import Prompt, Said, Speaker
from core.models.offline.rules.compliance import assess
from core.models.offline.rules.engine import answer
from core.models.offline.rules.structured import value_for


class Outcome(StrEnum):
    CLEAR = "clear"
    CONCERN = "concern"
    UNCERTAIN = "uncertain"


class Finding(BaseModel):
    outcome: Outcome
    confidence: float = Field(ge=0, le=1)
    reasons: list[str]


class Clause(BaseModel):
    number: int
    title: str = Field(min_length=1)


class Claim(BaseModel):
    policy_number: str
    incident_date: date | None
    amount_usd: float = Field(gt=0)
    kind: Outcome
    clauses: list[Clause]
    confidence: float


def case(**changes: Any) -> dict[str, Any]:
    report = {"score": 700, "derogatory_reports": 0, "active_accounts": 5}
    found = {
        "identity": {"verified": True},
        "report": report,
        "screening": {"flags": []},
        "yearly_income_usd": 34_000.0,
        "months_at_address": 40,
        "major_cards": 1,
    }
    for name, value in changes.items():
        target = report if name in report else found
        target[name] = value
    return found


def structured(schema: dict[str, Any], text: str, instructions: str = "") -> Any:
    given_answer = answer(Prompt(instructions, (Said(Speaker.USER, text),), schema=schema))
    return json.loads(given_answer.text)


@pytest.mark.parametrize(
    ("changes", "outcome", "certain"),
    [
        ({}, "clear", True),
        ({"derogatory_reports": 4}, "concern", True),
        ({"derogatory_reports": 1, "yearly_income_usd": 21_000.0}, "concern", True),
        ({"derogatory_reports": 1, "yearly_income_usd": 52_000.0}, "uncertain", False),
        ({"active_accounts": 0, "major_cards": 0}, "uncertain", False),
        ({"identity": {"verified": False}}, "uncertain", False),
        ({"screening": {"flags": ["shared_address"]}}, "uncertain", False),
    ],
)
def test_signals_that_agree_are_certain_and_contradictions_are_not(
    changes: dict[str, Any], outcome: str, certain: bool
) -> None:
    found = Finding.model_validate(structured(Finding.model_json_schema(), json.dumps(case(**changes))))
    assert found.outcome == outcome
    assert (found.confidence >= 0.9) is certain
    assert found.reasons


@given(
    age=st.integers(18, 120),
    dependents=st.integers(0, 20),
    sex=st.sampled_from(["f", "m", "x"]),
    reports=st.integers(0, 5),
    income=st.floats(0, 200_000),
)
def test_protected_attributes_never_change_a_finding(
    age: int, dependents: int, sex: str, reports: int, income: float
) -> None:
    blind = case(derogatory_reports=reports, yearly_income_usd=income)
    assert assess({**blind, "age": age, "dependents": dependents, "sex": sex, "nationality": "x"}) == assess(blind)


def test_a_remembered_minimum_score_is_kept_to() -> None:
    low = case(score=610)
    assert assess(low).outcome == "approve"
    assert assess(low, "Memories:\n- We never approve below 620").outcome == "decline"
    assert assess({**low, "policies": ["The minimum credit score is 640"]}).outcome == "decline"


def test_any_other_schema_is_filled_from_fields_of_the_same_name() -> None:
    source = {
        "claim": {"policyNumber": "P-77", "amount_usd": "1,250.50", "kind": "concern"},
        "incident_date": "2026-03-04",
        "clauses": [{"number": "3", "title": "Theft"}, {"number": 4, "title": "Fire"}],
    }
    found = Claim.model_validate(structured(Claim.model_json_schema(), f"The claim: {json.dumps(source)}"))
    assert found == Claim(
        policy_number="P-77",
        incident_date=date(2026, 3, 4),
        amount_usd=1250.5,
        kind=Outcome.CONCERN,
        clauses=[Clause(number=3, title="Theft"), Clause(number=4, title="Fire")],
        confidence=0.4,
    )


def test_labelled_lines_are_read_like_fields() -> None:
    found = value_for(Claim.model_json_schema(), "Policy number: P-12\nAmount USD: 99\n- Kind: clear")
    assert (found["policy_number"], found["amount_usd"], found["kind"]) == ("P-12", 99.0, "clear")


def test_an_answer_without_any_source_is_valid_and_not_confident() -> None:
    found = structured(Claim.model_json_schema(), "nothing of use")
    assert Claim.model_validate(found).confidence < 0.5


_leaf = st.one_of(
    st.just({"type": "string"}),
    st.just({"type": "string", "minLength": 3}),
    st.just({"type": "integer", "minimum": 2}),
    st.just({"type": "number", "maximum": -1}),
    st.just({"type": "boolean"}),
    st.just({"enum": ["a", "b"]}),
    st.just({"anyOf": [{"type": "integer"}, {"type": "null"}]}),
)
_schema = st.recursive(
    _leaf,
    lambda inner: st.one_of(
        st.builds(lambda items, least: {"type": "array", "items": items, "minItems": least}, inner, st.integers(0, 2)),
        st.dictionaries(st.sampled_from(["a", "b", "name", "confidence"]), inner, min_size=1).map(
            lambda properties: {"type": "object", "properties": properties, "required": list(properties)}
        ),
    ),
    max_leaves=6,
)


@given(schema=_schema, text=st.sampled_from(['{"a": 1, "b": ["x"], "name": {"a": "b"}}', "a: 7\nb: no", "", "{"]))
def test_whatever_the_schema_and_the_input_the_answer_is_valid(schema: dict[str, Any], text: str) -> None:
    Draft202012Validator(schema).validate(value_for(schema, text))

"""Errors as HTTP answers: every code has a number, and nothing from inside the house leaves it."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from chat_app.problems import MEDIA_TYPE, RETRY_AFTER_S, STATUS, MethodNotAllowed, answer, pointer, translate
from core.errors import (
    BailiwickError,
    InvalidInput,
    NotFound,
    PayloadTooLarge,
    QuotaExceeded,
    SetupError,
    Unauthenticated,
    Unavailable,
    WrongRegion,
)
from tests.architecture.test_errors import all_errors

SCOPE: dict[str, Any] = {"type": "http", "state": {"request_id": "req_1"}}


def body_of(error: BailiwickError) -> dict[str, Any]:
    response = answer(SCOPE, error)
    assert response.media_type == MEDIA_TYPE
    body: dict[str, Any] = json.loads(bytes(response.body))
    assert body["status"] == response.status_code
    return body


def test_every_error_has_its_own_entry_in_the_table_of_statuses() -> None:
    kinds = all_errors()
    assert [kind.code for kind in kinds if kind.code not in STATUS] == []
    assert set(STATUS) == {kind.code for kind in kinds}


def test_whatever_asks_to_come_back_says_when() -> None:
    later = {code for code, status in STATUS.items() if status in (429, 503)}
    assert later == set(RETRY_AFTER_S)
    assert answer(SCOPE, QuotaExceeded()).headers["retry-after"] == "60"
    assert answer(SCOPE, QuotaExceeded(retry_after_s=0.2)).headers["retry-after"] == "1"
    assert answer(SCOPE, QuotaExceeded(retry_after_s=12.1)).headers["retry-after"] == "13"
    assert "retry-after" not in answer(SCOPE, NotFound()).headers


def test_what_is_written_for_operators_stays_inside() -> None:
    for error in (
        Unavailable("Postgres does not answer: postgresql://bailiwick_app:secret@10.0.0.7/x", host="10.0.0.7"),
        SetupError("BAILIWICK_SECRET_KEY is not set.", path="/srv"),
        BailiwickError("Traceback", frame=1),
    ):
        said = json.dumps(body_of(error))
        assert not any(word in said for word in ("10.0.0.7", "secret", "BAILIWICK", "Traceback", "/srv", "frame"))


def test_facts_for_the_caller_are_kept_apart_from_faults() -> None:
    faulty = InvalidInput("Two faults.", errors=[{"pointer": "/input/age", "message": "too young"}], known=["a"])
    assert body_of(faulty)["errors"] == [{"pointer": "/input/age", "message": "too young"}]
    assert body_of(faulty)["details"] == {"known": ["a"]}
    named = body_of(InvalidInput("Not a time zone.", field="timezone"))
    assert (named["errors"], "details" in named) == ([{"pointer": "/timezone", "message": "Not a time zone."}], False)
    region = body_of(WrongRegion("Elsewhere.", region="eu-west-1", address="https://eu.example"))
    assert (region["status"], region["details"]["address"]) == (421, "https://eu.example")


def test_a_missing_identity_is_told_how_to_give_one() -> None:
    assert answer(SCOPE, Unauthenticated()).headers["www-authenticate"].startswith("Bearer ")


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (HTTPException(404), "not_found"),
        (HTTPException(413), "payload_too_large"),
        (HTTPException(418), "internal"),
        (RuntimeError("x"), "internal"),
        (PayloadTooLarge(), "payload_too_large"),
    ],
)
def test_what_the_framework_raises_becomes_one_of_our_errors(raised: Exception, code: str) -> None:
    assert translate(raised).code == code


def test_a_wrong_method_names_the_right_ones() -> None:
    error = translate(HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "GET"}))
    assert isinstance(error, MethodNotAllowed)
    assert answer(SCOPE, error).headers["allow"] == "GET"


def test_every_fault_of_a_request_is_pointed_at() -> None:
    found = RequestValidationError(
        [
            {"loc": ("body", "runs", 3, "a/b~c"), "msg": "wrong"},
            {"loc": ("query", "limit"), "msg": "too large"},
        ]
    )
    assert body_of(translate(found))["errors"] == [
        {"pointer": "/runs/3/a~1b~0c", "message": "wrong"},
        {"pointer": "query:limit", "message": "too large"},
    ]
    assert pointer([]) == ""

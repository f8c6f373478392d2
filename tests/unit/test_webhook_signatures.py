"""Which webhooks are taken for genuine: known signatures, and everything that is nearly one."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidInput, Unauthenticated
from core.triggers.model import (
    Delivery,
    TriggerKind,
    check_event,
    check_headers,
    faults_beside_payload,
    is_signed,
    occurrence,
    secret_of,
)

KEY = "the secret key of an installation, for tests"
# From the tests of another implementation of the standard.
KNOWN_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
KNOWN = Delivery(
    id="msg_p5jXN8AQM9LWM0D4loKWxJek",
    timestamp="1614265330",
    signature="v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    body=b'{"test": 2432232314}',
)
NOW = datetime.fromtimestamp(1614265330, UTC)


def signed_by_hand(secret: str, delivery: Delivery) -> str:
    """The scheme in the words of the standard."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    text = f"{delivery.id}.{delivery.timestamp}.".encode() + delivery.body
    return "v1," + base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()


def accepted(delivery: Delivery, secret: str = KNOWN_SECRET, now: datetime = NOW) -> bool:
    """Headers and signature together."""
    try:
        sent_at = check_headers(delivery, now)
    except Unauthenticated:
        return False
    return is_signed(delivery, sent_at, secret)


def test_a_signature_that_others_made_is_accepted_alone_and_among_others() -> None:
    assert accepted(KNOWN)
    assert accepted(replace(KNOWN, signature=f"v1a,abc v1,AAAA {KNOWN.signature} v2,x"))
    secret = secret_of(KEY, "trg_1", 1)
    ours = Delivery("msg_1", "1614265330", "", '{"ü": "…"}'.encode())
    assert accepted(replace(ours, signature=signed_by_hand(secret, ours)), secret)


@pytest.mark.parametrize(
    "changed",
    [
        {"body": b'{"test": 2432232315}'},
        {"body": b'{"test": 2432232314} '},
        {"body": b'\xff{"test": 2432232314}'},
        {"id": "msg_other"},
        {"id": ""},
        {"id": "msg.1614265330"},
        {"id": "msg\n"},
        {"id": "m" * 201},
        {"timestamp": "1614265331"},
        {"timestamp": "1614265330.0"},
        {"timestamp": "+1614265330"},
        {"timestamp": "01614265330"},
        {"timestamp": "nan"},
        {"timestamp": "９"},
        {"timestamp": ""},
        {"signature": ""},
        {"signature": "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="},
        {"signature": "v1,"},
        {"signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE"},
        {"signature": "v1a,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="},
        {"signature": "\udcff"},
    ],
)
def test_whatever_was_changed_is_refused(changed: dict[str, str]) -> None:
    assert not accepted(replace(KNOWN, **changed))  # type: ignore[arg-type]


def test_five_minutes_are_tolerated_either_way_and_no_more() -> None:
    for seconds, expected in ((-301, False), (-300, True), (300, True), (301, False)):
        assert accepted(KNOWN, now=NOW + timedelta(seconds=seconds)) is expected


@given(st.text(), st.text(), st.text(), st.binary())
def test_nothing_a_stranger_writes_breaks_the_check(name: str, timestamp: str, signature: str, body: bytes) -> None:
    assert not accepted(Delivery(name, timestamp, signature, body))
    assert not accepted(replace(KNOWN, signature=signature, body=body))


def test_every_trigger_and_every_rotation_has_a_secret_of_its_own_that_others_can_use() -> None:
    secrets = {secret_of(key, name, version) for key in (KEY, KEY + "x") for name in ("a", "b") for version in (1, 2)}
    assert len(secrets) == 8
    assert secret_of(KEY, "a", 1) == secret_of(KEY, "a", 1)
    for secret in secrets:
        assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32


def test_a_key_names_one_occurrence_whatever_its_words() -> None:
    assert occurrence("trg_1", "a", "bc") != occurrence("trg_1", "ab", "c")
    assert len(occurrence("trg_06g2kq8v3m4n5p6r7s8t9v0w1", "n" * 200, "k" * 200)) <= 200


def test_only_events_have_a_name_to_listen_for() -> None:
    assert check_event(TriggerKind.EVENT, " paid ") == "paid"
    assert check_event(TriggerKind.WEBHOOK, None) is None
    for kind, event in (
        (TriggerKind.EVENT, None),
        (TriggerKind.EVENT, " "),
        (TriggerKind.EVENT, "x" * 201),
        (TriggerKind.WEBHOOK, "paid"),
    ):
        with pytest.raises(InvalidInput):
            check_event(kind, event)


def test_a_sample_payload_that_does_not_fit_proves_nothing() -> None:
    pointers = ("/input/event/payload", "/input/event/payload/amount", "/input/event/payloads", "/input/limit")
    error = InvalidInput("x", errors=[{"pointer": pointer, "message": "m"} for pointer in pointers])
    assert [fault["pointer"] for fault in faults_beside_payload(error)] == ["/input/event/payloads", "/input/limit"]

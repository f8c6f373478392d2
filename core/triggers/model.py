"""Triggers: what they are, what one hands to its run, and the pure rules of signed webhooks.

A webhook is signed as Standard Webhooks 1.0 says: HMAC-SHA256 over ``id.timestamp.body``, in base64. The library
of that standard makes the signature; what it leaves open is decided here: which ids and times are taken (its own
check reads the clock by itself), and what a malformed header means (its own check breaks).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue
from standardwebhooks.webhooks import Webhook

from core.errors import InvalidInput, Unauthenticated
from core.ids import RunId, TenantId, TriggerId, UserId

HOOKS = "/api/v1/hooks"
"""Where webhooks are sent: the id of the trigger follows after a slash."""

MAX_TRIGGERS = 200
MAX_EVENT_NAME = 200
MAX_AGE_S = 300.0
"""How far the timestamp of a webhook may be from our clock, either way."""

SECRET_PREFIX = "whsec_"  # noqa: S105 - what every secret of the standard begins with

# A full stop would let one signed text be read as two different ids.
_DELIVERY_ID = re.compile(r"[\x21-\x2d\x2f-\x7e]{1,200}")
_TIMESTAMP = re.compile(r"[1-9][0-9]{0,11}")


class TriggerKind(StrEnum):
    """What starts its runs."""

    WEBHOOK = "webhook"
    EVENT = "event"


@dataclass(frozen=True, slots=True)
class TriggerView:
    """A trigger. ``event``: the name of the events it listens for; None for a webhook.

    ``last_error`` says why the last webhook or event started nothing (yet): ``{"code", "message"}``.
    """

    trigger_id: TriggerId
    kind: TriggerKind
    name: str
    event: str | None
    workflow: str
    input: dict[str, Any]
    paused: bool
    version: int
    secret_version: int
    last_fired_at: datetime | None
    last_run_id: RunId | None
    last_error: dict[str, Any] | None
    user_id: UserId | None
    created_by: str
    created_at: datetime
    updated_at: datetime

    @property
    def hook(self) -> str | None:
        """Where its webhooks are sent, on the host of the API; None for events."""
        return f"{HOOKS}/{self.trigger_id}" if self.kind is TriggerKind.WEBHOOK else None

    def definition(self) -> dict[str, Any]:
        """What people edit, as the audit shows it."""
        return {
            "kind": self.kind,
            "name": self.name,
            "event": self.event,
            "workflow": self.workflow,
            "input": self.input,
            "paused": self.paused,
            "secret_version": self.secret_version,
        }


@dataclass(frozen=True, slots=True)
class ToStart:
    """The run of an event that is still to be started."""

    tenant_id: TenantId
    trigger_id: TriggerId
    name: str
    key: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """A webhook as it came: its three headers (empty: missing) and its body."""

    id: str
    timestamp: str
    signature: str
    body: bytes


class TriggerEvent(BaseModel):
    """What started a run; the field ``event`` of its input.

    ``event`` is the name of the event, or of the webhook's trigger; ``key`` that of the event, or the webhook's
    id; ``payload`` what was sent with it.
    """

    model_config = ConfigDict(frozen=True)
    event: str
    key: str
    payload: JsonValue


EVENT_FIELD = "event"
SAMPLE_EVENT = TriggerEvent(event="an-event", key="1", payload={})


def check_event(kind: TriggerKind, event: str | None) -> str | None:
    """The name of the events without spaces around it. Raises ``InvalidInput``: too long, or not of this kind."""
    if kind is TriggerKind.WEBHOOK:
        if event is not None:
            raise InvalidInput("A webhook listens for no event.", field="event")
        return None
    event = (event or "").strip()
    if not 1 <= len(event) <= MAX_EVENT_NAME:
        raise InvalidInput(f"The name of an event has 1 to {MAX_EVENT_NAME} characters.", field="event")
    return event


def input_with(document: Mapping[str, Any], event: TriggerEvent) -> dict[str, Any]:
    """A run's input: what people wrote, and what started it."""
    return {**document, EVENT_FIELD: event.model_dump(mode="json")}


def occurrence(trigger_id: str, *words: str) -> str:
    """The idempotency key of a run: the same for the same webhook or event, of any length."""
    return f"{trigger_id}:{hashlib.sha256(chr(0).join(words).encode()).hexdigest()}"


def faults_beside_payload(error: InvalidInput) -> list[dict[str, str]]:
    """The faults of a sample input that no payload could mend."""
    inside = f"/input/{EVENT_FIELD}/payload"
    return [
        fault
        for fault in error.details.get("errors", [])
        if fault["pointer"] != inside and not fault["pointer"].startswith(f"{inside}/")
    ]


# Signatures ---------------------------------------------------------------------------------------------


def secret_of(key: str, trigger_id: str, version: int) -> str:
    """The signing secret of a webhook: whoever knows the installation's key can derive it, nobody else."""
    text = f"webhook {trigger_id} {version}".encode()
    return SECRET_PREFIX + base64.b64encode(hmac.digest(key.encode(), text, hashlib.sha256)).decode()


def check_headers(delivery: Delivery, now: datetime) -> datetime:
    """When a webhook was sent. Raises ``Unauthenticated`` for missing, malformed and old headers."""
    if not (_DELIVERY_ID.fullmatch(delivery.id) and _TIMESTAMP.fullmatch(delivery.timestamp) and delivery.signature):
        raise refused()
    age_s = now.timestamp() - int(delivery.timestamp)
    if abs(age_s) > MAX_AGE_S:
        raise refused()
    return datetime.fromtimestamp(int(delivery.timestamp), UTC)


def is_signed(delivery: Delivery, sent_at: datetime, secret: str) -> bool:
    """Whether one of the signatures is made with this secret; tells nothing by the time it takes."""
    try:
        body = delivery.body.decode("utf-8")
    except UnicodeDecodeError:
        return False
    expected = Webhook(secret).sign(delivery.id, sent_at, body).encode()
    given = delivery.signature.encode("utf-8", "replace").split(b" ")
    return any(hmac.compare_digest(expected, one) for one in given)


def refused() -> Unauthenticated:
    """The one answer to every webhook that is not to be trusted."""
    return Unauthenticated("The webhook is not signed with this trigger's secret, or it is too old.")

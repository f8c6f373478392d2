"""People, keys and organisations: frozen values and the pure rules about them."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime

from core.ids import TenantId, UserId
from core.tenancy import Policy, Role, TenantContext

SESSION_LIFETIME_S = 12 * 3600
LOCKOUT_FAILURES = 10
LOCKOUT_WINDOW_S = 15 * 60
KEY_PREFIX = "bw"
MAX_EMAIL = 254
IDENTITY = "identity"
"""Kind of the live event that says: somebody of the tenant may have lost a right, ask again who it is."""

_OPERATOR_ONLY = (
    "tier",
    "weight",
    "concurrency_cap",
    "burst_slots",
    "burst_credit_s",
    "queue_depth",
    "open_runs",
    "daily_runs",
    "max_steps",
    "max_duration_s",
    "max_recoveries",
    "budget_run_microusd",
    "budget_month_microusd",
    "budget_class",
    "model_tier",
    "regions",
    "rate_limits",
    "audit_retention_days",
    "blob_bytes",
    "blob_retention_days",
)


@dataclass(frozen=True, slots=True)
class Identity:
    """A person who is logged in."""

    user_id: UserId
    tenant_id: TenantId
    tenant_name: str
    email: str
    name: str
    roles: tuple[Role, ...]
    ctx: TenantContext
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Login:
    """A new session: the token is shown to the browser once and stored only as a hash."""

    token: str
    identity: Identity


@dataclass(frozen=True, slots=True)
class TenantView:
    """An organisation as operators see it. Paused: none of its runs start. Draining: nothing new is taken."""

    tenant_id: TenantId
    name: str
    org_id: str
    region: str
    policy: Policy
    policy_version: int
    paused: bool
    draining: bool


@dataclass(frozen=True, slots=True)
class ApiKeyView:
    """A key without its secret."""

    key_id: str
    label: str
    scopes: tuple[str, ...]
    created_at: datetime
    revoked_at: datetime | None


def hash_token(token: str) -> bytes:
    """SHA-256: tokens are random (256 bits), so nothing slower is needed to store them safely."""
    return hashlib.sha256(as_bytes(token)).digest()


def as_bytes(secret: str) -> bytes:
    """Any text as bytes, also text that UTF-8 refuses: a wrong secret is wrong, not an error."""
    return secret.encode("utf-8", "surrogatepass")


def new_token() -> str:
    """256 random bits, URL-safe."""
    return secrets.token_urlsafe(32)


def split_key(key: str) -> tuple[str, str] | None:
    """Key id and secret of ``bw_<id>_<secret>``; None when it has another form."""
    parts = key.split("_", 2)
    if len(parts) != 3 or parts[0] != KEY_PREFIX or not (parts[1].isascii() and parts[1].isalnum()) or not parts[2]:
        return None
    return parts[1], parts[2]


def is_email(text: str) -> bool:
    """Whether this may be somebody's e-mail address."""
    return 3 <= len(text) <= MAX_EMAIL and text.isprintable() and "@" in text[1:-1]


def operator_only_changes(before: Policy, after: Policy) -> tuple[str, ...]:
    """Fields that differ and that a tenant's own admin may not change."""
    return tuple(name for name in _OPERATOR_ONLY if getattr(before, name) != getattr(after, name))

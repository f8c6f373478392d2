"""Rows of tenants, people, sessions and keys."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from core.db.pool import Row, Transaction
from core.db.queries import load_queries
from core.ids import TenantId, UserId
from core.tenancy import Policy, Role
from core.tenants.model import ApiKeyView, TenantView

SQL = load_queries(__file__)


@dataclass(frozen=True, slots=True)
class Account:
    """What a login is checked against."""

    tenant_id: TenantId
    user_id: UserId
    password_hash: str
    role_version: int


@dataclass(frozen=True, slots=True)
class SessionRow:
    """Who a live session belongs to."""

    tenant_id: TenantId
    user_id: UserId
    email: str
    name: str
    roles: tuple[Role, ...]
    expires_at: datetime


async def login_candidates(tx: Transaction, email: str) -> list[Account]:
    """Accounts with this e-mail, at most one per tenant."""
    return [
        Account(TenantId(r["tenant_id"]), UserId(r["user_id"]), r["password_hash"], r["role_version"])
        for r in await tx.fetch(SQL["login_candidates"], email)
    ]


async def login_attempt(tx: Transaction, email: str, since: datetime, limit: int, now: datetime) -> bool:
    """Count an attempt as failed; False when that would be more than ``limit`` since a moment (by the minute)."""
    return bool(await tx.fetchval(SQL["login_attempt"], email, since, limit, now))


async def login_succeeded(tx: Transaction, email: str, at: datetime) -> None:
    """Take back the attempt counted at this moment."""
    await tx.execute(SQL["login_succeeded"], email, at)


async def session(tx: Transaction, token_hash: bytes, now: datetime) -> SessionRow | None:
    """The live session with this hash."""
    row = await tx.fetchrow(SQL["session_identity"], token_hash, now)
    if row is None:
        return None
    return SessionRow(
        TenantId(row["tenant_id"]),
        UserId(row["user_id"]),
        row["email"],
        row["name"],
        tuple(Role(role) for role in row["roles"]),
        row["expires_at"],
    )


async def insert_session(
    tx: Transaction, token_hash: bytes, account: Account, now: datetime, expires_at: datetime
) -> None:
    """Open a session; the transaction's tenant must be the account's."""
    await tx.execute(
        SQL["insert_session"],
        token_hash,
        account.tenant_id,
        account.user_id,
        account.role_version,
        now,
        expires_at,
    )


async def delete_session(tx: Transaction, token_hash: bytes) -> None:
    """Close a session."""
    await tx.execute(SQL["delete_session"], token_hash)


async def names(tx: Transaction, user_ids: list[str]) -> dict[UserId, str]:
    """What people are called; unknown ids are left out."""
    return {UserId(row["user_id"]): row["name"] for row in await tx.fetch(SQL["names"], user_ids)}


async def api_key(tx: Transaction, key_id: str, now: datetime) -> tuple[TenantId, bytes, tuple[str, ...]] | None:
    """Tenant, hash of the secret and scopes of a valid key."""
    row = await tx.fetchrow(SQL["api_key_identity"], key_id, now)
    return None if row is None else (TenantId(row["tenant_id"]), row["secret_hash"], tuple(row["scopes"]))


async def insert_api_key(
    tx: Transaction,
    tenant_id: TenantId,
    key_id: str,
    secret_hash: bytes,
    label: str,
    scopes: tuple[str, ...],
    created_by: str,
    now: datetime,
) -> None:
    """Store a new key by its hash."""
    await tx.execute(SQL["insert_api_key"], key_id, tenant_id, secret_hash, label, list(scopes), created_by, now)


async def list_api_keys(tx: Transaction) -> list[ApiKeyView]:
    """All keys, newest first."""
    return [
        ApiKeyView(r["key_id"], r["label"], tuple(r["scopes"]), r["created_at"], r["revoked_at"])
        for r in await tx.fetch(SQL["list_api_keys"])
    ]


async def revoke_api_key(tx: Transaction, key_id: str, now: datetime) -> bool:
    """Whether a valid key was revoked now."""
    return await tx.execute(SQL["revoke_api_key"], key_id, now) == 1


def _tenant(row: Row) -> TenantView:
    return TenantView(
        TenantId(row["tenant_id"]),
        row["name"],
        row["org_id"],
        row["region"],
        Policy.model_validate(row["document"]),
        row["policy_version"],
        row["paused"],
        row["draining"],
    )


async def tenant(tx: Transaction, tenant_id: TenantId) -> TenantView | None:
    """One tenant with its policy in force."""
    row = await tx.fetchrow(SQL["tenant_policy"], tenant_id)
    return None if row is None else _tenant(row)


async def tenants(tx: Transaction) -> list[TenantView]:
    """All tenants, by id."""
    return [_tenant(row) for row in await tx.fetch(SQL["tenant_list"])]


async def create_tenant(
    tx: Transaction,
    tenant_id: TenantId,
    name: str,
    org_id: str,
    region: str,
    policy: Policy,
    actor: str,
    now: datetime,
) -> bool:
    """False when it exists already."""
    document = policy.model_dump(mode="json")
    return bool(await tx.fetchval(SQL["tenant_create"], tenant_id, name, org_id, region, document, actor, now))


async def change_policy(
    tx: Transaction, tenant_id: TenantId, version: int, policy: Policy, actor: str, now: datetime
) -> int | None:
    """The new version, None when another one than ``version`` is in force."""
    document = policy.model_dump(mode="json")
    changed: int | None = await tx.fetchval(SQL["policy_change"], tenant_id, version, document, actor, now)
    return changed


async def steer(
    tx: Transaction, tenant_id: TenantId, now: datetime, *, paused: bool | None = None, draining: bool | None = None
) -> bool:
    """Change what is not None; False when there is no such tenant."""
    return bool(await tx.fetchval(SQL["steer"], tenant_id, paused, draining, now))


async def set_platform_cap(tx: Transaction, cap: int | None) -> int | None:
    """The most slots that may be held on the whole platform; what it was."""
    was: int | None = await tx.fetchval(SQL["platform_cap"], cap)
    return was


async def create_user(
    tx: Transaction,
    user_id: UserId,
    tenant_id: TenantId,
    email: str,
    name: str,
    password_hash: str,
    roles: tuple[Role, ...],
    now: datetime,
) -> bool:
    """False when the e-mail is taken in that tenant."""
    return bool(
        await tx.fetchval(
            SQL["user_create"], user_id, tenant_id, email, name, password_hash, [r.value for r in roles], now
        )
    )


async def change_user(
    tx: Transaction,
    tenant_id: TenantId,
    user_id: UserId,
    roles: tuple[Role, ...] | None,
    disabled: bool | None,
    now: datetime,
) -> bool:
    """False when there is nobody of this id in the tenant."""
    words = None if roles is None else [role.value for role in roles]
    return bool(await tx.fetchval(SQL["user_change"], tenant_id, user_id, words, disabled, now))


async def purge(tx: Transaction, now: datetime, failures_before: datetime) -> int:
    """Remove ended sessions and old failed logins; the number of sessions."""
    await tx.execute(SQL["forget_login_failures"], failures_before)
    return int(await tx.fetchval(SQL["purge_sessions"], now))

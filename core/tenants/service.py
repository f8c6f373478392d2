"""Identity and policy: from a password, cookie or key to a ``TenantContext``; and the acts of operators.

A session goes ``open`` → ``expired`` (12 h) or ``closed`` (logout, or any change of the user's roles). The
token lives in the browser only; the database holds its SHA-256. Policies are known per process for one second
(``known``), so a busy process reads a tenant's policy once a second and an operator's change acts within one.
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
from collections.abc import Iterable
from datetime import datetime, timedelta

from core.audit.service import AuditService
from core.clock import Clock
from core.db.pool import Database
from core.errors import Conflict, Forbidden, InvalidInput, NotFound, RateLimited, Unauthenticated, WrongRegion
from core.ids import TenantId, UserId, new_id
from core.queue.model import Topic
from core.redis.bus import Bus
from core.tenancy import OF_PLATFORM, PLATFORM, TENANT_ID, ActorKind, Policy, Role, Scope, TenantContext, scopes_of
from core.tenants import passwords, store
from core.tenants.known import KnownTenants
from core.tenants.model import (
    IDENTITY,
    KEY_PREFIX,
    LOCKOUT_FAILURES,
    LOCKOUT_WINDOW_S,
    SESSION_LIFETIME_S,
    ApiKeyView,
    Identity,
    Login,
    TenantView,
    hash_token,
    is_email,
    new_token,
    operator_only_changes,
    split_key,
)
from core.tenants.refusals import Refusals

MAX_PLATFORM_CAP = 10_000_000
"""Slots; more than any platform has."""


class TenantService:
    """Organisations, people, keys and policies of one region."""

    def __init__(
        self, db: Database, bus: Bus, audit: AuditService, clock: Clock, *, region: str, region_urls: dict[str, str]
    ) -> None:
        self._db = db
        self._bus = bus
        self._audit = audit
        self._clock = clock
        self._region = region
        self._region_urls = region_urls
        self.refusals = Refusals(audit, self.context_for)
        self._known = KnownTenants(db, clock)

    # Identity -------------------------------------------------------------------------------------------

    async def login(self, email: str, password: str, tenant: str | None = None) -> Login:
        """Open a session. ``tenant`` chooses where the same e-mail exists in several.

        Raises ``Unauthenticated`` for any wrong combination (in the same time), ``RateLimited`` after
        10 failures of an e-mail in 15 minutes.
        """
        now = self._clock.now()
        email = email.strip().lower()
        accounts = await self._attempt(email, now) if is_email(email) else []
        wanted = [account for account in accounts if tenant in (None, "", account.tenant_id)]
        verdicts = await asyncio.to_thread(passwords.matches, password, [one.password_hash for one in wanted])
        account = next(itertools.compress(wanted, verdicts), None)
        if account is None:
            self.refusals.tell(wanted)
            raise Unauthenticated("E-mail or password is wrong.")
        async with self._db.control_transaction() as tx:
            await store.login_succeeded(tx, email, now)
        token = new_token()
        ctx = await self.context_for(
            account.tenant_id, actor_kind=ActorKind.USER, actor_id=account.user_id, user_id=account.user_id
        )
        async with self._db.tenant_transaction(ctx) as tx:
            expires_at = now + timedelta(seconds=SESSION_LIFETIME_S)
            await store.insert_session(tx, hash_token(token), account, now, expires_at)
            await self._audit.record(tx, ctx, "session.open", f"user:{account.user_id}")
        return Login(token, await self.identify_session(token))

    async def _attempt(self, email: str, now: datetime) -> list[store.Account]:
        """Whom the e-mail may stand for. The attempt counts as failed until its password turns out to be right."""
        since = now - timedelta(seconds=LOCKOUT_WINDOW_S)
        async with self._db.control_transaction() as tx:
            if not await store.login_attempt(tx, email, since, LOCKOUT_FAILURES, now):
                self.refusals.tell(await store.login_candidates(tx, email), "session.lock")
                raise RateLimited("Too many failed logins. Try again later.", retry_after_s=LOCKOUT_WINDOW_S)
            return await store.login_candidates(tx, email)

    async def identify_session(self, token: str) -> Identity:
        """Who holds this session. Raises ``Unauthenticated`` when it is over or was never one."""
        async with self._db.control_transaction() as tx:
            row = await store.session(tx, hash_token(token), self._clock.now())
        if row is None:
            raise Unauthenticated("The session is over. Log in again.")
        ctx = await self.context_for(
            row.tenant_id,
            actor_kind=ActorKind.USER,
            actor_id=row.user_id,
            user_id=row.user_id,
            scopes=scopes_of(row.roles),
        )
        tenant = await self.tenant(row.tenant_id)
        return Identity(row.user_id, row.tenant_id, tenant.name, row.email, row.name, row.roles, ctx, row.expires_at)

    async def logout(self, token: str) -> None:
        """Close a session; nothing happens when it is closed already."""
        try:
            identity = await self.identify_session(token)
        except Unauthenticated:
            return
        async with self._db.tenant_transaction(identity.ctx) as tx:
            await store.delete_session(tx, hash_token(token))
            await self._audit.record(tx, identity.ctx, "session.close", f"user:{identity.user_id}")
        await self._bus.publish(identity.tenant_id, IDENTITY, {})

    async def identify_key(self, key: str) -> TenantContext:
        """What an API key may do. Raises ``Unauthenticated`` when it is unknown, expired or revoked."""
        parts = split_key(key)
        found = None
        if parts is not None:
            async with self._db.control_transaction() as tx:
                found = await store.api_key(tx, parts[0], self._clock.now())
        if parts is None or found is None:
            raise Unauthenticated("The API key is not valid.")
        tenant_id, secret_hash, scopes = found
        if not hmac.compare_digest(secret_hash, hash_token(parts[1])):
            raise Unauthenticated("The API key is not valid.")
        return await self.context_for(
            tenant_id,
            actor_kind=ActorKind.API_KEY,
            actor_id=parts[0],
            scopes=frozenset(Scope(scope) for scope in scopes),
        )

    async def context_for(
        self,
        tenant_id: TenantId,
        *,
        actor_kind: ActorKind,
        actor_id: str,
        user_id: UserId | None = None,
        scopes: frozenset[Scope] = frozenset(),
    ) -> TenantContext:
        """A context under the policy in force. Raises ``NotFound``, or ``WrongRegion`` with the right address."""
        tenant = await self.tenant(tenant_id)
        if tenant.tenant_id != PLATFORM and tenant.region != self._region:
            raise WrongRegion(
                f"This tenant is served in {tenant.region}.",
                region=tenant.region,
                address=self._region_urls.get(tenant.region),
            )
        return TenantContext(
            tenant_id=tenant.tenant_id,
            user_id=user_id,
            actor_kind=actor_kind,
            actor_id=actor_id,
            scopes=scopes,
            policy=tenant.policy,
            policy_version=tenant.policy_version,
            org_id=tenant.org_id,
            region=tenant.region,
        )

    async def tenant(self, tenant_id: TenantId) -> TenantView:
        """A tenant and its policy, at most one second old. Raises ``NotFound``."""
        return await self._known.get(tenant_id)

    async def names(self, ctx: TenantContext, user_ids: Iterable[str]) -> dict[UserId, str]:
        """What people of the caller's tenant are called, for showing who did something; unknown ids are left out."""
        async with self._db.tenant_transaction(ctx) as tx:
            return await store.names(tx, list(user_ids))

    async def purge(self) -> int:
        """Forget sessions that have ended and failed logins that count no more; the number of sessions."""
        now = self._clock.now()
        async with self._db.control_transaction() as tx:
            return await store.purge(tx, now, now - timedelta(seconds=2 * LOCKOUT_WINDOW_S))

    # Acts of operators and admins -----------------------------------------------------------------------

    async def list_tenants(self, actor: TenantContext) -> list[TenantView]:
        """All tenants for an operator, one's own for anybody else."""
        if Scope.PLATFORM_OPERATE not in actor.scopes:
            return [await self.tenant(actor.tenant_id)]
        async with self._db.control_transaction() as tx:
            return [t for t in await store.tenants(tx) if t.tenant_id != PLATFORM]

    async def create_tenant(
        self, actor: TenantContext, tenant_id: TenantId, name: str, org_id: str, region: str, policy: Policy
    ) -> bool:
        """Add an organisation; False when it exists already (nothing is changed then). Raises ``InvalidInput``."""
        actor.require(Scope.PLATFORM_OPERATE)
        if TENANT_ID.fullmatch(tenant_id) is None:
            raise InvalidInput("A tenant's id has 2 to 63 small letters, digits and hyphens.")
        now = self._clock.now()
        async with self._db.control_transaction() as tx:
            created = await store.create_tenant(tx, tenant_id, name, org_id, region, policy, actor.actor, now)
        if created and actor.tenant_id != tenant_id:
            await self._audit.append(actor, "tenant.create", f"tenant:{tenant_id}", after={"region": region})
        return created

    async def add_user(
        self,
        actor: TenantContext,
        tenant_id: TenantId,
        email: str,
        name: str,
        password: str,
        roles: tuple[Role, ...],
    ) -> bool:
        """Add a person; False when the e-mail is taken there. Raises ``NotFound``, ``InvalidInput``."""
        self._require_over(actor, tenant_id)
        _check_roles(tenant_id, roles)
        email = email.strip().lower()
        if not is_email(email):
            raise InvalidInput("This is no e-mail address.")
        if not 8 <= len(password) <= passwords.LONGEST:
            raise InvalidInput("A password needs 8 to 1024 characters.")
        await self.tenant(tenant_id)
        now = self._clock.now()
        async with self._db.control_transaction() as tx:
            known = await store.login_candidates(tx, email)
        if any(account.tenant_id == tenant_id for account in known):
            return False  # before the costly hash, so that seeding again is quick
        hashed = await asyncio.to_thread(passwords.hashed, password)
        user_id = UserId(new_id("usr", now))
        async with self._db.control_transaction() as tx:
            created = await store.create_user(tx, user_id, tenant_id, email, name, hashed, roles, now)
        if created:
            await self._audit.append(actor, "user.create", f"user:{user_id}", after={"roles": list(roles)})
        return created

    async def change_user(
        self,
        actor: TenantContext,
        tenant_id: TenantId,
        user_id: UserId,
        *,
        roles: tuple[Role, ...] | None = None,
        disabled: bool | None = None,
    ) -> None:
        """Give a person other roles, or take or return their access; their sessions end. Raises ``NotFound``."""
        self._require_over(actor, tenant_id)
        if roles is not None:
            _check_roles(tenant_id, roles)
        async with self._db.control_transaction() as tx:
            if not await store.change_user(tx, tenant_id, user_id, roles, disabled, self._clock.now()):
                raise NotFound("There is no such person.")
        await self._bus.publish(tenant_id, IDENTITY, {})
        after = {"roles": None if roles is None else list(roles), "disabled": disabled}
        await self._audit_over(actor, tenant_id, "user.change", f"user:{user_id}", None, after)

    async def change_policy(self, actor: TenantContext, tenant_id: TenantId, policy: Policy) -> int:
        """Put a new policy in force; its version. Acts on queued runs at once: workers are woken to claim by it.

        An admin may change their own tenant's pools, tools and time zone; weight, caps, quotas, budgets and
        regions are the operator's (``Forbidden``). Raises ``NotFound``; ``Conflict`` when somebody else changes
        it at the same moment.
        """
        self._require_over(actor, tenant_id)
        now = self._clock.now()
        async with self._db.control_transaction() as tx:
            before = await store.tenant(tx, tenant_id)  # never the cache: an operator may have lowered a cap just now
            if before is None:
                raise NotFound("There is no such tenant.")
            fields = operator_only_changes(before.policy, policy)
            if fields and Scope.PLATFORM_OPERATE not in actor.scopes:
                raise Forbidden(f"Only the operator changes {', '.join(fields)}.", fields=list(fields))
            version = await store.change_policy(tx, tenant_id, before.policy_version, policy, actor.actor, now)
        if version is None:
            raise Conflict("Somebody else changes this policy, too. Look again.")
        await self._changed(tenant_id)
        was, is_now = before.policy.model_dump(mode="json"), policy.model_dump(mode="json")
        await self._audit_over(actor, tenant_id, "policy.change", f"tenant:{tenant_id}", was, is_now)
        return version

    async def pause(self, actor: TenantContext, tenant_id: TenantId, paused: bool) -> None:
        """Stop claiming a tenant's queued runs, or go on at once. Running ones finish. Raises ``NotFound``."""
        await self._steer(actor, tenant_id, "pause", paused=paused)

    async def drain(self, actor: TenantContext, tenant_id: TenantId, draining: bool) -> None:
        """Refuse what a tenant submits from now on, or take it again. What is queued goes on. Raises ``NotFound``."""
        await self._steer(actor, tenant_id, "drain", draining=draining)

    async def cap_platform(self, actor: TenantContext, cap: int | None) -> None:
        """Hold at most ``cap`` slots on the whole platform (None: as many as workers have). Running runs finish.

        Raises ``InvalidInput`` for less than 0 and more than ``MAX_PLATFORM_CAP``.
        """
        actor.require(Scope.PLATFORM_OPERATE)
        if cap is not None and not 0 <= cap <= MAX_PLATFORM_CAP:
            raise InvalidInput(f"A cap of the platform is 0 to {MAX_PLATFORM_CAP:,} slots.")
        async with self._db.control_transaction() as tx:
            was = await store.set_platform_cap(tx, cap)
        await self._bus.signal(Topic.WORKERS)
        await self._audit.append(actor, "platform.cap", "platform", {"cap": was}, {"cap": cap})

    async def _steer(self, actor: TenantContext, tenant_id: TenantId, act: str, **given: bool) -> None:
        actor.require(Scope.PLATFORM_OPERATE)
        async with self._db.control_transaction() as tx:
            before = await store.tenant(tx, tenant_id)
            if before is None or not await store.steer(tx, tenant_id, self._clock.now(), **given):
                raise NotFound("There is no such tenant.")
        await self._changed(tenant_id)
        was = {name: getattr(before, name) for name in given}
        await self._audit_over(actor, tenant_id, f"tenant.{act}", f"tenant:{tenant_id}", was, given)

    async def _changed(self, tenant_id: TenantId) -> None:
        """What decides about queued runs is another now: whoever could start some looks at once."""
        self._known.forget(tenant_id)
        await self._bus.signal(Topic.WORKERS)

    async def issue_key(self, ctx: TenantContext, label: str, scopes: tuple[Scope, ...]) -> str:
        """A new API key of the caller's tenant, shown once. Nobody hands out rights they do not have."""
        ctx.require(Scope.TENANT_WRITE)
        if missing := [scope for scope in scopes if scope not in ctx.scopes]:
            raise Forbidden("A key cannot have rights you do not have.", scopes=[s.value for s in missing])
        if not label.strip() or len(label) > 100:
            raise InvalidInput("A key needs a label of at most 100 characters.")
        now = self._clock.now()
        key_id, secret = new_id("key", now).removeprefix("key_"), new_token()
        async with self._db.tenant_transaction(ctx) as tx:
            await store.insert_api_key(
                tx, ctx.tenant_id, key_id, hash_token(secret), label, tuple(scopes), ctx.actor, now
            )
            await self._audit.record(tx, ctx, "key.issue", f"key:{key_id}", after={"scopes": list(scopes)})
        return f"{KEY_PREFIX}_{key_id}_{secret}"

    async def list_keys(self, ctx: TenantContext) -> list[ApiKeyView]:
        """All keys of the caller's tenant, without secrets."""
        ctx.require(Scope.TENANT_READ)
        async with self._db.tenant_transaction(ctx) as tx:
            return await store.list_api_keys(tx)

    async def revoke_key(self, ctx: TenantContext, key_id: str) -> None:
        """Make a key useless at once. Raises ``NotFound`` for unknown and already revoked keys."""
        ctx.require(Scope.TENANT_WRITE)
        async with self._db.tenant_transaction(ctx) as tx:
            if not await store.revoke_api_key(tx, key_id, self._clock.now()):
                raise NotFound("There is no such key.")
            await self._audit.record(tx, ctx, "key.revoke", f"key:{key_id}")
        await self._bus.publish(ctx.tenant_id, IDENTITY, {})

    def _require_over(self, actor: TenantContext, tenant_id: TenantId) -> None:
        if Scope.PLATFORM_OPERATE in actor.scopes:
            return
        actor.require(Scope.TENANT_WRITE)
        if actor.tenant_id != tenant_id:
            raise NotFound("There is no such tenant.")

    async def _audit_over(
        self, actor: TenantContext, tenant_id: TenantId, act: str, subject: str, before: object, after: object
    ) -> None:
        """An operator's act on a tenant stands in that tenant's audit, under the operator's name."""
        target = await self.context_for(tenant_id, actor_kind=actor.actor_kind, actor_id=actor.actor_id)
        await self._audit.append(target, act, subject, before, after)


def _check_roles(tenant_id: TenantId, roles: tuple[Role, ...]) -> None:
    if any((role in OF_PLATFORM) != (tenant_id == PLATFORM) for role in roles):
        raise InvalidInput("Operators and pool reviewers belong to the tenant platform, and nobody else does.")

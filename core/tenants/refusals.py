"""What was refused, written to the audit of the organisations it was about: logins, and requests to the API.

That happens after the answer was given: a refused login must take as long for an account that exists as for one that
does not. A process that dies in between loses the entry; the count of failed logins, which locks the account, stands
before the answer. Many refusals become one entry with a count (``core.audit.floods``). An e-mail that nobody has
belongs to no organisation, so nothing is written about it; a request of somebody unknown is written to the platform's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from core.audit.floods import Floods
from core.audit.service import AuditService
from core.ids import TenantId
from core.tenancy import PLATFORM, ActorKind, TenantContext
from core.tenants.store import Account


class Contexts(Protocol):
    """Makes the context of something that acts for an organisation."""

    async def __call__(self, tenant_id: TenantId, *, actor_kind: ActorKind, actor_id: str) -> TenantContext:
        """Under the policy in force."""
        ...


class Refusals:
    """What is still to be written. One per process."""

    def __init__(self, audit: AuditService, context_for: Contexts) -> None:
        self._audit = audit
        self._context_for = context_for
        self._floods = Floods()

    def tell(self, accounts: Iterable[Account], act: str = "session.refuse") -> None:
        """Write soon that a login was refused to each of these, or (``session.lock``) was not even tried."""
        for account in accounts:
            self._login(account, act)

    def request(self, ctx: TenantContext | None, code: str, route: str) -> None:
        """Write soon that a request was refused; None: nobody knows whose it was."""
        actor = "anonymous" if ctx is None else ctx.actor
        tenant_id = PLATFORM if ctx is None else ctx.tenant_id

        async def write(count: int) -> None:
            who = ctx or await self._context_for(PLATFORM, actor_kind=ActorKind.SYSTEM, actor_id="anonymous")
            await self._audit.append(who, "request.refuse", f"route:{route}", after={"code": code, "count": count})

        self._floods.tell((tenant_id, actor, code, route), write)

    async def settled(self) -> None:
        """Write what is counted, and wait until all is written."""
        await self._floods.settled()

    def _login(self, account: Account, act: str) -> None:
        async def write(count: int) -> None:
            ctx = await self._context_for(account.tenant_id, actor_kind=ActorKind.SYSTEM, actor_id="login")
            await self._audit.append(ctx, act, f"user:{account.user_id}", after={"count": count})

        self._floods.tell((account.tenant_id, account.user_id, act), write)

"""Refused logins, written to the audit of the organisations whose people they were about.

That happens after the answer was given: a refusal must take as long for an account that exists as for one that does
not. A process that dies in between loses the entry; the count of failed logins, which locks the account, stands before
the answer. An e-mail that nobody has belongs to no organisation, so nothing is written about it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

import structlog

from core.audit.service import AuditService
from core.ids import TenantId
from core.tenancy import ActorKind, TenantContext
from core.tenants.store import Account

log = structlog.get_logger(__name__)


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
        self._open: set[asyncio.Task[None]] = set()

    def tell(self, accounts: Iterable[Account]) -> None:
        """Write soon that a login was refused to each of these."""
        for account in accounts:
            task = asyncio.create_task(self._write(account))
            self._open.add(task)
            task.add_done_callback(self._written)

    async def settled(self) -> None:
        """Wait until all is written."""
        while self._open:
            await asyncio.gather(*self._open, return_exceptions=True)

    async def _write(self, account: Account) -> None:
        ctx = await self._context_for(account.tenant_id, actor_kind=ActorKind.SYSTEM, actor_id="login")
        await self._audit.append(ctx, "session.refuse", f"user:{account.user_id}")

    def _written(self, task: asyncio.Task[None]) -> None:
        self._open.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            log.warning("audit.not_written", act="session.refuse", problem=repr(problem))

"""Removes what tenants' policies keep no longer: sealed entries of the audit."""

from __future__ import annotations

import structlog

from core.bootstrap import Platform
from core.tenancy import ActorKind

log = structlog.get_logger(__name__)


async def forget_old_acts(platform: Platform) -> None:
    """Let every tenant's audit begin where its policy says; each removal stands in that tenant's audit."""
    for tenant_id in await platform.audit.expired():
        ctx = await platform.tenants.context_for(tenant_id, actor_kind=ActorKind.SCHEDULER, actor_id="retention")
        if removed := await platform.audit.expire(ctx):
            log.info("audit.expired", tenant_id=tenant_id, entries=removed)

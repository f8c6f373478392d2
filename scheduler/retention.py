"""Removes what tenants' policies keep no longer: sealed entries of the audit."""

from __future__ import annotations

import structlog

from core.audit.service import AuditService
from core.tenancy import ActorKind
from core.tenants.service import TenantService

log = structlog.get_logger(__name__)


async def forget_old_acts(audit: AuditService, tenants: TenantService) -> None:
    """Let every tenant's audit begin where its policy says; each removal stands in that tenant's audit."""
    for tenant_id in await audit.expired():
        ctx = await tenants.context_for(tenant_id, actor_kind=ActorKind.SCHEDULER, actor_id="retention")
        if removed := await audit.expire(ctx):
            log.info("audit.expired", tenant_id=tenant_id, entries=removed)

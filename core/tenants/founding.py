"""Setting up an installation: whoever has its settings adds organisations and people before anybody can log in."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from core.errors import SetupError
from core.ids import TenantId
from core.tenancy import PLATFORM, ActorKind, Policy, Role, Scope, TenantContext
from core.tenants.service import TenantService


async def found(tenants: TenantService, region: str, actor_id: str) -> tuple[TenantContext, bool]:
    """The context of whoever sets up this installation; whether the operators' tenant was made just now."""
    founder = TenantContext(
        tenant_id=PLATFORM,
        user_id=None,
        actor_kind=ActorKind.SYSTEM,
        actor_id=actor_id,
        scopes=frozenset({Scope.PLATFORM_OPERATE}),
        policy=Policy(),
        policy_version=1,
        org_id=PLATFORM,
        region=region,
    )
    return founder, await tenants.create_tenant(founder, PLATFORM, "Platform", PLATFORM, region, Policy())


def read_policy(path: Path) -> Policy:
    """A policy from a file of JSON. Raises ``SetupError`` with all that is wrong in it."""
    try:
        return Policy.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SetupError(f"The policy cannot be read: {error}") from error
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, wrong['loc'])) or 'policy'}: {wrong['msg']}" for wrong in error.errors())
        raise SetupError(f"{path} is no policy: {'; '.join(faults)}") from error


async def add_tenant(tenants: TenantService, region: str, tenant_id: str, name: str, policy: Policy) -> bool:
    """Add an organisation in this region; False when it exists. Raises ``InvalidInput``."""
    founder, _ = await found(tenants, region, "cli")
    return await tenants.create_tenant(founder, TenantId(tenant_id), name, tenant_id, region, policy)


async def add_person(
    tenants: TenantService, region: str, tenant_id: str, email: str, name: str, role: Role, password: str
) -> bool:
    """Add somebody to an organisation, operators to ``platform``; False when the e-mail is taken there.

    Raises ``NotFound``, ``InvalidInput``.
    """
    founder, _ = await found(tenants, region, "cli")
    return await tenants.add_user(founder, TenantId(tenant_id), email, name, password, (role,))

"""The caller's own organisation: its rules, what it uses, its keys; and who the caller is."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field

from chat_app.api import PREFIX, Caller, Id, Person, Services, api_router, needs
from chat_app.auth import session_token
from chat_app.routes.run_models import LaneName, lane_name
from core.db.queries import load_queries
from core.errors import NotFound
from core.runs.model import Lane
from core.tenancy import Policy, Role, Scope

SQL = load_queries(__file__)

router = api_router("Tenant")
keys = api_router("API keys")


class MeOut(BaseModel):
    """Who calls."""

    tenant_id: str
    tenant_name: str
    actor: str = Field(description="As the audit shows it, e.g. `api_key:06g2…`.")
    scopes: list[Scope]
    user_id: str | None
    email: str | None
    name: str | None
    roles: list[Role]
    session_expires_at: datetime | None
    csrf_token: str | None = Field(description="For acts by session: send it as the header X-CSRF-Token.")


class BudgetOut(BaseModel):
    """The month's budget, in micro-USD."""

    limit_microusd: int
    reserved_microusd: int
    spent_microusd: int
    left_microusd: int


class UsageOut(BaseModel):
    """What is used now."""

    queued: int
    queued_by_lane: dict[LaneName, int]
    running: int
    concurrency_cap: int
    burst_debt_s: float = Field(
        description="Worker-seconds used over the cap and not paid back yet; bursts end at the policy's burst_credit_s."
    )
    waiting_by_cause: dict[str, int]
    runs_today: int
    daily_runs: int
    reviews_open: int
    reviews_overdue: int


class TenantOut(BaseModel):
    """The caller's organisation."""

    tenant_id: str
    name: str
    org_id: str
    region: str
    paused: bool = Field(description="The operator lets none of its queued runs start.")
    draining: bool = Field(description="The operator lets it run dry: nothing new is taken, queued runs go on.")
    policy_version: int
    policy: Policy
    usage: UsageOut
    budget: BudgetOut


class PolicyOut(BaseModel):
    """The policy now in force."""

    policy_version: int
    policy: Policy


class StepCostOut(BaseModel):
    """What a step has cost, and how good its estimates were. Money in micro-USD."""

    model_config = ConfigDict(from_attributes=True)

    workflow: str
    step: str
    settled: int = Field(description="Attempts that ended with a result.")
    p95_microusd: int = Field(description="Of the last 64 of them: what a step that declares no estimate reserves.")
    exceeded_share: float = Field(description="How many of them cost more than was reserved at first.")
    mean_overshoot_microusd: int = Field(description="By how much these did.")


class EstimatesOut(BaseModel):
    """Steps that have cost something, those that ended most often first."""

    steps: list[StepCostOut]


class KeyIn(BaseModel):
    """A key to issue."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"label": "Loan intake", "scopes": ["runs:read", "runs:write"]}]},
    )

    label: str = Field(min_length=1, max_length=100)
    scopes: list[Scope] = Field(min_length=1, max_length=len(Scope))


class KeyIssuedOut(BaseModel):
    """A new key."""

    key: str = Field(description="Shown once; only its hash is kept.")
    key_id: str
    label: str
    scopes: list[str]


class KeyOut(BaseModel):
    """A key without its secret."""

    model_config = ConfigDict(from_attributes=True)

    key_id: str
    label: str
    scopes: list[str]
    created_at: datetime
    revoked_at: datetime | None


class KeysOut(BaseModel):
    """All keys of the tenant."""

    keys: list[KeyOut]


@router.get("/me", **needs(None))
async def get_me(request: Request, caller: Caller, person: Person, services: Services) -> MeOut:
    """Who the caller is and what they may do."""
    token = session_token(request.headers) if person is not None else None
    tenant = await services.platform.tenants.tenant(caller.tenant_id)
    return MeOut(
        tenant_id=caller.tenant_id,
        tenant_name=tenant.name,
        actor=caller.actor,
        scopes=sorted(caller.scopes),
        user_id=caller.user_id,
        email=person.email if person else None,
        name=person.name if person else None,
        roles=list(person.roles) if person else [],
        session_expires_at=person.expires_at if person else None,
        csrf_token=services.auth.csrf_token(token) if token else None,
    )


@router.get("/tenant", **needs(Scope.TENANT_READ))
async def get_tenant(caller: Caller, services: Services) -> TenantOut:
    """The organisation: its policy, what it uses now, and the month's budget."""
    platform = services.platform
    tenant = await platform.tenants.tenant(caller.tenant_id)
    async with platform.db.tenant_transaction(caller) as tx:
        now = await tx.fetchrow(SQL["usage"], platform.clock.now())
        balance = await platform.usage.balance_in(tx, caller)
    if now is None:
        raise NotFound("There is no such tenant.")
    waiting: dict[str, Any] = now["waiting"]
    return TenantOut(
        tenant_id=tenant.tenant_id,
        name=tenant.name,
        org_id=tenant.org_id,
        region=tenant.region,
        paused=tenant.paused,
        draining=tenant.draining,
        policy_version=tenant.policy_version,
        policy=tenant.policy,
        usage=UsageOut(
            queued=now["queued"],
            queued_by_lane={lane_name(Lane(int(lane))): count for lane, count in now["lanes"].items()},
            running=now["running"],
            concurrency_cap=now["cap"],
            burst_debt_s=round(now["debt_s"], 3),
            waiting_by_cause=waiting,
            runs_today=now["runs_today"],
            daily_runs=tenant.policy.daily_runs,
            reviews_open=now["reviews_open"],
            reviews_overdue=now["reviews_overdue"],
        ),
        budget=BudgetOut(
            limit_microusd=balance.limit_microusd,
            reserved_microusd=balance.reserved_microusd,
            spent_microusd=balance.spent_microusd,
            left_microusd=balance.left_microusd,
        ),
    )


@router.get("/tenant/estimates", **needs(Scope.TENANT_READ))
async def get_estimates(caller: Caller, services: Services) -> EstimatesOut:
    """What steps have cost, from which estimates are learned, and how often these were too small."""
    found = await services.platform.usage.step_costs(caller)
    return EstimatesOut(steps=[StepCostOut.model_validate(each) for each in found])


@router.put("/tenant/policy", **needs(Scope.TENANT_WRITE, body=True))
async def put_policy(body: Policy, caller: Caller, services: Services) -> PolicyOut:
    """Put a new policy in force. Weight, caps, quotas, budgets and regions are the operator's: 403."""
    version = await services.platform.tenants.change_policy(caller, caller.tenant_id, body)
    return PolicyOut(policy_version=version, policy=body)


@keys.get("/api-keys", **needs(Scope.TENANT_READ))
async def list_keys(caller: Caller, services: Services) -> KeysOut:
    """All keys of the tenant, without their secrets; revoked ones too."""
    found = await services.platform.tenants.list_keys(caller)
    return KeysOut(keys=[KeyOut.model_validate(key) for key in found])


@keys.post("/api-keys", status_code=201, **needs(Scope.TENANT_WRITE, body=True))
async def issue_key(body: KeyIn, response: Response, caller: Caller, services: Services) -> KeyIssuedOut:
    """Issue a key. 403: it would have rights the caller does not have."""
    scopes = tuple(dict.fromkeys(body.scopes))
    key = await services.platform.tenants.issue_key(caller, body.label, scopes)
    key_id = key.split("_")[1]
    response.headers["Location"] = f"{PREFIX}/api-keys/{key_id}"
    return KeyIssuedOut(key=key, key_id=key_id, label=body.label, scopes=[scope.value for scope in scopes])


@keys.delete("/api-keys/{key_id}", status_code=204, **needs(Scope.TENANT_WRITE, NotFound))
async def revoke_key(key_id: Id, caller: Caller, services: Services) -> None:
    """Make a key useless at once."""
    await services.platform.tenants.revoke_key(caller, key_id)

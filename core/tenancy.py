"""Who acts, for which tenant, under which policy: the first argument of everything.

A ``TenantContext`` is made in four places only: at login (session), at an API key, by a worker for the run
it claimed, and for what starts runs by itself (schedule, poller, trigger). Everything that touches a tenant's
data takes one, so that forgetting the tenant is a type error rather than a leak.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from core.errors import Forbidden
from core.ids import TenantId, UserId

PLATFORM = TenantId("platform")
"""The reserved tenant of the operators. It has users, and nothing else."""

TENANT_ID = re.compile(r"[a-z0-9][a-z0-9-]{1,62}")
"""What a tenant's id looks like, whole; the database holds the same rule."""


class Role(StrEnum):
    """What a person is in their tenant. The last two exist in the tenant ``platform``, and only there."""

    MEMBER = "member"
    REVIEWER = "reviewer"
    ADMIN = "admin"
    OPERATOR = "operator"
    POOL_REVIEWER = "pool-reviewer"


OF_PLATFORM = frozenset({Role.OPERATOR, Role.POOL_REVIEWER})


class Scope(StrEnum):
    """A single right. API keys carry scopes directly, people get them by role."""

    RUNS_READ = "runs:read"
    RUNS_WRITE = "runs:write"
    REVIEWS_READ = "reviews:read"
    REVIEWS_DECIDE = "reviews:decide"
    SCHEDULES_READ = "schedules:read"
    SCHEDULES_WRITE = "schedules:write"
    MEMORY_READ = "memory:read"
    MEMORY_WRITE = "memory:write"
    CHAT = "chat"
    TENANT_READ = "tenant:read"
    TENANT_WRITE = "tenant:write"
    PLATFORM_OPERATE = "platform:operate"


_MEMBER = frozenset(
    {
        Scope.RUNS_READ,
        Scope.RUNS_WRITE,
        Scope.CHAT,
        Scope.MEMORY_READ,
        Scope.MEMORY_WRITE,
        Scope.SCHEDULES_READ,
        Scope.SCHEDULES_WRITE,
        Scope.REVIEWS_READ,
    }
)
_REVIEWER = _MEMBER | {Scope.REVIEWS_DECIDE}
_ADMIN = _REVIEWER | {Scope.TENANT_READ, Scope.TENANT_WRITE}
ROLE_SCOPES: dict[Role, frozenset[Scope]] = {
    Role.MEMBER: _MEMBER,
    Role.REVIEWER: _REVIEWER,
    Role.ADMIN: _ADMIN,
    Role.OPERATOR: frozenset({Scope.PLATFORM_OPERATE}),
    Role.POOL_REVIEWER: frozenset({Scope.REVIEWS_READ, Scope.REVIEWS_DECIDE}),
}


class Tier(StrEnum):
    """Commercial tier of a tenant."""

    ENTERPRISE = "enterprise"
    STANDARD = "standard"
    FREE = "free"


class ModelTier(StrEnum):
    """Class of model a tenant's agents may use by default."""

    SMALL = "small"
    LARGE = "large"


class RateLimit(BaseModel):
    """At most ``limit`` calls in any ``window_s`` seconds, wherever they begin.

    The time of each of the last ``limit`` calls is kept, some 11 bytes a call: the bound of ``limit`` keeps
    one limit of one tenant within about a megabyte. Whoever allows more names a shorter window.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    limit: int = Field(ge=1, le=100_000)
    window_s: int = Field(ge=1, le=31 * 86_400)


Share = Annotated[float, Field(ge=0, le=1)]


class Policy(BaseModel):
    """A tenant's versioned rules. Money in micro-USD, time in seconds.

    Every number has an upper bound: what no column holds would stop whoever reads the rules of all tenants. A weight
    has a lower one, too: worker-seconds are divided by it, and an overflow would stop the claims of all tenants.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tier: Tier = Tier.FREE
    weight: Annotated[float, Field(ge=0.001, le=1000)] = 1.0
    concurrency_cap: Annotated[int, Field(ge=1, le=100_000)] = 3
    burst_slots: Annotated[
        int, Field(ge=0, le=100_000, description="Slots over the cap, lent while nobody else could use them.")
    ] = 0
    burst_credit_s: Annotated[
        float, Field(ge=0, le=1e9, description="Worker-seconds over the cap after which it is paid back first.")
    ] = 0.0
    user_cap: Annotated[int | None, Field(ge=1, le=100_000, description="Runs that one user may execute at once.")] = (
        None
    )
    workflow_caps: dict[str, Annotated[int, Field(ge=0, le=100_000)]] = Field(
        default_factory=dict, description="Runs of one workflow that may execute at once."
    )
    queue_depth: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    open_runs: Annotated[
        int | None,
        Field(
            ge=1,
            le=100_000_000,
            description="Runs that may be open at once: queued, executing or parked. None: no limit.",
        ),
    ] = None
    daily_runs: Annotated[int, Field(ge=0, le=100_000_000)] = 10_000
    max_steps: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    max_duration_s: Annotated[int, Field(ge=1, le=366 * 86_400)] = 90 * 86_400
    max_recoveries: Annotated[
        int, Field(ge=0, le=1_000, description="Executions of a run that may die with their worker, or break.")
    ] = 5
    rate_limits: dict[str, RateLimit] = Field(default_factory=dict)
    budget_run_microusd: Annotated[int, Field(ge=0, le=10**15)] = 100_000
    budget_month_microusd: Annotated[int, Field(ge=0, le=10**15)] = 100_000_000
    budget_cheaper_at: Share = Field(0.8, description="Share of a budget over which a cheaper model answers.")
    budget_skip_at: Share = Field(0.9, description="Share of a budget over which optional steps are skipped.")
    budget_ask_at: Share = Field(1.0, description="Share of a budget over which people are asked, once a run.")
    budget_class: str = "default"
    model_tier: ModelTier = ModelTier.SMALL
    regions: tuple[str, ...] = Field((), description="Where data and model calls may go; empty: no constraint.")
    allowed_tools: tuple[str, ...] = Field((), description="Empty: all registered tools.")
    denied_tools: tuple[str, ...] = ()
    reviewer_pool: Literal["dedicated", "shared"] = "shared"
    review_sla_s: Annotated[int, Field(ge=1, le=366 * 86_400)] = 24 * 3600
    run_sla_s: Annotated[int, Field(ge=1, le=366 * 86_400)] = 24 * 3600
    audit_retention_days: Annotated[int, Field(ge=1, le=36_500)] = 7 * 365
    blob_bytes: Annotated[int, Field(ge=0, le=2**50, description="Bytes of blobs that may be kept.")] = 1024**3
    blob_retention_days: Annotated[int, Field(ge=1, le=36_500, description="How long a blob is kept.")] = 90
    timezone: str = "UTC"

    @field_validator("timezone")
    @classmethod
    def _zone_is_known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
            known = name[:1].isupper()  # what a machine calls its own zone is not one: Postgres does not know it
        except (ValueError, OSError, KeyError):
            known = False
        if not known:
            raise ValueError(f"There is no time zone {name!r}.")
        return name

    @model_validator(mode="after")
    def _ladder_ascends(self) -> Self:
        if not self.budget_cheaper_at <= self.budget_skip_at <= self.budget_ask_at:
            raise ValueError("The ladder ascends: budget_cheaper_at <= budget_skip_at <= budget_ask_at.")
        return self

    def allows_tool(self, name: str) -> bool:
        """Denials win over allowances."""
        return name not in self.denied_tools and (not self.allowed_tools or name in self.allowed_tools)


class ActorKind(StrEnum):
    """What kind of thing acts."""

    USER = "user"
    API_KEY = "api_key"
    RUN = "run"
    SCHEDULER = "scheduler"
    TRIGGER = "trigger"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class TenantContext:
    """Who acts for which tenant, with which rights, under which policy version.

    ``actor`` is what the audit shows, e.g. ``user:usr_…`` or ``run:run_…``.
    """

    tenant_id: TenantId
    user_id: UserId | None
    actor_kind: ActorKind
    actor_id: str
    scopes: frozenset[Scope]
    policy: Policy
    policy_version: int
    org_id: str
    region: str

    @property
    def actor(self) -> str:
        """``kind:id``, as written to the audit."""
        return f"{self.actor_kind}:{self.actor_id}"

    def require(self, scope: Scope) -> None:
        """Raise ``Forbidden`` unless this context carries ``scope``."""
        if scope not in self.scopes:
            raise Forbidden(f"This needs the right {scope.value}.", scope=scope.value)


def scopes_of(roles: tuple[Role, ...]) -> frozenset[Scope]:
    """The union of the rights of all roles."""
    return frozenset().union(*(ROLE_SCOPES[role] for role in roles)) if roles else frozenset()

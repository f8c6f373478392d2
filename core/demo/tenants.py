"""The demo's organisations and people. ``python -m core.demo.tenants`` makes what is missing and prints a table.

Safe to repeat: an organisation, a person, a key or a poller that exists is left as it is, with whatever an
operator changed since. The API keys are written to ``demo-keys.json`` in the home folder, readable by its
owner only, and printed nowhere.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict, dataclass, field

from core.bootstrap import Platform, open_platform
from core.demo.keys import keys_path, read_keys
from core.embedded.secrets import write_secret
from core.embedded.servers import complete
from core.errors import BailiwickError, Unauthenticated
from core.ids import TenantId
from core.settings import Settings
from core.tenancy import (
    PLATFORM,
    ROLE_SCOPES,
    ActorKind,
    ModelTier,
    Policy,
    RateLimit,
    Role,
    Scope,
    TenantContext,
    Tier,
)
from core.tenants.founding import found
from core.usage.model import usd

PASSWORD = "bailiwick-demo"  # noqa: S105 - everybody may know it: it opens the demo, and README says where not to seed it
KEY_SCOPES = (Scope.RUNS_READ, Scope.RUNS_WRITE, Scope.REVIEWS_READ, Scope.SCHEDULES_READ)
POLLER_NAME = "Lending guidelines"
POLL_INTERVAL_S = 30

_HOUR_S = 3_600
_DAY_S = 24 * _HOUR_S


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who can log in."""

    first_name: str
    role: Role

    def email(self, domain: str) -> str:
        """Where they log in from."""
        return f"{self.first_name.lower()}@{domain}"


_MIA, _RAVI, _ADA = Person("Mia", Role.MEMBER), Person("Ravi", Role.REVIEWER), Person("Ada", Role.ADMIN)
STAFF = (Person("Olga", Role.OPERATOR), Person("Pia", Role.POOL_REVIEWER))
OPERATOR_DOMAIN = "platform.example"


@dataclass(frozen=True, slots=True)
class Organisation:
    """A demo tenant."""

    tenant_id: TenantId
    name: str
    policy: Policy
    people: tuple[Person, ...] = (_MIA, _RAVI, _ADA)
    polls_feed: bool = False

    @property
    def domain(self) -> str:
        """The part of the e-mail addresses after the @."""
        return f"{self.tenant_id}.example"


def organisations(region: str) -> tuple[Organisation, ...]:
    """The three demo tenants, living in this region; only the bank is bound to it."""
    bank = Policy(
        tier=Tier.ENTERPRISE,
        weight=5,
        concurrency_cap=50,
        queue_depth=50_000,
        daily_runs=100_000,
        rate_limits={"credit-bureau": RateLimit(limit=500, window_s=_HOUR_S)},
        budget_run_microusd=usd("2.00"),
        budget_month_microusd=usd("5000"),
        budget_class="enterprise",
        model_tier=ModelTier.LARGE,
        regions=(region,),
        reviewer_pool="dedicated",
        review_sla_s=4 * _HOUR_S,
        run_sla_s=4 * _HOUR_S,
        timezone="America/New_York",
    )
    union = Policy(
        tier=Tier.STANDARD,
        weight=2,
        concurrency_cap=10,
        queue_depth=10_000,
        daily_runs=20_000,
        rate_limits={"credit-bureau": RateLimit(limit=50, window_s=_HOUR_S)},
        budget_run_microusd=usd("0.50"),
        budget_month_microusd=usd("500"),
        budget_class="standard",
        review_sla_s=_DAY_S,
        run_sla_s=_DAY_S,
        timezone="America/Chicago",
    )
    # "Best effort" is no promise; a week is when a reminder is due all the same.
    startup = Policy(
        tier=Tier.FREE,
        weight=1,
        concurrency_cap=3,
        queue_depth=5_000,
        daily_runs=5_000,
        rate_limits={"credit-bureau": RateLimit(limit=10, window_s=_HOUR_S)},
        budget_run_microusd=usd("0.10"),
        budget_month_microusd=usd("50"),
        budget_class="free",
        review_sla_s=7 * _DAY_S,
        run_sla_s=7 * _DAY_S,
        timezone="America/Los_Angeles",
    )
    team = (_MIA, _RAVI, Person("Rosa", Role.REVIEWER), Person("Remy", Role.REVIEWER), _ADA)
    return (
        Organisation(TenantId("regional-bank"), "Regional Bank", bank, team, polls_feed=True),
        Organisation(TenantId("credit-union"), "Credit Union", union),
        Organisation(TenantId("fintech-startup"), "Fintech Startup", startup),
    )


@dataclass(frozen=True, slots=True)
class Login:
    """A row of the table that is printed."""

    organisation: str
    tenant_id: str
    role: str
    email: str


@dataclass(frozen=True, slots=True)
class Seeded:
    """What the demo consists of now; ``created`` names what this call added."""

    logins: tuple[Login, ...]
    keys_file: str
    created: tuple[str, ...] = field(default=())


async def seed(platform: Platform) -> Seeded:
    """Make what is missing of the demo."""
    settings = platform.settings
    created: list[str] = []
    operator = await _platform_tenant(platform, created)
    keys = read_keys(settings)
    logins = [Login("Platform", PLATFORM, person.role, person.email(OPERATOR_DOMAIN)) for person in STAFF]
    for one in organisations(settings.region):
        if await platform.tenants.create_tenant(
            operator, one.tenant_id, one.name, one.tenant_id, settings.region, one.policy
        ):
            created.append(one.name)
        await _people(platform, operator, one.tenant_id, one.domain, one.people, created)
        admin = await platform.tenants.context_for(
            one.tenant_id, actor_kind=ActorKind.SYSTEM, actor_id="seed", scopes=ROLE_SCOPES[Role.ADMIN]
        )
        if not await _is_key_of(platform, keys.get(one.tenant_id), admin):
            keys[one.tenant_id] = await platform.tenants.issue_key(admin, "demo", KEY_SCOPES)
            created.append(f"API key of {one.name}")
        if one.polls_feed and await _poller(platform, admin):
            created.append(f"Poller of {one.name}")
        logins += [Login(one.name, one.tenant_id, person.role, person.email(one.domain)) for person in one.people]
    write_secret(keys_path(settings), json.dumps(keys, indent=1))
    return Seeded(tuple(logins), str(keys_path(settings)), tuple(created))


async def _platform_tenant(platform: Platform, created: list[str]) -> TenantContext:
    operator, new = await found(platform.tenants, platform.settings.region, "seed")
    if new:
        created.append("Platform")
    await _people(platform, operator, PLATFORM, OPERATOR_DOMAIN, STAFF, created)
    return operator


async def _people(
    platform: Platform,
    operator: TenantContext,
    tenant_id: TenantId,
    domain: str,
    people: tuple[Person, ...],
    created: list[str],
) -> None:
    async def add(person: Person) -> None:
        email = person.email(domain)
        if await platform.tenants.add_user(operator, tenant_id, email, person.first_name, PASSWORD, (person.role,)):
            created.append(email)

    await asyncio.gather(*map(add, people))


async def _is_key_of(platform: Platform, key: str | None, admin: TenantContext) -> bool:
    if key is None:
        return False
    try:
        return (await platform.tenants.identify_key(key)).tenant_id == admin.tenant_id
    except Unauthenticated:
        return False


async def _poller(platform: Platform, admin: TenantContext) -> bool:
    """Watch the demo's own feed; False when the tenant has a poller of this name already."""
    if POLLER_NAME in {poller.name for poller in await platform.pollers.list(admin)}:
        return False
    await platform.pollers.create(
        admin,
        name=POLLER_NAME,
        url=platform.settings.service_url("feed"),
        workflow="feed-changed",
        interval_s=POLL_INTERVAL_S,
    )
    return True


def as_text(seeded: Seeded) -> str:
    """What a person needs to begin."""
    rows = [("Organisation", "Role", "E-mail"), *((one.organisation, one.role, one.email) for one in seeded.logins)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append(f"Password of all: {PASSWORD}")
    lines.append(f"API keys: {seeded.keys_file}")
    return "\n".join(lines)


async def run(settings: Settings) -> Seeded:
    """Seed the installation of these settings."""
    async with open_platform(complete(settings), process="seed") as platform:
        return await seed(platform)


def main(arguments: list[str]) -> int:
    """Seed, and print a table or (``--json``) one JSON object; 1 with one clear line when it cannot be done."""
    try:
        seeded = asyncio.run(run(Settings()))
    except BailiwickError as error:
        sys.stderr.write(f"seed: {error.message}\n")
        return 1
    sys.stdout.write((json.dumps(asdict(seeded)) if "--json" in arguments else as_text(seeded)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Seeding the demo: repeatable, with the policies that were promised."""

from __future__ import annotations

import json
import stat
import sys
from dataclasses import replace

import pytest

from core.bootstrap import open_platform
from core.demo.keys import KEYS_FILE, read_keys
from core.demo.tenants import PASSWORD, organisations, run
from core.embedded.environment import environment_for
from core.embedded.process import Process, Reaper
from core.errors import Forbidden
from core.ids import TenantId
from core.settings import Port, Settings
from core.tenancy import PLATFORM, ROLE_SCOPES, ActorKind, Role, Scope


@pytest.fixture
def demo(settings: Settings) -> Settings:
    """Settings as ``bailiwick up`` makes them: the demo's feed may be polled."""
    return settings.model_copy(update={"allowed_private_hosts": (f"127.0.0.1:{settings.port(Port.DEMO)}",)})


def test_the_policies_are_those_of_the_demo_table() -> None:
    table = {
        one.tenant_id: (
            one.policy.weight,
            one.policy.concurrency_cap,
            one.policy.budget_run_microusd / 1e6,
            one.policy.rate_limits["credit-bureau"].limit,
            one.policy.model_tier,
            one.policy.reviewer_pool,
            one.policy.regions,
            sum(person.role is Role.REVIEWER for person in one.people),
        )
        for one in organisations("us-east-1")
    }
    assert table == {
        "regional-bank": (5, 50, 2.00, 500, "large", "dedicated", ("us-east-1",), 3),
        "credit-union": (2, 10, 0.50, 50, "small", "shared", (), 1),
        "fintech-startup": (1, 3, 0.10, 10, "small", "shared", (), 1),
    }
    assert all(one.policy.rate_limits["credit-bureau"].window_s == 3600 for one in organisations("us-east-1"))


async def test_seeding_again_adds_what_is_missing_and_undoes_nothing(demo: Settings) -> None:
    first = await run(demo)
    keys = read_keys(demo)
    assert len(first.logins) == 13
    assert set(keys) == {"regional-bank", "credit-union", "fintech-startup"}
    assert stat.S_IMODE((demo.home / KEYS_FILE).stat().st_mode) == 0o600

    async with open_platform(demo, process="test") as platform:
        for login in first.logins:
            identity = (await platform.tenants.login(login.email, PASSWORD)).identity
            assert (identity.tenant_id, identity.roles) == (login.tenant_id, (Role(login.role),))
        operator = (await platform.tenants.login("olga@platform.example", PASSWORD)).identity
        assert operator.ctx.scopes == ROLE_SCOPES[Role.OPERATOR]
        bank = await platform.tenants.identify_key(keys["regional-bank"])
        assert bank.tenant_id == "regional-bank"
        with pytest.raises(Forbidden):
            bank.require(Scope.REVIEWS_DECIDE)
        pollers = await platform.pollers.list(bank)
        assert [(one.workflow, one.url) for one in pollers] == [("feed-changed", demo.service_url("feed"))]

        before = await platform.tenants.tenant(TenantId("regional-bank"))
        await platform.tenants.change_policy(
            operator.ctx, before.tenant_id, before.policy.model_copy(update={"concurrency_cap": 7})
        )
    damaged = {"regional-bank": keys["regional-bank"], "credit-union": "bw_unknown_key", "fintech-startup": 7}
    (demo.home / KEYS_FILE).write_text(json.dumps(damaged))
    again = await run(demo)
    assert again == replace(first, created=("API key of Credit Union", "API key of Fintech Startup"))
    assert read_keys(demo)["regional-bank"] == keys["regional-bank"]
    async with open_platform(demo, process="test") as platform:
        assert (await platform.tenants.tenant(TenantId("regional-bank"))).policy.concurrency_cap == 7
        system = await platform.tenants.context_for(PLATFORM, actor_kind=ActorKind.SYSTEM, actor_id="test")
        assert [
            one.tenant_id for one in await platform.tenants.list_tenants(replace(system, scopes=operator.ctx.scopes))
        ] == [
            "credit-union",
            "fintech-startup",
            "regional-bank",
        ]


async def test_the_command_prints_who_can_log_in_and_no_key(demo: Settings, reaper: Reaper) -> None:
    process = Process.start(
        "seed",
        [sys.executable, "-m", "core.demo.tenants", "--json"],
        log=demo.home / "logs" / "seed.log",
        reaper=reaper,
        env=environment_for(demo, secrets=("database_app_url", "redis_url", "secret_key")),
    )
    assert await process.wait() == 0, process.output()
    printed = json.loads(process.output())
    assert {"organisation", "tenant_id", "role", "email"} == set(printed["logins"][0])
    assert not [key for key in read_keys(demo).values() if key in process.output()]

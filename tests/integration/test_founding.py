"""Setting up an installation from the command line: its first organisation, and people who can log in."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from typer.testing import CliRunner, Result

from core.bootstrap import open_platform
from core.cli import app
from core.embedded.environment import environment_for
from core.errors import SetupError
from core.settings import Settings
from core.tenancy import Role

SECRETS = ("database_app_url", "redis_url", "secret_key", "graph_password")
PASSWORD = "a password of their own"


async def bailiwick(settings: Settings, *words: str) -> Result:
    """What the command line does; a password comes from standard input."""
    env = environment_for(settings, secrets=SECRETS)
    return await asyncio.to_thread(CliRunner().invoke, app, list(words), env=env, input=f"{PASSWORD}\n")


async def test_whoever_has_the_settings_adds_organisations_and_people_who_can_log_in(
    settings: Settings, tmp_path: Path
) -> None:
    policy = tmp_path / "bank.json"
    policy.write_text(json.dumps({"concurrency_cap": 50, "weight": 5}), "utf-8")
    ada = ("person", "ada@bank.example", "--name", "Ada", "--tenant", "bank", "--role", "admin")
    olga = ("person", "olga@host.example", "--name", "Olga", "--tenant", "platform", "--role", "operator")
    for words in (("tenant", "bank", "--name", "Bank", "--policy", str(policy)), ada, olga):
        result = await bailiwick(settings, *words)
        assert result.exit_code == 0, result.output
        assert PASSWORD not in result.output
        again = await bailiwick(settings, *words)
        assert isinstance(again.exception, SetupError)
    async with open_platform(settings, process="test") as platform:
        admin = (await platform.tenants.login("ada@bank.example", PASSWORD)).identity
        assert (admin.roles, admin.ctx.policy.concurrency_cap) == ((Role.ADMIN,), 50)
        operator = (await platform.tenants.login("olga@host.example", PASSWORD)).identity
        assert [one.tenant_id for one in await platform.tenants.list_tenants(operator.ctx)] == ["bank"]


async def test_a_policy_that_makes_no_sense_is_refused_before_anything_is_made(
    settings: Settings, tmp_path: Path
) -> None:
    policy = tmp_path / "bank.json"
    policy.write_text(json.dumps({"weight": -1, "wait": 5}), "utf-8")
    result = await bailiwick(settings, "tenant", "bank", "--name", "Bank", "--policy", str(policy))
    assert isinstance(result.exception, SetupError)
    assert "weight: " in str(result.exception)
    assert "wait: " in str(result.exception)

"""The dashboard as a process: what it says when it cannot start, and what its probes cost."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from core.embedded.environment import environment_for
from core.errors import NotFound, Unavailable
from core.settings import Port, Settings
from ops_dashboard import server
from ops_dashboard.bridge import Bridge
from ops_dashboard.server import PostgresCheck, login_url
from tests.fixtures.ports import free_port_base

SECRETS = ("database_app_url", "redis_url", "secret_key")


@pytest.fixture
def bridge(settings: Settings) -> Iterator[Bridge]:
    opened = Bridge(settings)
    yield opened
    opened.close()


def started(settings: Settings) -> tuple[int, str]:
    """Exit code and what a dashboard wrote that could not start."""
    ended = subprocess.run(
        [sys.executable, "-m", "ops_dashboard"],
        env=environment_for(settings, secrets=SECRETS),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.returncode, ended.stderr


def test_a_taken_port_and_a_missing_database_are_told_in_one_line(settings: Settings) -> None:
    base = free_port_base()
    nobody = f"postgresql://bailiwick_app:x@127.0.0.1:{base + Port.POSTGRES}/none"
    lonely = settings.model_copy(update={"port_base": base, "database_app_url": SecretStr(nobody)})
    code, said = started(lonely)
    assert code == 1
    assert said.startswith("dashboard: Postgres does not answer")
    assert len(said.splitlines()) == 1
    with socket.create_server(("127.0.0.1", lonely.port(Port.DASHBOARD))):
        code, said = started(lonely)
    assert code == 1
    assert said.startswith(f"dashboard: Port {lonely.port(Port.DASHBOARD)}")
    assert len(said.splitlines()) == 1


def test_work_crosses_the_bridge_with_its_errors_and_never_blocks_for_ever(bridge: Bridge) -> None:
    platform = bridge.platform
    assert bridge.run(platform.queue.next_wake()) is None
    with pytest.raises(NotFound):
        bridge.run(platform.tenants.tenant("nobody"))  # type: ignore[arg-type]
    with pytest.raises(Unavailable):
        bridge.run(asyncio.Event().wait(), timeout_s=0.05)


async def test_probes_ask_the_database_nothing_while_nobody_looks(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = PostgresCheck(bridge)
    await check()
    await bridge.run_here(bridge.platform.db.close())
    with pytest.raises(Unavailable):
        await PostgresCheck(bridge)()
    monkeypatch.setattr(server, "IDLE_AFTER_S", -1.0)  # nobody has looked for longer than that
    await check()


def test_the_login_keeps_the_host_the_page_was_asked_under_and_trusts_no_other(settings: Settings) -> None:
    web = settings.port(Port.WEB)
    page = f"http://localhost:{settings.port(Port.DASHBOARD)}/runs?state=failed"
    assert login_url(settings, page).startswith(f"http://localhost:{web}/login?next=http%3A%2F%2Flocalhost")
    assert login_url(settings, "http://evil.example/x").startswith(f"http://127.0.0.1:{web}/login")
    public = Settings(public_url="https://bank.example", dashboard_url="https://ops.bank.example")
    assert login_url(public, "http://dashboard:8101/runs?a=1") == (
        "https://bank.example/login?next=https%3A%2F%2Fops.bank.example%2Fruns%3Fa%3D1"
    )

"""``bailiwick up`` and ``bailiwick doctor``, as a person runs them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Iterator

import httpx
import psutil
import pytest

from core.settings import Port
from tests.fixtures.installation import BAILIWICK, Installation, until

PROCESSES = (Port.WEB, Port.DASHBOARD, Port.WORKER, Port.SCHEDULER, Port.MODEL, Port.DEMO)


@pytest.fixture
def another() -> Iterator[Installation]:
    """An installation that was not started yet."""
    installation = Installation((*BAILIWICK, "up"))
    yield installation
    installation.end()


def test_it_says_where_it_is_ready_after_how_long_and_for_whom(installation: Installation) -> None:
    printed = installation.output()
    assert re.search(r"Ready in [\d.]+ s", printed)
    assert installation.url(Port.WEB) in printed
    assert installation.url(Port.DASHBOARD) in printed
    assert "offline" in printed
    for tenant in ("Regional Bank", "Credit Union", "Fintech Startup"):
        assert tenant in printed


@pytest.mark.parametrize("port", PROCESSES, ids=lambda port: port.name.lower())
def test_every_process_tells_its_health_its_readiness_and_its_metrics(installation: Installation, port: Port) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert httpx.get(installation.url(port, path), trust_env=False).status_code == 200, path


def test_doctor_finds_everything_well(installation: Installation) -> None:
    result = installation.run("doctor", "--json")
    report = json.loads(result.stdout)
    assert [finding for finding in report["findings"] if not finding["ok"]] == []
    assert result.returncode == 0
    versions = {finding["part"]: finding["version"] for finding in report["findings"]}
    assert versions["postgres"].startswith("18.")
    assert {"pgvector", "redis", "graph", "offline model", "web", "worker", "scheduler", "dashboard"} <= set(versions)


def test_no_process_is_given_the_owners_password(installation: Installation) -> None:
    secrets = json.loads((installation.settings.home / "secrets.json").read_text("utf-8"))
    for name, pid in installation.pids().items():
        if name not in {"postgres", "redis", "graph"}:
            environment = "\n".join(psutil.Process(pid).environ().values())
            assert secrets["postgres_password"] not in environment, name


def test_a_worker_that_is_killed_is_back_at_work_soon(installation: Installation) -> None:
    back = "worker is ready again"
    killed, before = installation.pids()["worker"], installation.output().count(back)
    os.kill(killed, signal.SIGKILL)
    until(lambda: installation.pids().get("worker", killed) != killed, 30)
    until(lambda: installation.output().count(back) > before, 30)


def test_doctor_says_what_is_missing_and_what_to_do(another: Installation) -> None:
    result = another.run("doctor", "--json")
    assert result.returncode == 1
    wrong = {finding["part"]: finding for finding in json.loads(result.stdout)["findings"] if not finding["ok"]}
    assert set(wrong) == {"postgres", "database roles", "redis", "graph", "offline model"}
    assert all(finding["problem"] and finding["advice"] for finding in wrong.values())


def test_a_taken_port_ends_it_with_one_line_and_nothing_is_left(another: Installation) -> None:
    with socket.create_server(("127.0.0.1", another.settings.port(Port.DASHBOARD))):
        result = another.run("up")
    assert result.returncode == 1
    assert re.fullmatch(rf"bailiwick: Port {another.settings.port(Port.DASHBOARD)} \(dashboard\) .*\n", result.stderr)
    assert another.pids() == {}


def test_a_setting_that_makes_no_sense_is_named(another: Installation) -> None:
    another.env["BAILIWICK_PORT_BASE"] = "eighty"
    result = another.run("up")
    assert result.returncode == 1
    assert re.fullmatch(r"bailiwick: BAILIWICK_PORT_BASE: .*\n", result.stderr)

"""``bailiwick demo loans`` against a running installation, with the worker killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import Any

import httpx

from core.settings import Port
from tests.fixtures.data import real_data
from tests.fixtures.installation import BAILIWICK, ROOT, Installation, until

APPLICATIONS = 80
DEADLINE_S = 110


def decided(installation: Installation) -> int:
    """Decisions in the book of the demo's services, ever."""
    effects = httpx.get(installation.url(Port.DEMO, "/effects"), trust_env=False).json()
    return int(effects.get("decisions", {}).get("effects", 0))


def demo(installation: Installation, tenant: str, *more: str) -> subprocess.Popen[str]:
    file = real_data("loans/credit-card-applications.csv")
    argv = [*BAILIWICK, "demo", "loans", "--file", str(file), "--tenant", tenant, *more]
    return subprocess.Popen(
        argv, env=installation.env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def result(process: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, out + err
    (line,) = out.splitlines()
    counted: dict[str, Any] = json.loads(line)
    parts = ("succeeded", "declined", "in_review", "failed", "waiting", "lost")
    assert sum(counted[part] for part in parts) == counted["submitted"]
    return counted, err


def test_a_killed_worker_loses_no_application_and_repeats_no_effect(installation: Installation) -> None:
    before = decided(installation)
    process = demo(installation, "regional-bank", "--limit", str(APPLICATIONS))
    until(lambda: decided(installation) > before, 60)
    os.kill(installation.pids()["worker"], signal.SIGKILL)
    assert decided(installation) < before + APPLICATIONS
    counted, _ = result(process)
    assert (counted["submitted"], counted["failed"], counted["waiting"], counted["lost"]) == (APPLICATIONS, 0, 0, 0)
    assert counted["duplicated_effects"] == 0
    assert min(counted["succeeded"], counted["declined"], counted["in_review"]) > 0
    assert decided(installation) == before + counted["succeeded"] + counted["declined"]


def test_applications_beyond_the_bureaus_window_wait_visibly_and_are_not_lost(installation: Installation) -> None:
    counted, told = result(demo(installation, "fintech-startup", "--limit", "12"))
    assert counted["waiting"] >= 2
    assert counted["lost"] == 0
    assert f"{counted['waiting']} × rate" in told


def test_what_cannot_begin_says_why_in_one_line(installation: Installation) -> None:
    process = demo(installation, "nobody")
    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert err.startswith("bailiwick: ")
    assert len(err.splitlines()) == 1

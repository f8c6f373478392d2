"""``up`` with one small process: it keeps its children alive, and leaves none behind however it ends."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator

import httpx
import psutil
import pytest

from core.settings import Port
from tests.fixtures.installation import Installation, until

READY = "The database is up to date."


@pytest.fixture
def small() -> Iterator[Installation]:
    # The graph server is the slowest and has nothing special here: an address of one's own replaces it.
    installation = Installation((sys.executable, "-m", "tests.fixtures.small_up"), BAILIWICK_GRAPH_URL="bolt://x")
    yield installation
    installation.end()


def test_children_that_are_killed_start_again_and_a_signal_stops_all(small: Installation) -> None:
    supervisor = small.start_until(READY)
    first = small.pids()
    assert set(first) == {"postgres", "redis", "worker"}
    worker_url = small.url(Port.WORKER)
    given = set(httpx.get(worker_url, trust_env=False).json())
    assert "BAILIWICK_REDIS_URL" in given
    assert not given & {"BAILIWICK_DATABASE_URL", "BAILIWICK_DATABASE_APP_URL", "BAILIWICK_SECRET_KEY"}

    os.kill(first["worker"], signal.SIGKILL)
    until(lambda: small.pids().get("worker", first["worker"]) != first["worker"], 10)
    assert "worker starts again in" not in small.output(), "it was started at once"
    until(lambda: answers(worker_url), 30)
    os.kill(first["postgres"], signal.SIGKILL)
    until(lambda: "postgres is ready again" in small.output(), 30)
    assert "worker was ended by SIGKILL" in small.output()

    second = small.start()
    assert second.wait(20) != 0
    assert re.search(rf"runs already with the data folder .* \(process {supervisor.pid}\)", small.output())
    assert supervisor.poll() is None

    last = small.pids()
    supervisor.send_signal(signal.SIGINT)
    assert supervisor.wait(20) == 0, small.output()
    assert not any(psutil.pid_exists(pid) for pid in (first | last).values())
    assert small.pids() == {}


def test_when_it_is_killed_its_children_end_and_a_new_one_starts_at_once_with_the_same_data(
    small: Installation,
) -> None:
    supervisor = small.start_until(READY)
    orphans = small.pids()
    secrets = (small.settings.home / "secrets.json").read_bytes()
    supervisor.kill()
    supervisor.wait()

    small.start_until(READY)

    assert not any(psutil.pid_exists(pid) for pid in orphans.values())
    assert small.output().count("applied 0001_ground") == 1, "the second start found the first one's schema"
    assert (small.settings.home / "secrets.json").read_bytes() == secrets


def test_children_that_outlive_both_supervisor_and_reaper_are_ended_by_the_next_one(small: Installation) -> None:
    supervisor = small.start_until(READY)
    orphans = small.pids()
    children = psutil.Process(supervisor.pid).children()
    (reaper,) = [child for child in children if child.cmdline()[-1].endswith("reaper.py")]
    reaper.kill()
    supervisor.kill()
    supervisor.wait()
    assert all(psutil.pid_exists(pid) for pid in orphans.values())

    small.start_until(READY)

    assert "Ended what an earlier run had left" in small.output()
    assert not any(psutil.pid_exists(pid) for pid in orphans.values())


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.HTTPError:
        return False

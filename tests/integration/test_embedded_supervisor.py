"""``up`` with one small process: it keeps its children alive, and leaves none behind however it ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from core.settings import Port
from tests.fixtures.ports import free_port_base

ROOT = Path(__file__).parents[2]
CHILDREN = {"postgres", "redis", "worker"}


class Up:
    """A supervisor as a process of its own."""

    def __init__(self, home: Path, port_base: int) -> None:
        self.home = home
        self.worker_url = f"http://127.0.0.1:{port_base + Port.WORKER}"
        # The graph server is the slowest and has nothing special here: an address of one's own replaces it.
        ours = {"BAILIWICK_HOME": str(home), "BAILIWICK_PORT_BASE": str(port_base), "BAILIWICK_GRAPH_URL": "bolt://x"}
        self._env = os.environ | ours | {"PYTHONPATH": str(ROOT)}
        self._started: list[subprocess.Popen[str]] = []

    def start(self) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "tests.fixtures.small_up"]
        output = (self.home.parent / "output").open("a+")
        with output:
            popen = subprocess.Popen(
                argv, env=self._env, stdout=output, stderr=output, stdin=subprocess.DEVNULL, text=True, cwd=ROOT
            )
        self._started.append(popen)
        return popen

    def start_until_ready(self) -> subprocess.Popen[str]:
        before = self.output().count("up to date")
        popen = self.start()
        until(lambda: self.output().count("up to date") > before or popen.poll() is not None, 30)
        assert popen.poll() is None, self.output()
        return popen

    def output(self) -> str:
        path = self.home.parent / "output"
        return path.read_text() if path.exists() else ""

    def pids(self) -> dict[str, int]:
        return {file.stem: int(file.read_text()) for file in (self.home / "run").glob("*.pid")}

    def end(self) -> None:
        for popen in self._started:
            if popen.poll() is None:
                popen.terminate()
                popen.wait(30)


@pytest.fixture
def up() -> Iterator[Up]:
    folder = Path(tempfile.mkdtemp(prefix="bailiwick-up-"))
    folder.chmod(0o711)
    up = Up(folder / "home", free_port_base())
    yield up
    up.end()
    shutil.rmtree(folder)


def until(condition: Callable[[], object], deadline_s: float) -> float:
    """Seconds until it held."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < deadline_s, "deadline passed"
        time.sleep(0.02)
    return time.monotonic() - began


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def test_children_that_are_killed_start_again_and_a_signal_stops_all(up: Up) -> None:
    supervisor = up.start_until_ready()
    first = up.pids()
    assert set(first) == CHILDREN
    given = set(httpx.get(up.worker_url, trust_env=False).json())
    assert "BAILIWICK_REDIS_URL" in given
    assert not given & {"BAILIWICK_DATABASE_URL", "BAILIWICK_DATABASE_APP_URL", "BAILIWICK_SECRET_KEY"}

    os.kill(first["worker"], signal.SIGKILL)
    took_s = until(lambda: up.pids().get("worker") not in (None, first["worker"]) and answers(up.worker_url), 5)
    assert took_s < 2
    os.kill(first["postgres"], signal.SIGKILL)
    until(lambda: "postgres is ready again" in up.output(), 15)
    assert "worker was ended by SIGKILL" in up.output()

    second = up.start()
    assert second.wait(20) != 0
    assert re.search(rf"runs already with the data folder .* \(process {supervisor.pid}\)", up.output())
    assert supervisor.poll() is None

    last = up.pids()
    supervisor.send_signal(signal.SIGINT)
    assert supervisor.wait(20) == 0, up.output()
    assert not any(psutil.pid_exists(pid) for pid in (first | last).values())
    assert up.pids() == {}


def test_when_it_is_killed_its_children_end_and_a_new_one_starts_at_once_with_the_same_data(up: Up) -> None:
    supervisor = up.start_until_ready()
    orphans = up.pids()
    secrets = (up.home / "secrets.json").read_text()
    supervisor.kill()
    supervisor.wait()

    up.start_until_ready()

    assert not any(psutil.pid_exists(pid) for pid in orphans.values())
    assert up.output().count("applied 0001_ground") == 1, "the second start found the first one's schema"
    assert json.loads(secrets) == json.loads((up.home / "secrets.json").read_text())


def test_children_that_outlive_both_supervisor_and_reaper_are_ended_by_the_next_one(up: Up) -> None:
    supervisor = up.start_until_ready()
    orphans = up.pids()
    children = psutil.Process(supervisor.pid).children()
    (reaper,) = [child for child in children if child.cmdline()[-1].endswith("reaper.py")]
    reaper.kill()
    supervisor.kill()
    supervisor.wait()
    assert all(psutil.pid_exists(pid) for pid in orphans.values())

    up.start_until_ready()

    assert "Ended what an earlier run had left" in up.output()
    assert not any(psutil.pid_exists(pid) for pid in orphans.values())

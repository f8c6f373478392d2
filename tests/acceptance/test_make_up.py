"""``make up`` as a person types it: the whole product, as an ordinary user, from the first line to Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import signal
import subprocess
from collections.abc import Iterator

import httpx
import psutil
import pytest

from core.settings import Port
from tests.fixtures.installation import MAKE_UP, STOP_WITHIN_S, Installation

PROCESSES = (Port.WEB, Port.DASHBOARD, Port.WORKER, Port.SCHEDULER, Port.MODEL, Port.DEMO)


# Root becomes somebody who may write nothing but their own folder. They may read everything, since the Python
# that made .venv may lie in root's home.
AS_NOBODY = (
    *("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"),
    *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"),
    *("--bounding-set=-all,+dac_read_search", "--"),
)


@pytest.fixture
def ordinary(no_settings_from_the_environment: None) -> Iterator[Installation]:
    """An installation of an ordinary user, not started yet."""
    if os.geteuid() != 0:
        installation = Installation(MAKE_UP)
    else:
        tried = subprocess.run([*AS_NOBODY, "make", "--version"], check=False, capture_output=True, text=True)
        if tried.returncode != 0:
            pytest.skip(f"Root cannot become an ordinary user here: {tried.stderr.strip()}")
        installation = Installation((*AS_NOBODY, *MAKE_UP), owner=pwd.getpwnam("nobody").pw_uid)
    yield installation
    installation.end()


def users(process: psutil.Process) -> list[int]:
    """Whose it is; nobody's when it has ended, as servers of single connections do."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [process.uids().effective]
    return []


def test_an_ordinary_user_starts_the_whole_product_and_ctrl_c_leaves_nothing(ordinary: Installation) -> None:
    make = ordinary.start_until("Ready in", 90)
    addresses = set(re.findall(r"http://[\d.:]+", ordinary.output()))
    assert {ordinary.url(Port.WEB), ordinary.url(Port.DASHBOARD)} <= addresses
    for port in PROCESSES:
        assert httpx.get(ordinary.url(port, "/readyz"), trust_env=False).status_code == 200, port.name
    started = [psutil.Process(make.pid), *psutil.Process(make.pid).children(recursive=True)]
    assert {psutil.Process(pid) for pid in ordinary.pids().values()} <= set(started)
    if os.geteuid() == 0:
        assert {user for process in started for user in users(process)} == {pwd.getpwnam("nobody").pw_uid}

    os.killpg(make.pid, signal.SIGINT)  # as a terminal does: to everybody in the foreground

    make.wait(STOP_WITHIN_S)
    _, alive = psutil.wait_procs(started, timeout=5)
    assert alive == []
    assert ordinary.pids() == {}

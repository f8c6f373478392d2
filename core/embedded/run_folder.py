"""``home/run``: one ``up`` at a time, and a file with the process id of each child."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from core.embedded.process import require_writable
from core.errors import SetupError

_EARLIER_RUN_S = 15.0


class RunFolder:
    """The folder while we hold its lock. Get one from ``hold``."""

    def __init__(self, path: Path, lock_fd: int) -> None:
        self._path = path
        self.lock_fd = lock_fd

    def remember(self, name: str, pid: int) -> None:
        """Write ``NAME.pid``, for people, tests and the next run."""
        (self._path / f"{name}.pid").write_text(f"{pid}\n", "utf-8")

    def forget(self, name: str) -> None:
        """The child has ended."""
        (self._path / f"{name}.pid").unlink(missing_ok=True)

    async def end_leftovers(self) -> list[str]:
        """Stop children that outlived both an earlier supervisor and its reaper; their names."""
        files = sorted(self._path.glob("*.pid"))
        found = {file.stem: process for file in files if (process := _written_by_us(file))}
        await asyncio.to_thread(_end, list(found.values()))
        for file in files:
            file.unlink()
        return list(found)


@asynccontextmanager
async def hold(home: Path) -> AsyncIterator[RunFolder]:
    """The run folder of this home, ours alone until the block ends.

    Raises ``SetupError`` when another ``up`` runs with this home. Children of one that was killed are waited
    for, at most 15 s: its reaper is stopping them.
    """
    require_writable(home)
    path = home / "run"
    path.mkdir(exist_ok=True)
    fd = os.open(path / "up.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline = time.monotonic() + _EARLIER_RUN_S
        while not _locked(fd):
            owner = os.pread(fd, 20, 0).decode().strip()
            if not owner or psutil.pid_exists(int(owner)) or time.monotonic() > deadline:
                raise SetupError(
                    f"bailiwick up runs already with the data folder {home} (process {owner or 'unknown'}): "
                    "stop it, or use another BAILIWICK_HOME and BAILIWICK_PORT_BASE."
                )
            await asyncio.sleep(0.1)
        os.truncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        yield RunFolder(path, fd)
    finally:
        os.close(fd)


def is_held(home: Path) -> bool:
    """Whether an ``up`` runs with this home."""
    try:
        fd = os.open(home / "run" / "up.lock", os.O_RDWR)
    except OSError:
        return False
    try:
        return not _locked(fd)
    finally:
        os.close(fd)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _written_by_us(file: Path) -> psutil.Process | None:
    """The process of a pid file, unless its number was given to a younger process since."""
    try:
        process = psutil.Process(int(file.read_text("utf-8")))
        return process if process.create_time() <= file.stat().st_mtime + 1 else None
    except (ValueError, psutil.Error):
        return None


def _end(processes: list[psutil.Process]) -> None:
    # SIGINT ends Postgres soon; our other children take it like SIGTERM.
    for number in (signal.SIGINT, signal.SIGKILL):
        for process in processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
        psutil.wait_procs(processes, timeout=5)

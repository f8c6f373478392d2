"""Child processes: started in a group of their own, logged to a file, stopped within a deadline, never orphaned."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, cast

from core.errors import SetupError

LOCALHOST = "127.0.0.1"
_POLL_S = 0.03
_LOG_LIMIT_BYTES = 20_000_000


class Reaper:
    """Holds the pipe whose end tells ``reaper.py`` to stop what is left. One per supervising process."""

    def __init__(self, *, keep_open: Sequence[int] = ()) -> None:
        """``keep_open``: file descriptors (a lock) that stay open until the last child has ended."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).with_name("reaper.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=tuple(keep_open),
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def watch(self, group: int, stop_signal: signal.Signals) -> None:
        """Stop this process group with this signal if we die."""
        self._write(f"+{group} {int(stop_signal)}\n")

    def forget(self, group: int) -> None:
        """The group ended by itself or by us."""
        self._write(f"-{group}\n")

    def close(self) -> None:
        """Let it stop whatever is still watched, and end."""
        with contextlib.suppress(BrokenPipeError):
            self._pipe().close()
        self._process.wait()

    def _write(self, line: str) -> None:
        # A reaper that was killed is no reason to stop working; it only guards against our own death.
        with contextlib.suppress(BrokenPipeError):
            self._pipe().write(line.encode())
            self._pipe().flush()

    def _pipe(self) -> IO[bytes]:
        return cast("IO[bytes]", self._process.stdin)


class Process:
    """One running child. ``start`` it; afterwards it is yours to ``stop``."""

    def __init__(
        self,
        name: str,
        popen: subprocess.Popen[bytes],
        *,
        log: Path,
        log_offset: int,
        reaper: Reaper,
        stop_signal: signal.Signals,
    ) -> None:
        self.name = name
        self.log = log
        self._popen = popen
        self._log_offset = log_offset
        self._reaper = reaper
        self._stop_signal = stop_signal
        self._ended = False

    @classmethod
    def start(
        cls,
        name: str,
        argv: Sequence[str | Path],
        *,
        log: Path,
        reaper: Reaper,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: int | None = None,
        group: int | None = None,
        given: bytes | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> Process:
        """Run ``argv``; its output is appended to ``log``, ``given`` is its standard input.

        Signals from the terminal do not reach it: it has a session of its own. Raises ``SetupError`` when
        the program cannot be executed.
        """
        with _open_log(log) as output:
            offset = output.tell()
            try:
                popen = subprocess.Popen(
                    [str(word) for word in argv],
                    stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=None if env is None else dict(env),
                    cwd=cwd,
                    user=user,
                    group=group,
                    extra_groups=None if user is None else [],
                    start_new_session=True,
                )
            except OSError as error:
                raise SetupError(f"{name} cannot be started: {error}.") from error
        reaper.watch(popen.pid, stop_signal)
        if popen.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                popen.stdin.write(given or b"")
                popen.stdin.close()
        return cls(name, popen, log=log, log_offset=offset, reaper=reaper, stop_signal=stop_signal)

    @property
    def pid(self) -> int:
        """Process id, which is also the id of its group."""
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._popen.poll()

    async def wait(self, *, poll_s: float = _POLL_S) -> int:
        """Its exit code, once it has ended; looked for every ``poll_s`` seconds."""
        while (code := self._popen.poll()) is None:  # noqa: ASYNC110 - the kernel sets no asyncio event
            await asyncio.sleep(poll_s)
        self._end_group()
        return code

    async def stop(self, *, deadline_s: float = 10.0) -> None:
        """Ask it to end; at the deadline, end its whole group by force."""
        if self._popen.poll() is None:
            self._popen.send_signal(self._stop_signal)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wait(), deadline_s)
        self._end_group()
        self._popen.wait()

    def output(self) -> str:
        """What it wrote since it was started."""
        with self.log.open("rb") as file:
            file.seek(self._log_offset)
            return file.read().decode("utf-8", "replace")

    def last_words(self, lines: int = 3) -> str:
        """The last lines it wrote, as one."""
        return " / ".join(line.strip() for line in self.output().splitlines()[-lines:] if line.strip())

    def _end_group(self) -> None:
        # The child is gone or past its deadline; what it started and left behind goes with it. Once only: the
        # system may give the number to somebody else afterwards.
        if self._ended:
            return
        self._ended = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._reaper.forget(self._popen.pid)


async def until_ready(process: Process, probe: Callable[[], Awaitable[None]], *, deadline_s: float = 60.0) -> None:
    """Call ``probe`` until it raises no ``ConnectionError`` any more.

    Raises ``SetupError`` when the process ends first or the deadline passes; the message quotes its log.
    """
    deadline = time.monotonic() + deadline_s
    while True:
        try:
            return await probe()
        except ConnectionError as error:
            if process.exit_code is not None:
                raise SetupError(
                    f"{process.name} ended at its start: {process.last_words()} (see {process.log})"
                ) from error
            if time.monotonic() > deadline:
                raise SetupError(
                    f"{process.name} is not ready after {deadline_s:.0f} s: {error} (see {process.log})"
                ) from error
        await asyncio.sleep(_POLL_S)


def require_free_port(port: int, owner: str) -> None:
    """Raise ``SetupError`` when something listens on this port already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOCALHOST, port))
        except OSError as error:
            raise SetupError(
                f"Port {port} ({owner}) is taken by another program: stop it, or move all ports with "
                "BAILIWICK_PORT_BASE."
            ) from error


def require_writable(folder: Path) -> None:
    """Make the folder; raise ``SetupError`` when nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SetupError(
            f"The data folder {folder} cannot be written ({error.strerror}): choose another with BAILIWICK_HOME."
        ) from error


def _open_log(path: Path) -> IO[bytes]:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > _LOG_LIMIT_BYTES:
        path.replace(path.with_suffix(".log.1"))
    file = path.open("ab")
    file.seek(0, os.SEEK_END)
    return file

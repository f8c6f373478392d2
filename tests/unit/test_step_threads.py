"""A worker ends though a step of it blocks a thread for ever."""

from __future__ import annotations

import subprocess
import sys

import pytest

DEADLINE_S = 30

PROGRAM = """
import asyncio, threading
from scheduler.threads import ending_without_threads, threads_for_all

async def main():
    blocked = threading.Event()
    async with threads_for_all():
        assert await asyncio.to_thread(lambda: 1) == 1
        if {blocks}:
            asyncio.ensure_future(asyncio.to_thread(lambda: (blocked.set(), threading.Event().wait())))
            await asyncio.to_thread(blocked.wait)
    assert await asyncio.to_thread(lambda: 2) == 2  # whatever ends after the worker may still need a thread
    {last}

with ending_without_threads():
    asyncio.run(main())
print("ended as usual")
"""


def _ended(*, blocks: bool, last: str = "pass") -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(blocks=blocks, last=last)
    command = [sys.executable, "-c", program]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=DEADLINE_S)


def test_a_process_whose_threads_all_returned_ends_as_usual() -> None:
    ended = _ended(blocks=False)
    assert (ended.returncode, ended.stdout) == (0, "ended as usual\n")


def test_a_process_with_a_blocked_thread_ends_at_once_and_says_so() -> None:
    ended = _ended(blocks=True)
    assert ended.returncode == 0
    assert "worker.threads_left" in ended.stdout
    assert "ended as usual" not in ended.stdout


@pytest.mark.parametrize("blocks", [False, True])
def test_what_was_raised_is_reported(blocks: bool) -> None:
    ended = _ended(blocks=blocks, last="raise RuntimeError('no such server')")
    assert ended.returncode == 1
    assert ended.stderr.rstrip().endswith("RuntimeError: no such server")

"""Stops the children of a process that died: the last line of defence against orphans.

A supervisor starts this file as its own process and holds the other end of its standard input. It writes
``+<process group> <signal>`` for each child it starts and ``-<process group>`` for each that ended. When the
pipe closes, be it by a clean exit, a crash or ``kill -9``, every group still known gets its signal and, after
``GRACE_S`` seconds, SIGKILL.

Runs as a plain file with the standard library alone, so that it is up before anything else is.
"""

import os
import signal
import sys
import time

GRACE_S = 5.0


def main() -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    groups: dict[int, int] = {}
    for line in sys.stdin:
        sign, words = line[0], line[1:].split()
        if sign == "+":
            groups[int(words[0])] = int(words[1])
        else:
            groups.pop(int(words[0]), None)
    stop(groups)


def stop(groups: dict[int, int]) -> None:
    alive = {group: number for group, number in groups.items() if send(group, number)}
    deadline = time.monotonic() + GRACE_S
    while alive and time.monotonic() < deadline:
        time.sleep(0.05)
        alive = {group: number for group, number in alive.items() if send(group, 0)}
    for group in alive:
        send(group, signal.SIGKILL)


def send(group: int, number: int) -> bool:
    """Whether the group was still there."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main()

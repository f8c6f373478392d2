"""The threads in which steps block: as many as there are such steps, and none that keeps a worker from ending.

A thread cannot be stopped, and Python waits for each before a process ends. A worker that ends has given its runs back:
what still blocks then is nobody's any more, and a process that waited for it would be paid for and do nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager

import structlog

log = structlog.get_logger(__name__)

_NAME = "step"
_IDLE_ONES_END_S = 0.5


@asynccontextmanager
async def threads_for_all() -> AsyncIterator[None]:
    """Within this, a call that blocks a thread of the running loop keeps no other from having one."""
    loop = asyncio.get_running_loop()
    pool = ThreadPoolExecutor(sys.maxsize, thread_name_prefix=_NAME)
    loop.set_default_executor(pool)
    try:
        yield
    finally:
        loop.set_default_executor(ThreadPoolExecutor(thread_name_prefix="loop"))
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def ending_without_threads() -> Iterator[None]:
    """After this the process ends, at once, if a thread of ``threads_for_all`` still blocks; else it goes on as usual.

    What was raised is reported as Python does, and the process ends with 1.
    """
    try:
        yield
    except BaseException:
        if blocked := _blocked():
            sys.excepthook(*sys.exc_info())
            _end(1, blocked)
        raise
    if blocked := _blocked():
        _end(0, blocked)


def _blocked() -> int:
    deadline = time.monotonic() + _IDLE_ONES_END_S
    ours = [one for one in threading.enumerate() if one.name.startswith(f"{_NAME}_")]
    for one in ours:
        one.join(max(0.0, deadline - time.monotonic()))
    return sum(one.is_alive() for one in ours)


def _end(code: int, blocked: int) -> None:
    log.warning("worker.threads_left", threads=blocked)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

"""From Streamlit's threads to the platform: one event loop in a thread of its own, one platform per process.

    opening ──platform open──► open ──close()──► closed
       └── the platform cannot open: the error is raised to whoever opens the bridge

Every session's script runs in a thread of its own and blocks in ``run`` while the loop does the work.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import streamlit as st

from core.bootstrap import Platform, open_platform
from core.errors import Unavailable
from core.settings import Settings

Result = TypeVar("Result")

_OPEN_S = 30.0
_CALL_S = 30.0


class Bridge:
    """Runs coroutines over one platform. Thread-safe. Make it once, ``close`` it at the end."""

    def __init__(self, settings: Settings) -> None:
        """Open the platform. Raises what ``open_platform`` raises; ``Unavailable`` after 30 s."""
        self._loop = asyncio.new_event_loop()
        self._opened: concurrent.futures.Future[Platform] = concurrent.futures.Future()
        self._closing = asyncio.Event()
        self._used_at = time.monotonic()
        self._thread = threading.Thread(target=self._serve, args=(settings,), name="platform", daemon=True)
        self._thread.start()
        self.platform = self._opened.result(_OPEN_S)

    def _serve(self, settings: Settings) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._hold_open(settings))

    async def _hold_open(self, settings: Settings) -> None:
        try:
            async with open_platform(settings, process="dashboard") as platform:
                self._opened.set_result(platform)
                await self._closing.wait()
        except BaseException as error:
            if self._opened.done():
                raise
            self._opened.set_exception(error)

    def run(self, work: Coroutine[Any, Any, Result], timeout_s: float = _CALL_S) -> Result:
        """The coroutine's result. Raises what it raises; ``Unavailable`` when it takes longer."""
        self._used_at = time.monotonic()
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout_s)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise _too_long() from None

    def start(self, work: Coroutine[Any, Any, Result], timeout_s: float = _CALL_S) -> concurrent.futures.Future[Result]:
        """Begin it, and do not wait. The future raises what it raises; ``Unavailable`` when it takes longer."""
        self._used_at = time.monotonic()
        return asyncio.run_coroutine_threadsafe(_in_time(work, timeout_s), self._loop)

    async def run_here(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The same for callers on another event loop, which stays free meanwhile."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    @property
    def idle_s(self) -> float:
        """Seconds since a session last asked for something."""
        return time.monotonic() - self._used_at

    def close(self) -> None:
        """Close the platform and end the thread; nothing runs afterwards."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join(10)


async def _in_time(work: Coroutine[Any, Any, Result], timeout_s: float) -> Result:
    try:
        async with asyncio.timeout(timeout_s):
            return await work
    except TimeoutError:
        raise _too_long() from None


def _too_long() -> Unavailable:
    return Unavailable("The platform takes too long to answer.", retry_after_s=5)


@st.cache_resource(show_spinner=False)
def bridge() -> Bridge:
    """The process's bridge, opened by the first who asks; settings come from the environment."""
    return Bridge(Settings())

"""What the embedded servers have in common: a child process that is ready when its probe says so."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable

from core.embedded.process import Process, until_ready


class Server(ABC):
    """Base of the three servers. Not started yet, running, or stopped and ready to be started again."""

    _process: Process | None = None

    @property
    def process(self) -> Process:
        """The running child. ``RuntimeError`` when it was not started."""
        if self._process is None:
            raise RuntimeError(f"{type(self).__name__} was not started")
        return self._process

    @abstractmethod
    async def start(self) -> None:
        """Return when it answers. Raises ``SetupError`` with one line that says what is wrong."""

    async def stop(self) -> None:
        """Let it flush and end; by force after 15 s. Does nothing when it does not run."""
        if self._process is not None:
            await self._process.stop(deadline_s=15)
            self._process = None

    async def _await_ready(self, process: Process, probe: Callable[[], Awaitable[None]]) -> None:
        self._process = process
        try:
            await until_ready(process, probe)
        except BaseException:
            await self.stop()
            raise

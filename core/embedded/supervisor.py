"""``bailiwick up``: every server and process of one installation, started in order, kept alive, stopped in order.

    Postgres ─► migrate ─────────┐
    Redis, graph ────────────────┼─► web, worker, scheduler, dashboard; seed
    offline model, demo services ┘

A child that dies is started again: at once the first time, then after 1, 2, 4 … 30 s, and at once again after
a minute of good health. SIGINT, SIGTERM and SIGHUP stop everything in reverse order. Should this process itself
be killed, the reaper stops the children, and a new ``up`` waits for that. ``home/run/NAME.pid`` holds each
child's id, ``home/logs/NAME.log`` its output.

Children know nothing of each other and get only the secrets they need; none gets the owner's DSN.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from core.embedded.asking import get
from core.embedded.board import Board
from core.embedded.environment import environment_for
from core.embedded.process import LOCALHOST, Process, Reaper, require_free_port, until_ready
from core.embedded.programs import DEMO_SERVICES, DEMO_WORK, OFFLINE_MODEL, WHOLE, Command, Plan, Program
from core.embedded.run_folder import RunFolder, hold
from core.embedded.servers import complete, servers_to_start
from core.errors import BailiwickError, SetupError
from core.settings import Settings

_HEALTHY_AFTER_S = 60.0
_LONGEST_PAUSE_S = 30.0
_READY_DEADLINE_S = 90.0
_STOP_DEADLINE_S = 10.0
_WATCH_EVERY_S = 0.2
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Result = TypeVar("Result")


async def up(
    settings: Settings,
    board: Board,
    ready: Callable[[Settings, str], None],
    *,
    plan: Plan = WHOLE,
) -> None:
    """Run an installation until a signal asks to stop.

    ``ready`` is called once everything is healthy, with the complete settings and what the introduction printed.
    Raises ``SetupError`` when something cannot be started; what had been started is stopped before.
    """
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    asked = False

    def interrupt() -> None:
        nonlocal asked
        if not asked and task is not None:
            asked = True
            task.cancel()

    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, interrupt)
    try:
        async with hold(settings.home) as folder:
            supervisor = Supervisor(settings, board, folder, plan)
            try:
                ready(supervisor.settings, await supervisor.start())
                await supervisor.watch()
            finally:
                # From here on a second Ctrl-C changes nothing: stopping has its own deadline.
                asked = True
                board.note("Stopping.")
                await supervisor.stop()
    except asyncio.CancelledError:
        if task is None or not asked:
            raise
        task.uncancel()
    finally:
        for number in _STOP_SIGNALS:
            loop.remove_signal_handler(number)


class Supervisor:
    """The children of one ``up``: ``start``, ``watch``, ``stop``, once each."""

    def __init__(self, given: Settings, board: Board, folder: RunFolder, plan: Plan) -> None:
        self.settings = complete(given)
        self._board = board
        self._folder = folder
        self._plan = plan
        self._reaper = Reaper(keep_open=[folder.lock_fd])
        self._servers = servers_to_start(given, self._reaper)
        # A model endpoint of one's own replaces the offline model.
        self._helpers = [each for each in plan.helpers if each != OFFLINE_MODEL or given.model_url is None]
        if DEMO_SERVICES in self._helpers:
            # Its feed is polled like one on the internet, though it has a private address.
            demo = f"{LOCALHOST}:{given.port(DEMO_SERVICES.port)}"
            hosts = (*given.allowed_private_hosts, demo)
            modules = (*given.workflow_modules, DEMO_WORK)
            update = {"allowed_private_hosts": hosts, "workflow_modules": modules}
            self.settings = self.settings.model_copy(update=update)
        self._programs = (*self._helpers, *plan.platform)
        self._running: dict[str, Process] = {}

    async def start(self) -> str:
        """Start everything and return when all is healthy; what the introduction printed."""
        if leftovers := await self._folder.end_leftovers():
            self._board.note(f"Ended what an earlier run had left: {', '.join(leftovers)}.")
        for program in self._programs:
            require_free_port(self.settings.port(program.port), program.name)
        others = [self._timed(name, self._start_server(name)) for name in self._servers if name != "postgres"]
        helpers = [self._timed(program.name, self._start_program(program)) for program in self._helpers]
        await _all(self._prepare_data(), *others, *helpers)
        platform = (self._timed(program.name, self._start_program(program)) for program in self._plan.platform)
        introduction, *_ = await _all(self._run(self._plan.introduce), *platform)
        return introduction

    async def watch(self) -> None:
        """Start again what dies, until cancelled."""
        programs = (self._keep(each.name, partial(self._restart_program, each)) for each in self._programs)
        servers = (self._keep(name, partial(self._restart_server, name)) for name in self._servers)
        await _all(*servers, *programs)

    async def stop(self) -> None:
        """Stop in reverse order: first our processes, then the servers they use."""
        programs = [process for name, process in self._running.items() if name not in self._servers]
        await asyncio.gather(*(process.stop(deadline_s=_STOP_DEADLINE_S) for process in programs))
        await asyncio.gather(*(server.stop() for server in self._servers.values()))
        for name in self._running:
            self._folder.forget(name)
        await asyncio.to_thread(self._reaper.close)

    async def _prepare_data(self) -> str:
        if "postgres" in self._servers:
            await self._timed("postgres", self._start_server("postgres"))
        for command in self._plan.prepare:
            await self._run(command)
        return "data"

    async def _run(self, command: Command) -> str:
        return await self._timed(command.name, self._finish(command))

    async def _start_server(self, name: str) -> str:
        await self._servers[name].start()
        self._remember(name, self._servers[name].process)
        return name

    async def _start_program(self, program: Program) -> str:
        process = Process.start(
            program.name,
            # -P: a folder `core` or `memory` in the working directory must not stand in for ours.
            [sys.executable, "-P", "-m", program.module],
            log=self._log(program.name),
            reaper=self._reaper,
            env=environment_for(self.settings, secrets=program.secrets),
        )
        self._remember(program.name, process)
        await until_ready(process, self._probe(program), deadline_s=_READY_DEADLINE_S)
        return program.name

    async def _finish(self, command: Command) -> str:
        process = Process.start(
            command.name,
            [sys.executable, "-P", "-m", "core.cli", command.name],
            log=self._log(command.name),
            reaper=self._reaper,
            env=environment_for(self.settings, secrets=command.secrets),
        )
        try:
            if await process.wait() != 0:
                raise SetupError(f"bailiwick {command.name} failed: {process.last_words()} (see {process.log})")
        finally:
            await process.stop()
        return process.output()

    def _probe(self, program: Program) -> Callable[[], Awaitable[None]]:
        url = f"http://{LOCALHOST}:{self.settings.port(program.port)}/readyz"

        async def ask() -> None:
            await get(url)

        return ask

    def _log(self, name: str) -> Path:
        return self.settings.home.absolute() / "logs" / f"{name}.log"

    def _remember(self, name: str, process: Process) -> None:
        self._running[name] = process
        self._folder.remember(name, process.pid)

    async def _timed(self, name: str, work: Coroutine[Any, Any, Result]) -> Result:
        self._board.starting(name)
        result = await work
        self._board.ready(name)
        return result

    async def _restart_program(self, program: Program) -> None:
        await self._running[program.name].stop()
        await self._start_program(program)

    async def _restart_server(self, name: str) -> None:
        await self._servers[name].stop()
        await self._start_server(name)

    async def _keep(self, name: str, again: Callable[[], Awaitable[None]]) -> None:
        pause_s = 0.0
        while True:
            began = time.monotonic()
            code = await self._running[name].wait(poll_s=_WATCH_EVERY_S)
            self._board.note(f"{name} {_how(code)}: {self._running[name].last_words(1) or 'no last words'}")
            if time.monotonic() - began > _HEALTHY_AFTER_S:
                pause_s = 0.0
            pause_s = await self._again(name, again, pause_s)

    async def _again(self, name: str, again: Callable[[], Awaitable[None]], pause_s: float) -> float:
        """Try until it is healthy; the pause before a next time."""
        while True:
            if pause_s:
                self._board.note(f"{name} starts again in {pause_s:.0f} s.")
                await asyncio.sleep(pause_s)
            pause_s = min(max(1.0, 2 * pause_s), _LONGEST_PAUSE_S)
            began = time.monotonic()
            try:
                await again()
            except BailiwickError as error:
                self._board.note(error.message)
            else:
                self._board.note(f"{name} is ready again after {time.monotonic() - began:.1f} s.")
                return pause_s


def _how(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


async def _all(*work: Coroutine[Any, Any, Result]) -> list[Result]:
    """All results; at the first error the rest is cancelled and that error raised alone."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]

"""The processes of one installation, as ``bailiwick up`` and production run them, each ready to be killed (-9).

    running ──kill──► down ──outage over──► starting ──ready──► running
       └──ended by itself (a fault: nothing but a kill ends a process)──► starting

A process that ends while it starts, because a server it needs is down itself, is started again, as a supervisor does.
The offline model and the effects' server stand for other companies' servers: nobody kills them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr

from core.db.migrate import migrate
from core.embedded.environment import environment_for
from core.embedded.graph import Graph
from core.embedded.postgres import Postgres
from core.embedded.process import LOCALHOST, Process, Reaper, require_free_port, until_ready
from core.embedded.programs import WHOLE
from core.embedded.redis import Redis
from core.embedded.server import Server
from core.embedded.servers import complete
from core.errors import SetupError
from core.settings import Port, Settings
from tests.fixtures.ports import free_port_base
from tests.fixtures.servers import PASSWORD, ROLE_PASSWORDS, SECRET_KEY

ROOT = Path(__file__).parents[3]
WORKFLOWS = "tests.durability.chaos.workflow"
_MODULES = {"web": "chat_app", "scheduler": "scheduler", "worker": "scheduler.worker"}
_SECRETS = {program.name: program.secrets for program in WHOLE.platform}
_AGAIN_S, _LOOK_S = 0.3, 0.2


@dataclass(slots=True)
class Victim:
    """One process. ``kind``: postgres, redis, graph, web, worker or scheduler."""

    name: str
    kind: str
    start: Callable[[], Coroutine[Any, Any, Process]]
    process: Process | None = None
    kills: int = 0
    freezes: int = 0
    ready_at: float = 0.0
    took_s: float = 0.0
    surprises: list[str] = field(default_factory=list)

    @property
    def up(self) -> bool:
        """Whether it is ready, as far as anybody knows."""
        return self.process is not None

    @property
    def settled(self) -> bool:
        """Whether it has been up twice as long as it took to start: else a slow machine would do nothing but start."""
        return self.up and time.monotonic() - self.ready_at > 2 * self.took_s

    async def begin(self) -> None:
        """Start it, again and again until it is ready."""
        while self.process is None:
            began = time.monotonic()
            with contextlib.suppress(SetupError, ConnectionError):
                self.process = await self.start()
                self.ready_at = time.monotonic()
                self.took_s = self.ready_at - began
                return
            await asyncio.sleep(_AGAIN_S)

    async def kill(self) -> None:
        """kill -9, with all that it started itself."""
        process, self.process = self.process, None
        if process is not None:
            self.kills += 1
            os.kill(process.pid, signal.SIGKILL)
            await process.stop()


class Scene:
    """All of them. Open it with ``opened``."""

    def __init__(self, settings: Settings, victims: list[Victim], url_of_effects: str) -> None:
        self.settings = settings
        self.victims = victims
        self.effects = url_of_effects
        self._starting: set[asyncio.Task[None]] = set()

    @property
    def surprises(self) -> list[str]:
        """The last words of processes that ended although nobody had killed them."""
        return [words for victim in self.victims for words in victim.surprises]

    async def strike(self, victim: Victim, outage_s: float) -> None:
        """Kill one, and start it again after a while, in the background."""
        await victim.kill()
        self._begin(victim, outage_s)

    def freeze(self, victim: Victim, seconds: float) -> None:
        """Stop a process for so long that others take over its work; then it goes on as though nothing had been."""
        process = victim.process
        if process is None:
            return
        victim.freezes += 1
        os.kill(process.pid, signal.SIGSTOP)

        def thaw() -> None:
            if process.exit_code is None:
                os.kill(process.pid, signal.SIGCONT)

        asyncio.get_running_loop().call_later(seconds, thaw)

    async def whole(self) -> None:
        """Return when everything is up again."""
        await asyncio.gather(*self._starting)

    async def watch(self) -> None:
        """Start again what ends by itself, for ever."""
        while True:
            for victim in self.victims:
                if victim.process is not None and (code := victim.process.exit_code) is not None:
                    victim.surprises.append(f"{victim.name} ended with {code}: {victim.process.last_words(5)}")
                    await victim.process.stop()
                    victim.process = None
                    self._begin(victim, 0.0)
            await asyncio.sleep(_LOOK_S)

    async def close(self) -> None:
        """Stop them, those first that use the others."""
        for task in self._starting:
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        programs = [victim for victim in self.victims if victim.kind in _MODULES]
        servers = [victim for victim in self.victims if victim.kind not in _MODULES]
        for group in (programs, servers):
            await asyncio.gather(*(victim.process.stop() for victim in group if victim.process is not None))

    async def stop_programs(self) -> None:
        """Let web, workers and scheduler end in order; the servers go on."""
        programs = [victim for victim in self.victims if victim.kind in _MODULES]
        await asyncio.gather(*(victim.process.stop(deadline_s=30) for victim in programs if victim.process))
        for victim in programs:
            victim.process = None

    def _begin(self, victim: Victim, after_s: float) -> None:
        async def begin() -> None:
            await asyncio.sleep(after_s)
            await victim.begin()

        task = asyncio.create_task(begin(), name=victim.name)
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)


@asynccontextmanager
async def opened(home: Path, reaper: Reaper, *, seed: int, workers: int, slots: int) -> AsyncIterator[Scene]:
    """The servers, migrated; the programs start with ``Victim.begin``. Everything ends with the block."""
    base = free_port_base()
    servers: dict[str, Server] = {
        "postgres": Postgres(home, port=base + Port.POSTGRES, password=PASSWORD, reaper=reaper),
        "redis": Redis(home, port=base + Port.REDIS, password=PASSWORD, reaper=reaper),
        "graph": Graph(
            home, port=base + Port.GRAPH, http_port=base + Port.GRAPH_HTTP, password=PASSWORD, reaper=reaper
        ),
    }
    postgres, redis = servers["postgres"], servers["redis"]
    assert isinstance(postgres, Postgres)
    assert isinstance(redis, Redis)
    given = Settings(home=home, port_base=base)
    outside = [
        _started("model", ["core.models.offline"], home, reaper, environment_for(given)),
        _started(
            "effects", ["tests.durability.chaos.effects", str(base + Port.DEMO), str(seed)], home, reaper, os.environ
        ),
    ]
    effects = f"http://{LOCALHOST}:{base + Port.DEMO}"
    settings = complete(
        Settings(
            home=home,
            port_base=base,
            secret_key=SecretStr(SECRET_KEY),
            database_url=SecretStr(postgres.url),
            redis_url=SecretStr(redis.url),
            graph_url=f"bolt://{LOCALHOST}:{base + Port.GRAPH}",
            graph_password=SecretStr(PASSWORD),
            model_url=f"http://{LOCALHOST}:{base + Port.MODEL}/v1",
            services={"effects": effects},
            workflow_modules=(WORKFLOWS,),
            worker_slots=slots,
        )
    )
    victims = [Victim(name, name, _serve(server)) for name, server in servers.items()]
    victims += [_program("web", "web", settings, reaper), _program("scheduler", "scheduler", settings, reaper)]
    for number in range(1, workers + 1):
        own = settings.model_copy(update={"port_base": free_port_base()})
        victims.append(_program(f"worker-{number}", "worker", own, reaper))
    scene = Scene(settings, victims, effects)
    try:
        await asyncio.gather(*(victim.begin() for victim in victims[: len(servers)]))
        await migrate(postgres.url, **ROLE_PASSWORDS)
        await until_ready(outside[0], _probe(base + Port.MODEL, "/readyz"))
        await until_ready(outside[1], _probe(base + Port.DEMO, "/effects"))
        yield scene
    finally:
        await scene.close()
        await asyncio.gather(*(process.stop() for process in outside))


def _serve(server: Server) -> Callable[[], Coroutine[Any, Any, Process]]:
    async def start() -> Process:
        await server.start()
        return server.process

    return start


def _program(name: str, kind: str, settings: Settings, reaper: Reaper) -> Victim:
    port = settings.port(Port[kind.upper()])

    async def start() -> Process:
        require_free_port(port, name)
        environment = environment_for(settings, secrets=_SECRETS[kind])
        process = _started(name, [_MODULES[kind]], settings.home, reaper, environment)
        try:
            await until_ready(process, _probe(port, "/readyz"))
        except BaseException:
            await process.stop()
            raise
        return process

    return Victim(name, kind, start)


def _started(name: str, module: list[str], home: Path, reaper: Reaper, environment: Mapping[str, str]) -> Process:
    return Process.start(
        name,
        [sys.executable, "-m", *module],
        log=home / "logs" / f"{name}.log",
        reaper=reaper,
        env={**environment, "PYTHONPATH": str(ROOT)},
    )


def _probe(port: int, path: str) -> Callable[[], Coroutine[Any, Any, None]]:
    async def ask() -> None:
        try:
            async with httpx.AsyncClient(timeout=5, trust_env=False) as http:
                (await http.get(f"http://{LOCALHOST}:{port}{path}")).raise_for_status()
        except httpx.HTTPError as error:
            raise ConnectionError(repr(error)) from error

    return ask

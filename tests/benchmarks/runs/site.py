"""An installation as the benchmarks of runs use it: services in this process, workers and scheduler in others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from core.bootstrap import Platform, open_platform
from core.db.queries import load_queries
from core.embedded.process import Process, Reaper
from core.embedded.programs import WHOLE
from core.ids import RunId
from core.runs.model import RunRequest
from core.settings import Port, Settings
from core.tenancy import Policy, Role, TenantContext
from core.tenants.service import TenantService
from tests.fixtures.people import People
from tests.fixtures.ports import free_port_base
from tests.fixtures.serving import serving

SQL = load_queries(__file__, "runs.sql")
MODULE = "tests.benchmarks.runs.workload"
DEADLINE_S = 180.0
GENEROUS = Policy(concurrency_cap=100_000, daily_runs=100_000_000, queue_depth=10_000_000)
_MODULES = {Port.WORKER: "scheduler.worker", Port.SCHEDULER: "scheduler", Port.WEB: "chat_app"}
_SECRETS = {program.port: program.secrets for program in WHOLE.platform}
_LOOK_S = 0.1


async def tenant(tenants: TenantService, number: int) -> TenantContext:
    """The admin of one of the tenants."""
    _, admin = await People(tenants).login(f"ada@bank-{number}.example", f"bank-{number}", Role.ADMIN, policy=GENEROUS)
    return admin.ctx


@dataclass(frozen=True, slots=True)
class Site:
    """What a measurement works with."""

    settings: Settings
    platform: Platform
    owner: asyncpg.Connection[asyncpg.Record]
    reaper: Reaper

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Process]:
        """One more worker process, ready."""
        settings = self.settings.model_copy(update={"port_base": free_port_base()})
        async with self._serving(settings, Port.WORKER) as process:
            yield process

    @asynccontextmanager
    async def workers(self, count: int) -> AsyncIterator[list[Process]]:
        """Several."""
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(self.worker()) for _ in range(count)]

    @asynccontextmanager
    async def scheduler(self) -> AsyncIterator[Process]:
        """The scheduler's process, ready."""
        async with self._serving(self.settings, Port.SCHEDULER) as process:
            yield process

    @asynccontextmanager
    async def web(self) -> AsyncIterator[str]:
        """The web process, ready: its address."""
        async with self._serving(self.settings, Port.WEB):
            yield self.settings.web_url()

    @asynccontextmanager
    async def _serving(self, settings: Settings, port: Port) -> AsyncIterator[Process]:
        async with serving(settings, _MODULES[port], port, self.reaper, secrets=_SECRETS[port]) as process:
            yield process

    async def submit(self, ctx: TenantContext, workflow: str, **given: Any) -> RunId:
        """One run."""
        run, _ = await self.platform.runs.submit(ctx, RunRequest(workflow, given))
        return run.run_id

    async def outputs(self, run_ids: Sequence[str], *, look_s: float = _LOOK_S) -> list[Any]:
        """What the runs returned, once all have ended well. Raises ``TimeoutError``."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                rows = await self.owner.fetch(SQL["outputs"], list(run_ids))
                if len(rows) == len(run_ids):
                    return [json.loads(row["output"] or "null") for row in rows]
                await asyncio.sleep(look_s)


@asynccontextmanager
async def site_in(settings: Settings, reaper: Reaper, *, slots: int = 20) -> AsyncIterator[Site]:
    """The services on an installation of its own, with what is executed while runs are measured."""
    settings.home.mkdir(parents=True, exist_ok=True)
    settings = settings.model_copy(update={"workflow_modules": (MODULE,), "worker_slots": slots})
    owner = await asyncpg.connect(settings.required("database_url"))
    try:
        async with open_platform(settings, process="bench") as platform:
            yield Site(settings, platform, owner, reaper)
    finally:
        await owner.close()

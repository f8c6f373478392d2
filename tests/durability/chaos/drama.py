"""One performance: everything is started, runs are submitted, processes die, and it is seen what came of it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from core.bootstrap import open_platform
from core.embedded.process import Reaper
from core.settings import Settings
from core.tenancy import ROLE_SCOPES, Policy, RateLimit, Role, TenantContext
from tests.durability.chaos import scene as scenes
from tests.durability.chaos.judge import Verdict, judge
from tests.durability.chaos.killer import Killer, Pace
from tests.durability.chaos.people import People, jobs_of
from tests.durability.chaos.workflow import SERVICE
from tests.fixtures.people import People as Tenants

_POLICY = Policy(
    concurrency_cap=100,
    max_recoveries=1_000,
    budget_run_microusd=1_000_000,
    budget_month_microusd=10**12,
    rate_limits={SERVICE: RateLimit(limit=5, window_s=1)},
)


@dataclass(frozen=True, slots=True)
class Script:
    """How much is played. Runs are submitted over ``over_s`` seconds; ``deadline_s``: when all must have ended."""

    seed: int
    runs: int
    workers: int
    slots: int
    over_s: float
    pace: Pace
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it. ``surprises``: last words of processes that ended unkilled; ``broken``: HTTP 500 answers."""

    script: Script
    verdict: Verdict
    kills: dict[str, int]
    freezes: int
    seconds: float
    again: int
    broken: list[str]
    surprises: list[str]
    cancelled: int
    retried: int
    unfinished: bool

    @property
    def faults(self) -> dict[str, list[str]]:
        """Every exception there is, by what it is an exception to."""
        found = {**self.verdict.faults, "answers": self.broken, "processes": self.surprises}
        return {name: faults for name, faults in found.items() if faults}


async def perform(script: Script, home: Path, reaper: Reaper) -> Report:
    """Play it in an empty folder that another operating system user may enter."""
    opened = scenes.opened(home, reaper, seed=script.seed, workers=script.workers, slots=script.slots)
    async with opened as scene:
        admin, keys = await _tenant(scene.settings)
        await asyncio.gather(*(victim.begin() for victim in scene.victims))
        people = People(scene.settings.web_url(), scene.effects, *keys, seed=script.seed)
        killer = Killer(scene, script.seed, script.pace)
        jobs = jobs_of(script.runs, script.seed)
        began = time.monotonic()
        unfinished = False
        around = [asyncio.create_task(killer.run()), asyncio.create_task(scene.watch())]
        try:
            await people.play(jobs, over_s=script.over_s, deadline_s=script.deadline_s)
        except TimeoutError:
            unfinished = True
        finally:
            seconds = time.monotonic() - began
            for task in around:
                task.cancel()
            await asyncio.gather(*around, return_exceptions=True)
            await people.close()
        await scene.whole()
        surprises = scene.surprises
        await scene.stop_programs()
        async with open_platform(scene.settings, process="judge") as platform:
            verdict = await judge(platform, admin, jobs, people.told, scene.effects)
        return Report(
            script=script,
            verdict=verdict,
            kills=dict(killer.kills),
            freezes=killer.freezes,
            seconds=seconds,
            again=people.told.again,
            broken=people.told.broken,
            surprises=surprises,
            cancelled=len(people.told.cancelled),
            retried=len(people.told.retried),
            unfinished=unfinished,
        )


async def _tenant(settings: Settings) -> tuple[TenantContext, tuple[str, str]]:
    """The tenant, and a key each of two of its people: nobody decides about a run they submitted."""
    async with open_platform(settings, process="cast") as platform:
        tenants = Tenants(platform.tenants)
        contexts = []
        for name in ("ada", "ravi"):
            _, identity = await tenants.login(f"{name}@bank.example", "bank", Role.ADMIN, policy=_POLICY)
            contexts.append(identity.ctx)
        program, reviewer = [
            await platform.tenants.issue_key(ctx, "chaos", tuple(ROLE_SCOPES[Role.ADMIN])) for ctx in contexts
        ]
        return contexts[0], (program, reviewer)

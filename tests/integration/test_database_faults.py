"""Postgres and Redis die and come back in the middle of runs: every run ends, and none fails because of it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import SecretStr

from core.db.migrate import migrate
from core.embedded.postgres import Postgres
from core.embedded.process import Reaper
from core.embedded.redis import Redis
from core.embedded.servers import complete
from core.errors import BailiwickError, Unavailable
from core.ids import WorkerId
from core.queue.model import Claims
from core.runs.model import RunRequest, RunState, RunView
from core.settings import Port, Settings
from core.tenancy import Policy, RateLimit
from tests.fixtures.ports import free_port_base
from tests.fixtures.servers import PASSWORD, ROLE_PASSWORDS, SECRET_KEY
from tests.fixtures.timing import within
from tests.fixtures.workers import Site, site_in, working

POLICY = Policy(concurrency_cap=100, rate_limits={"bureau": RateLimit(limit=1_000, window_s=1)})


@dataclass(frozen=True, slots=True)
class Servers:
    """Servers that this file may kill."""

    postgres: Postgres
    redis: Redis
    settings: Settings


@pytest.fixture(scope="module")
def servers(server_home: Path, reaper: Reaper) -> Iterator[Servers]:
    """Started once, migrated."""
    base, home = free_port_base(), server_home / "faults"
    home.mkdir(mode=0o711)
    postgres = Postgres(home, port=base + Port.POSTGRES, password=PASSWORD, reaper=reaper)  # as durable as ours
    redis = Redis(home, port=base + Port.REDIS, password=PASSWORD, reaper=reaper)
    with asyncio.Runner() as runner:
        runner.run(postgres.start())
        runner.run(redis.start())
        runner.run(migrate(postgres.url, **ROLE_PASSWORDS))
        given = Settings(
            home=home,
            port_base=base,
            secret_key=SecretStr(SECRET_KEY),
            database_url=SecretStr(postgres.url),
            redis_url=SecretStr(redis.url),
        )
        yield Servers(postgres, redis, complete(given))
        runner.run(redis.stop())
        runner.run(postgres.stop())


@dataclass(frozen=True, slots=True)
class Middle:
    """An installation whose worker is in the middle of runs, some of them held in a step."""

    site: Site
    log: Path
    held: Path
    runs: list[RunView]

    async def ended(self) -> list[RunView]:
        """All runs, once each is in a final state; asked again for as long as a server is away."""

        platform = self.site.platform
        platform.queue.forgive_silence()  # as a scheduler does that has lost its connection

        async def look() -> list[RunView] | None:
            try:
                await platform.queue.wake_due()  # as the scheduler does
                await platform.queue.recover()
                found = [await platform.runs.get(self.site.admin, run.run_id) for run in self.runs]
                for review in await platform.reviews.open(self.site.reviewer):
                    await platform.reviews.decide(self.site.reviewer, review.review_id, "approve")
            except BailiwickError:
                return None
            return found if all(run.state.final for run in found) else None

        return await self.site.until(look)

    async def all_went_well(self) -> None:
        """Every run succeeded, and no step had its effect twice: its process was there all the time."""
        ended = await self.ended()
        assert Counter((run.state, str(run.error)) for run in ended) == {(RunState.SUCCEEDED, "None"): len(ended)}
        effects = Counter(line for line in self.log.read_text().splitlines() if not line.startswith("holding"))
        assert set(effects.values()) == {1}


@asynccontextmanager
async def middle(servers: Servers, tmp_path: Path) -> AsyncIterator[Middle]:
    """Runs of every kind, some of which wait inside a step for a file to go."""
    log, held = tmp_path / "effects", tmp_path / "held"
    log.touch()
    held.touch()
    async with site_in(servers.settings, POLICY) as site, working(site):
        work = {"log": str(log)}
        kinds = ["sample-plain"] * 20 + ["sample-review"] * 5 + ["sample-call"] * 5
        requests = [RunRequest("sample-plain", work | {"hold": str(held)}) for _ in range(4)]
        requests += [RunRequest(kind, work | {"number": number}) for number, kind in enumerate(kinds)]
        runs = await site.platform.runs.submit_many(site.admin, requests)

        async def under_way() -> bool | None:
            return log.read_text().count("holding") == 4 or None

        await site.until(under_way)
        try:
            yield Middle(site, log, held, runs)
        finally:
            held.unlink(missing_ok=True)


async def test_postgres_is_stopped_and_started_in_the_middle_of_runs(servers: Servers, tmp_path: Path) -> None:
    async with middle(servers, tmp_path) as at:
        await servers.postgres.stop()
        at.held.unlink()
        await servers.postgres.start()
        await at.all_went_well()


async def test_postgres_is_killed_twice_in_the_middle_of_runs(servers: Servers, tmp_path: Path) -> None:
    async with middle(servers, tmp_path) as at:
        for _ in range(2):
            os.kill(servers.postgres.process.pid, signal.SIGKILL)
            await servers.postgres.process.wait()
            await servers.postgres.start()
        at.held.unlink()
        await at.all_went_well()


async def test_redis_is_killed_in_the_middle_of_runs_and_wake_ups_come_again_when_it_is_back(
    servers: Servers, tmp_path: Path
) -> None:
    async with middle(servers, tmp_path) as at:
        os.kill(servers.redis.process.pid, signal.SIGKILL)
        await servers.redis.process.wait()
        at.held.unlink()
        runs, admin = at.site.platform.runs, at.site.admin
        meanwhile, _ = await runs.submit(admin, RunRequest("sample-plain", {"log": str(at.log)}))
        await at.site.ended([meanwhile])
        await servers.redis.start()
        await at.all_went_well()

        async def woken() -> float:
            began = asyncio.get_running_loop().time()
            after, _ = await runs.submit(admin, RunRequest("sample-plain", {"log": str(at.log)}))
            await at.site.ended([after])
            return asyncio.get_running_loop().time() - began

        await within(5, woken)


async def test_a_claim_whose_answer_was_lost_is_made_again_by_a_worker_that_lives(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with middle(servers, tmp_path) as at:
        queue = at.site.platform.queue
        claim = queue.claim
        unknown: list[str] = []

        async def lost(worker_id: WorkerId, limit: int) -> Claims:
            claims = await claim(worker_id, limit)
            if not claims:
                return claims
            monkeypatch.setattr(queue, "claim", claim)
            unknown.extend(claim.run_id for claim in claims)
            raise Unavailable("Postgres went away.")

        monkeypatch.setattr(queue, "claim", lost)
        submitted = [RunRequest("sample-plain", {"log": str(at.log)}) for _ in range(8)]
        runs = await at.site.ended(await at.site.platform.runs.submit_many(at.site.admin, submitted))
        assert {run.state for run in runs} == {RunState.SUCCEEDED}
        assert unknown
        at.held.unlink()
        await at.all_went_well()
        for run_id in unknown:
            assert (await at.site.platform.runs.get(at.site.admin, run_id)).attempt >= 2

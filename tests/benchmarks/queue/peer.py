"""The peer in real time: a plain DBOS queue of as many workers as there are slots, looked at every 0.1 s.

``python -m tests.benchmarks.queue.peer SLOTS POOL_SIZE`` is its worker; the address of its database is the variable
``DSN``. DBOS's default is to look once a second; more often only helps it. It has no clock of ours, so stories
are compressed for it.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import asyncpg
from dbos import DBOS, DBOSClient, DBOSConfig, EnqueueOptions

from core.db.queries import load_queries
from core.queue.rows import Start
from core.queue.simulator import Outcome, Scenario, Use
from core.settings import Settings
from tests.benchmarks.peer_database import JsonSerializer, beside
from tests.benchmarks.queue.places import until

SQL = load_queries(__file__, "bench_queue.sql")
_QUEUE, _NAME, _VERSION = "peer", "peer", "peer-1"
_READY = "ready"
_POLL_S = 0.1
_READY_S = 30.0


async def play(settings: Settings, scenario: Scenario) -> Outcome:
    """A scenario in real time, to its end; what never started is left queued."""
    async with beside(settings) as dsn:
        return await _played(dsn, settings.database_pool_size, scenario)


async def _played(dsn: str, pool_size: int, scenario: Scenario) -> Outcome:
    owner = await asyncpg.connect(dsn)
    client = DBOSClient(
        system_database_url=dsn,
        serializer=JsonSerializer(),
        system_database_pool_size=pool_size,
        application_name=_NAME,
    )
    try:
        with _worker(dsn, scenario.slots, pool_size):
            await client.enqueue_async(_options(_READY), 0.0)
            await until(partial(owner.fetchval, SQL["peer_ended"], _READY), _READY_S)
            await _submit(client, owner, scenario)
            rows = await owner.fetch(SQL["peer_runs"], _QUEUE)
    finally:
        client.destroy()
        await owner.close()
    return _outcome(scenario, {int(row["id"]): row["waited_s"] for row in rows if row["id"] != _READY})


def _options(workflow_id: str) -> EnqueueOptions:
    return EnqueueOptions(queue_name=_QUEUE, workflow_name="nap", app_version=_VERSION, workflow_id=workflow_id)


async def _submit(client: DBOSClient, owner: asyncpg.Connection[asyncpg.Record], scenario: Scenario) -> None:
    at_once = [number for number, one in enumerate(scenario.arrivals) if one.at_s == 0]
    durations = [scenario.arrivals[number].duration_s for number in at_once]
    await owner.execute(SQL["peer_enqueue"], _QUEUE, _VERSION, _NAME, [str(number) for number in at_once], durations)
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for number, one in enumerate(scenario.arrivals):
            if 0 < one.at_s < scenario.ends_s:
                await asyncio.sleep(one.at_s - (time.monotonic() - began))
                tasks.create_task(client.enqueue_async(_options(str(number)), one.duration_s))
        await asyncio.sleep(scenario.ends_s - (time.monotonic() - began))


def _outcome(scenario: Scenario, waited_s: dict[int, float]) -> Outcome:
    uses = []
    for number, waited in waited_s.items():
        one = scenario.arrivals[number]
        start = Start(str(number), one.tenant, 0.0, False, waited, 0.0, 0.0, 0.0, 0.0)
        uses.append(Use(one, start, one.at_s + waited, one.at_s + waited + one.duration_s))
    submitted = sum(one.at_s < scenario.ends_s for one in scenario.arrivals)
    return Outcome(scenario, tuple(uses), submitted - len(uses))


@contextmanager
def _worker(dsn: str, slots: int, pool_size: int) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(slots), str(pool_size)],
        env=os.environ | {"DSN": dsn, "PYTHONPATH": str(Path(__file__).parents[3])},
        start_new_session=True,
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


async def main(slots: int, pool_size: int) -> None:
    """Work until killed."""
    DBOS(
        config=DBOSConfig(
            name=_NAME,
            system_database_url=os.environ["DSN"],
            application_version=_VERSION,
            serializer=JsonSerializer(),
            sys_db_pool_size=pool_size,
            run_migrations=False,
            log_level="WARNING",
            scheduler_polling_interval_sec=3600.0,
        )
    )

    @DBOS.workflow(name="nap")
    async def nap(seconds: float) -> None:
        await DBOS.run_step_async({"name": "sleep"}, asyncio.sleep, seconds)

    DBOS.listen_queues([_QUEUE])
    DBOS.launch()
    await DBOS.register_queue_async(_QUEUE, worker_concurrency=slots, polling_interval_sec=_POLL_S)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))

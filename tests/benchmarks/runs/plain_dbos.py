"""The peer: a plain DBOS queue and worker processes, no tenants, no admission, no ledger.

``python -m tests.benchmarks.runs.plain_dbos CONCURRENCY POOL_SIZE`` is a worker; it works until it is killed and takes
the address of its database from the variable ``DSN``.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dbos import DBOS, DBOSClient, DBOSConfig, EnqueueOptions

from tests.benchmarks.peer_database import JsonSerializer
from tests.benchmarks.runs.workload import answer

QUEUE = "plain"
POLL_S = 0.1
_NAME, _VERSION = "plain", "plain-1"


class Plain:
    """Submits to the peer's queue."""

    def __init__(self, dsn: str, pool_size: int) -> None:
        self._client = DBOSClient(
            system_database_url=dsn,
            serializer=JsonSerializer(),
            system_database_pool_size=pool_size,
            application_name=_NAME,
        )

    async def submit(self, number: int, workflow: str = "floor") -> Any:
        """Enqueue one workflow; its handle."""
        options = EnqueueOptions(queue_name=QUEUE, workflow_name=workflow, app_version=_VERSION)
        return await self._client.enqueue_async(options, number)

    def close(self) -> None:
        """Close its connections."""
        self._client.destroy()


@contextmanager
def worker(dsn: str, concurrency: int, pool_size: int) -> Iterator[int]:
    """A worker process of the peer; its process id."""
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(concurrency), str(pool_size)],
        env=os.environ | {"DSN": dsn, "PYTHONPATH": str(Path(__file__).parents[3])},
        start_new_session=True,
    )
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


async def main(concurrency: int, pool_size: int) -> None:
    """Work until killed."""
    DBOS(
        config=DBOSConfig(
            name=_NAME,
            system_database_url=os.environ["DSN"],
            application_version=_VERSION,
            executor_id=f"plain-{os.getpid()}",
            serializer=JsonSerializer(),
            sys_db_pool_size=pool_size,
            run_migrations=False,
            log_level="WARNING",
            scheduler_polling_interval_sec=3600.0,
        )
    )

    async def square(number: int) -> dict[str, int]:
        return answer(number)

    @DBOS.workflow(name="floor")
    async def floor(number: int) -> dict[str, int]:
        result: dict[str, Any] = await DBOS.run_step_async({"name": "square"}, square, number)
        return result

    @DBOS.workflow(name="chain")
    async def chain(number: int) -> dict[str, float]:
        began = time.perf_counter()
        for _ in range(number):
            await DBOS.run_step_async({"name": "square"}, square, number)
        return {"began": began, "ended": time.perf_counter()}

    @DBOS.workflow(name="parked")
    async def parked(number: int) -> None:
        await DBOS.sleep_async(3600.0)

    DBOS.listen_queues([QUEUE])
    DBOS.launch()
    await DBOS.register_queue_async(QUEUE, worker_concurrency=concurrency, polling_interval_sec=POLL_S)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))

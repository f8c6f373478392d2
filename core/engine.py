"""The only door to the durable engine (DBOS Transact).

One engine per worker process. It executes one function, ``body``, once per claimed run, under the run's id, and
keeps who executes it, since when, and how it ended. What crosses this door is JSON: run ids in, ends out; ``body``
turns errors into JSON first. Steps are recorded with their cost in our own tables and not again by the engine
(core/decisions/0014): an execution that goes on begins at the top.

An execution goes:

    (unknown) --start--> pending --body returned--> ended --rewind--> enqueued --> pending …
                            |  worker died: another worker resumes it --> enqueued on that worker's own queue

- ``start``: the first claim executes in this process at once.
- ``rewind``: a parked run goes on.
- ``resume``: an execution whose process died is taken over.

Rewound and resumed executions pass through this worker's own queue, looked at every 0.1 s. On failure:
losing Postgres makes the engine wait and go on; a second executor of the same run cannot record its end (the
engine knows that it no longer owns the execution), and its writes are refused by ours (its claim is over).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from dbos import DBOS, DBOSConfig, SetWorkflowID
from dbos import Serializer as EngineSerializer

JSON = dict[str, Any]
Body = Callable[[str], Awaitable[JSON]]

_NAME = "bailiwick"
_VERSION = "1"  # pinned: versions of workflows are ours to route, an edit of code must not orphan runs
_SCHEMA = "dbos"
_QUEUE_POLL_S = 0.1
_ENDED = frozenset({"SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"})


class JsonSerializer(EngineSerializer):
    """Checkpoints as JSON: readable, and no code runs when they are read."""

    def serialize(self, data: Any) -> str:
        return json.dumps(data, ensure_ascii=False, default=repr)

    def deserialize(cls, serialized_data: str) -> Any:  # noqa: N805 - the library's own signature
        return json.loads(serialized_data)

    def name(self) -> str:
        return "json"


class Engine:
    """The durable engine of one worker. ``launch`` it inside the worker's event loop."""

    def __init__(self, dsn: str, worker_id: str, body: Body, *, pool_size: int = 10) -> None:
        self._dsn = dsn
        self._queue = f"worker-{worker_id}"
        self._worker_id = worker_id
        self._body = body
        self._pool_size = pool_size
        self._ends: dict[str, asyncio.Future[JSON]] = {}
        self._execute: Callable[[str], Coroutine[Any, Any, JSON]] | None = None

    @property
    def running(self) -> bool:
        """Whether the engine is launched; one that is looks into Postgres every second."""
        return self._execute is not None

    async def launch(self) -> None:
        """Connect and listen to this worker's queue; nothing when it does already. Takes about 50 ms."""
        if self.running:
            return
        DBOS(config=_config(self._dsn, executor_id=self._worker_id, pool_size=self._pool_size))

        async def run(run_id: str) -> JSON:
            return await self._run(run_id)

        execute = DBOS.workflow(name="run")(run)
        DBOS.listen_queues([self._queue])
        DBOS.launch()
        self._execute = execute
        await DBOS.register_queue_async(self._queue, polling_interval_sec=_QUEUE_POLL_S)

    async def close(self) -> None:
        """Stop listening and close connections; ``launch`` opens them again. Executions stay resumable."""
        if not self.running:
            return
        self._execute = None
        # The engine made its own thread pool the loop's default, and shuts that pool down now.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(thread_name_prefix="loop"))
        await asyncio.to_thread(DBOS.destroy, destroy_registry=True)

    async def execute(self, run_id: str, *, first: bool) -> JSON:
        """Execute a claimed run to its end, or to its next wait; what ``body`` returned.

        ``first``: it was never claimed before, so the engine cannot know it. Returns once the engine has recorded
        the end, so that the run may be rewound at any time after.
        """
        status = None if first else await self._status(run_id)
        if status is None:
            return await self._start(run_id)
        if status in _ENDED:
            await DBOS.rewind_workflow_async(run_id, start_step=1, queue_name=self._queue)
        else:
            await DBOS.resume_workflow_async(run_id, queue_name=self._queue)
        return await self._dequeued(run_id)

    async def _start(self, run_id: str) -> JSON:
        if self._execute is None:
            raise RuntimeError("The engine was not launched.")
        with SetWorkflowID(run_id):
            handle = await DBOS.start_workflow_async(self._execute, run_id)
        end: JSON = await handle.get_result()
        return end

    async def _dequeued(self, run_id: str) -> JSON:
        end = self._ends[run_id] = asyncio.get_running_loop().create_future()
        try:
            result: JSON = await end
        finally:
            del self._ends[run_id]
        pause_s = 0.002
        while await self._status(run_id) not in _ENDED:  # recorded a moment after the body returned
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.1)
        return result

    async def _run(self, run_id: str) -> JSON:
        end = self._ends.get(run_id)
        try:
            result = await self._body(run_id)
        except BaseException as error:
            if end is not None and not end.done():
                end.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))
            raise
        if end is not None and not end.done():
            end.set_result(result)
        return result

    @staticmethod
    async def _status(run_id: str) -> str | None:
        found = await DBOS.get_workflow_status_async(run_id)
        return None if found is None else str(found.status)


async def migrate_engine(dsn: str) -> None:
    """Create or upgrade the engine's own tables, as the engine's role."""
    await asyncio.to_thread(_migrate, dsn)


def _migrate(dsn: str) -> None:
    DBOS(config=_config(dsn, executor_id="migrate", pool_size=2, migrate=True))
    try:
        DBOS.launch()
    finally:
        DBOS.destroy(destroy_registry=True)


def _config(dsn: str, *, executor_id: str, pool_size: int, migrate: bool = False) -> DBOSConfig:
    logging.getLogger("dbos").setLevel(logging.WARNING)
    parts = urlsplit(dsn)
    return DBOSConfig(
        name=_NAME,
        system_database_url=urlunsplit(parts._replace(scheme="postgresql")),
        dbos_system_schema=_SCHEMA,
        application_version=_VERSION,
        executor_id=executor_id,
        serializer=JsonSerializer(),
        sys_db_pool_size=pool_size,
        run_migrations=migrate,
        log_level="WARNING",
        scheduler_polling_interval_sec=3600.0,
    )

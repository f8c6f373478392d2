"""The only door to the durable engine (DBOS Transact).

One engine per worker process. Every claim of a run is one execution, and every execution one workflow of the engine,
named after both (``run_…:3`` is the third claim). It executes one function, ``body``, and keeps who executes it, since
when, and how it ended. What crosses this door is JSON: names in, ends out; ``body`` turns errors into JSON first.
Steps are recorded with their cost in our own tables and not again by the engine (core/decisions/0014): the next
execution of a run begins at the top and is told what is done (core/decisions/0016).

    (unknown) --execute--> pending --body returned--> ended --a day--> forgotten
                              |  worker died: the run is claimed again, by another name
                              +--a week--> forgotten

On failure: losing Postgres makes the engine wait and go on. An execution whose run somebody else has claimed since
ends like any other, and its writes are refused by ours (its claim is over).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from dbos import DBOS, DBOSConfig, SetWorkflowID
from dbos import Serializer as EngineSerializer

JSON = dict[str, Any]
Body = Callable[[str], Awaitable[JSON]]

_NAME = "bailiwick"
_VERSION = "1"  # pinned: versions of workflows are ours to route, an edit of code must not orphan runs
_SCHEMA = "dbos"
_KEEP_ENDED, _KEEP = timedelta(days=1), timedelta(days=7)
_FORGET_AT_ONCE = 500


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
        self._worker_id = worker_id
        self._body = body
        self._pool_size = pool_size
        self._execute: Callable[[str], Coroutine[Any, Any, JSON]] | None = None

    @property
    def running(self) -> bool:
        """Whether the engine is launched; one that is looks into Postgres every second."""
        return self._execute is not None

    async def launch(self) -> None:
        """Connect; nothing when it has. Takes about 50 ms."""
        if self.running:
            return
        DBOS(config=_config(self._dsn, executor_id=self._worker_id, pool_size=self._pool_size))

        async def execution(name: str) -> JSON:
            return await self._body(name)

        execute = DBOS.workflow(name="execution")(execution)
        DBOS.listen_queues([])
        DBOS.launch()
        self._execute = execute

    async def close(self) -> None:
        """Close connections; ``launch`` opens them again."""
        if not self.running:
            return
        self._execute = None
        # The engine made its own thread pool the loop's default, and shuts that pool down now.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(thread_name_prefix="loop"))
        await asyncio.to_thread(DBOS.destroy, destroy_registry=True)

    async def execute(self, name: str) -> JSON:
        """Execute under a name that was never used before; what ``body`` returned for it."""
        if self._execute is None:
            raise RuntimeError("The engine was not launched.")
        with SetWorkflowID(name):
            handle = await DBOS.start_workflow_async(self._execute, name)
        end: JSON = await handle.get_result()
        return end

    async def forget(self, now: datetime) -> int:
        """Delete what nobody asks for any more, of all workers: ended a day ago, or begun a week ago. How many."""
        ended = {"completed_before": (now - _KEEP_ENDED).isoformat()}
        left = {"end_time": (now - _KEEP).isoformat(), "status": "PENDING"}
        return await _forget(ended) + await _forget(left)


async def _forget(which: dict[str, str]) -> int:
    forgotten = 0
    while True:
        found = await DBOS.list_workflows_async(
            limit=_FORGET_AT_ONCE,
            load_input=False,
            load_output=False,
            **which,  # type: ignore[arg-type]
        )
        if not found:
            return forgotten
        await DBOS.delete_workflows_async([one.workflow_id for one in found])
        forgotten += len(found)


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

"""The graph of what memories relate: the only door to the graph database (Neo4j 5.26+, AuraDB, or ArcadeDB).

``(:Triple {memory_id, owner, predicate, validity, origin})`` points with ``SUBJECT`` and ``OBJECT`` at
``(:Entity {key, name})``; every node carries its ``tenant_id`` and every statement names it. The graph is a
copy that may be lost: it is written only by ``memory.projection``, one writer per tenant, and answers with
ids of memories only, whose text is then read from Postgres behind row-level security. So a mistake here can
cost an answer, never show a foreign one.

On failure: ``Unavailable``. After one, further calls fail at once for ``PAUSE_S`` seconds, so that a graph
that is gone does not slow every recall down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, LiteralString, TypeVar, cast

import neo4j
import structlog
from neo4j.exceptions import ConstraintError, DriverError, Neo4jError

from core.clock import Clock
from core.db.queries import load_queries
from core.errors import Unavailable
from core.ids import MemoryId, TenantId
from memory.model import EVERYBODY

PAUSE_S = 5.0
TIMEOUT_S = 5.0
RETRIED_S = 0.5
"""How long a failing call is tried again. Short: there is one writer, and a recall waits for its answer."""
NEIGHBOURS_WITHIN_S = 1.0
"""How long a recall waits for the graph. The chat waits 3 s for everything a recall does."""
NEIGHBOURS = 30
"""Most memories taken per step from the things named in a query."""

_ATTEMPTS = 3
_CYPHER = load_queries(__file__, "graph.cypher")
_log = structlog.get_logger(__name__)

Result = TypeVar("Result")
Work = Callable[[neo4j.AsyncManagedTransaction], Awaitable[Result]]


@dataclass(frozen=True, slots=True)
class Node:
    """One triple as the graph holds it. ``owner`` is a user's id, or empty: known to the whole tenant."""

    memory_id: MemoryId
    owner: str
    subject: str
    predicate: str
    object: str
    subject_key: str
    object_key: str
    valid_from: datetime
    valid_to: datetime | None
    thread_id: str | None
    learned_at: datetime


@dataclass(frozen=True, slots=True)
class Change:
    """Position in the tenant's order of changes, the memory that changed, and what it says now (None: nothing)."""

    position: int
    memory_id: MemoryId
    node: Node | None


class MemoryGraph:
    """The graph of all tenants. Opening it connects to nothing yet."""

    def __init__(self, url: str, user: str, password: str, clock: Clock) -> None:
        self._driver = neo4j.AsyncGraphDatabase.driver(
            url,
            auth=(user, password),
            connection_timeout=2,
            connection_acquisition_timeout=TIMEOUT_S,
            max_transaction_retry_time=RETRIED_S,
            # The default waits a second before its first retry, which shows up as waits of many seconds.
            initial_retry_delay=0.02,
            retry_delay_multiplier=1.6,
            telemetry_disabled=True,
            notifications_min_severity="OFF",
            user_agent="bailiwick",
        )
        self._clock = clock
        self._paused_until: datetime | None = None
        self._prepared = False

    async def close(self) -> None:
        """Close every connection."""
        await self._driver.close()

    async def position(self, tenant_id: TenantId) -> int:
        """The last change applied for this tenant; 0 when its graph is empty."""

        async def read(tx: neo4j.AsyncManagedTransaction) -> int:
            record = await (await tx.run(_text("position"), tenant=tenant_id)).single()
            return int(record["position"]) if record is not None else 0

        return await self._call(read, write=False)

    async def apply(self, tenant_id: TenantId, changes: Sequence[Change]) -> None:
        """Apply changes in order and note the last position, all or nothing. The caller is the only writer.

        Changes up to the noted position were applied before (a crash came between) and are left out.
        """

        async def write(tx: neo4j.AsyncManagedTransaction) -> None:
            record = await (await tx.run(_text("position"), tenant=tenant_id)).single()
            reached = int(record["position"]) if record is not None else 0
            latest = {change.memory_id: change.node for change in changes if change.position > reached}
            if latest:
                await _put(tx, tenant_id, [node for node in latest.values() if node is not None])
                await _remove(tx, tenant_id, [memory_id for memory_id, node in latest.items() if node is None])
                await _run(tx, "set_position", tenant=tenant_id, position=changes[-1].position)

        await self._call(write, write=True)

    async def clear(self, tenant_id: TenantId, position: int) -> None:
        """Remove everything of a tenant, and start again after ``position``."""

        async def some(tx: neo4j.AsyncManagedTransaction, name: str) -> int:
            record = await (await tx.run(_text(name), tenant=tenant_id)).single()
            return int(record["removed"]) if record is not None else 0

        async def note(tx: neo4j.AsyncManagedTransaction) -> None:
            await _run(tx, "set_position", tenant=tenant_id, position=position)

        self._prepared = False  # whoever lost the nodes may have lost the constraints too
        for name in ("clear_triples", "clear_entities"):
            while await self._call(partial(some, name=name), write=True):
                pass
        await self._call(note, write=True)

    async def neighbours(
        self, tenant_id: TenantId, user_id: str | None, keys: Sequence[str], at: datetime
    ) -> dict[MemoryId, int]:
        """Memories valid at ``at`` about the things named (1 step) and about what those lead to (2 steps).

        Raises ``Unavailable`` after ``NEIGHBOURS_WITHIN_S`` at the latest.
        """
        if not keys:
            return {}
        given: dict[str, Any] = {
            "tenant": tenant_id,
            "owners": ["", user_id] if user_id else [""],
            "at_ms": _milliseconds(at),
            "limit": NEIGHBOURS,
        }

        async def read(tx: neo4j.AsyncManagedTransaction) -> dict[MemoryId, int]:
            near = await _ids(tx, "about", keys=list(keys), **given)
            passed = [*keys, *EVERYBODY]
            far = await _ids(tx, "one_step_further", memory_ids=near, passed=passed, **given) if near else []
            return {MemoryId(one): 2 for one in far} | {MemoryId(one): 1 for one in near}

        try:
            async with asyncio.timeout(NEIGHBOURS_WITHIN_S):
                return await self._call(read, write=False)
        except TimeoutError as error:
            raise self._away(error) from error

    async def _call(self, work: Work[Result], *, write: bool) -> Result:
        now = self._clock.now()
        if self._paused_until is not None and now < self._paused_until:
            raise Unavailable("The graph database did not answer a moment ago.", retry_after_s=PAUSE_S)
        try:
            async with self._driver.session() as session:
                if write and not self._prepared:
                    await self._prepare(session)
                result = await self._attempt(session, work, write=write)
        except (Neo4jError, DriverError, OSError) as error:
            raise self._away(error) from error
        self._paused_until = None
        return result

    def _away(self, error: Exception) -> Unavailable:
        """Leave the graph alone for a while; what to raise."""
        self._paused_until = self._clock.now() + timedelta(seconds=PAUSE_S)
        _log.warning("memory.graph_away", error=type(error).__name__)
        return Unavailable("The graph database does not answer.", retry_after_s=PAUSE_S)

    async def _prepare(self, session: neo4j.AsyncSession) -> None:
        for name in ("unique_entity", "unique_triple", "unique_position"):
            await (await session.run(_text(name))).consume()
        self._prepared = True

    @staticmethod
    async def _attempt(session: neo4j.AsyncSession, work: Work[Result], *, write: bool) -> Result:
        bounded = neo4j.unit_of_work(timeout=TIMEOUT_S)(work)
        if not write:
            return await session.execute_read(bounded)
        for attempt in range(_ATTEMPTS):
            try:
                return await session.execute_write(bounded)
            except ConstraintError:
                # Two tenants' writers can meet in one page of an index; the driver does not retry this one.
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")


async def _put(tx: neo4j.AsyncManagedTransaction, tenant_id: TenantId, nodes: Sequence[Node]) -> None:
    if nodes:
        await _run(tx, "put", tenant=tenant_id, triples=[_row(node) for node in nodes])


async def _remove(tx: neo4j.AsyncManagedTransaction, tenant_id: TenantId, memory_ids: Sequence[MemoryId]) -> None:
    if memory_ids:
        result = await tx.run(_text("remove"), tenant=tenant_id, memory_ids=list(memory_ids))
        keys = {key async for record in result for key in record["keys"]}
        await _run(tx, "remove_orphans", tenant=tenant_id, keys=sorted(keys))


async def _run(tx: neo4j.AsyncManagedTransaction, name: str, **given: Any) -> None:
    await (await tx.run(_text(name), **given)).consume()


async def _ids(tx: neo4j.AsyncManagedTransaction, name: str, **given: Any) -> list[str]:
    return [record["memory_id"] async for record in await tx.run(_text(name), **given)]


def _text(name: str) -> LiteralString:
    # The driver asks for literals to keep values out of statements; ours come from a file.
    return cast(LiteralString, _CYPHER[name])


def _row(node: Node) -> dict[str, Any]:
    return {
        "memory_id": node.memory_id,
        "owner": node.owner,
        "subject": node.subject,
        "predicate": node.predicate,
        "object": node.object,
        "subject_key": node.subject_key,
        "object_key": node.object_key,
        "valid_from_ms": _milliseconds(node.valid_from),
        "valid_to_ms": _milliseconds(node.valid_to) if node.valid_to else None,
        "thread_id": node.thread_id,
        "learned_at_ms": _milliseconds(node.learned_at),
    }


def _milliseconds(moment: datetime) -> int:
    """Whole milliseconds since 1970: compared alike by every graph database, unlike their date types."""
    return int(moment.timestamp() * 1000)

"""How the graph follows the memories: the one writer of a tenant's graph.

The outbox gives the order; the row of a memory, read when its turn comes, gives the content. So a change
applied twice does no harm, a memory changed twice needs one write, and one that was forgotten meanwhile is
removed whatever the outbox said before.

Whoever holds the tenant's advisory lock writes; everybody else leaves at once, and the holder looks again
after letting go, so nothing that was committed meanwhile is left lying. When the graph fails, changes wait:
the next change of the tenant, or a durable retry, takes them along. The position noted in the graph tells
when the graph lost its data, or went on from a newer time than the restored Postgres: then everything the
tenant has is written anew.
"""

from __future__ import annotations

from core.db.pool import Database, Transaction
from core.tenancy import TenantContext
from memory import store
from memory.graph import MemoryGraph

BATCH = 200


class GraphProjection:
    """Brings the graph to what the memories say."""

    def __init__(self, db: Database, graph: MemoryGraph) -> None:
        self._db = db
        self._graph = graph

    async def drain(self, ctx: TenantContext) -> int:
        """Apply everything that waits; how many changes. Raises ``Unavailable`` when the graph does not answer."""
        total = 0
        while True:
            async with self._db.tenant_transaction(ctx) as tx:
                if not await store.try_graph_lock(tx):
                    return total
                total += await self._apply_some(tx, ctx)
            async with self._db.tenant_transaction(ctx) as tx:
                if not await store.anything_waiting(tx):
                    return total

    async def _apply_some(self, tx: Transaction, ctx: TenantContext) -> int:
        done, given_out = await store.graph_position(tx)
        reached = await self._graph.position(ctx.tenant_id)
        if is_lost(reached, done, given_out):
            await self._graph.clear(ctx.tenant_id, given_out)
            await store.applied(tx, given_out)
            await store.enqueue_all(tx)
        changes = await store.waiting(tx, BATCH)
        if changes:
            await self._graph.apply(ctx.tenant_id, changes)
            await store.applied(tx, changes[-1].position)
        return len(changes)


def is_lost(reached: int, done: int, given_out: int) -> bool:
    """Whether the graph (at ``reached``) cannot be what Postgres (``done`` of ``given_out``) made it.

    One batch ahead of ``done`` is normal: a crash came between the two commits.
    """
    return not done <= reached <= given_out

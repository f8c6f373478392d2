"""Rows of routes and versions."""

from __future__ import annotations

from datetime import datetime

from core.db.pool import Row, Transaction
from core.db.queries import load_queries
from core.versions.model import Route

SQL = load_queries(__file__)


def _route(row: Row) -> Route:
    return Route(**{**row, "tenants": tuple(row["tenants"])})


async def routes(tx: Transaction) -> dict[str, Route]:
    """All routes, by workflow."""
    return {row["workflow"]: _route(row) for row in await tx.fetch(SQL["routes"])}


async def route(tx: Transaction, workflow: str) -> Route | None:
    """One route; nobody else changes it until the end of the transaction."""
    row = await tx.fetchrow(SQL["route"], workflow)
    return None if row is None else _route(row)


async def set_route(tx: Transaction, workflow: str, route: Route | None, by: str, now: datetime) -> None:
    """Put a route in force; None: new runs go to the newest version."""
    if route is None:
        await tx.fetchval(SQL["set_route"], workflow, None, None, None, 0.0, [], by, now)
        return
    await tx.fetchval(
        SQL["set_route"],
        workflow,
        route.base,
        route.before,
        route.canary,
        route.percent,
        list(route.tenants),
        by,
        now,
    )


async def versions(tx: Transaction, alive_since: datetime, idle_since: datetime) -> list[Row]:
    """Rows of workflow, version, queued, running, waiting, oldest_at, workers."""
    return await tx.fetch(SQL["versions"], alive_since, idle_since)

"""Versions of workflows: where new runs go, and what of each is still open.

Operators try, promote and roll back while everything runs; each change is audited and in force everywhere within a
second, as policies are. A run keeps the version it was submitted with, so a change never touches one. The process that
submits a run must have the code of its version, because it checks the input; the worker that executes it must have it,
because it executes it. Nobody else needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Protocol

from core.audit.service import AuditService
from core.clock import Clock
from core.db.pool import Database
from core.errors import Conflict, WorkflowUnknown
from core.queue.model import ALIVE, ALIVE_IDLE
from core.queue.service import QueueService
from core.tenancy import Scope, TenantContext
from core.versions import store
from core.versions.model import Changed, Route, VersionView, warnings_of

_TTL = timedelta(seconds=1)


class Installed(Protocol):
    """The workflows whose code this process has."""

    def names(self) -> list[str]:
        """All workflows, by name."""
        ...

    def versions(self, name: str) -> list[str]:
        """The versions of a workflow, the newest first."""
        ...


class VersionService:
    """The versions of one region."""

    def __init__(
        self, db: Database, queue: QueueService, audit: AuditService, installed: Installed, clock: Clock
    ) -> None:
        self._db = db
        self._queue = queue
        self._audit = audit
        self._installed = installed
        self._clock = clock
        self._routes: tuple[datetime, Mapping[str, Route]] | None = None

    async def routes(self) -> Mapping[str, Route]:
        """All routes by workflow, at most a second old."""
        now = self._clock.now()
        if self._routes is None or not timedelta(0) <= now - self._routes[0] < _TTL:
            async with self._db.control_transaction() as tx:
                self._routes = (now, await store.routes(tx))
        return self._routes[1]

    def version_for(
        self, routes: Mapping[str, Route], workflow: str, tenant_id: str, key: str, *, of_a_run: bool = False
    ) -> str | None:
        """The version that a new run gets which names none; None: the newest that is installed here.

        ``key``: its idempotency key, or anything unique to it. A canary whose code is not here gets nothing from here.
        ``of_a_run``: a run spawns it; a worker without the code of the base falls back to its newest, since the parent
        must not fail for it.
        """
        route = routes.get(workflow)
        if route is None:
            return None
        here = self._installed.versions(workflow)
        version = route.version_for(tenant_id, key)
        if version in here:
            return version
        return None if of_a_run and route.base not in here else route.base

    async def list(self, ctx: TenantContext) -> list[VersionView]:
        """Every version that is installed here, that a live worker has, or that has open runs. Needs the operator."""
        ctx.require(Scope.PLATFORM_OPERATE)
        now = self._clock.now()
        async with self._db.tenant_transaction(ctx) as tx:
            rows = await store.versions(tx, now - ALIVE, now - ALIVE_IDLE)
        known = {(row["workflow"], row["version"]): dict(row) for row in rows}
        for name in self._installed.names():
            for version in self._installed.versions(name):
                known.setdefault((name, version), {"workflow": name, "version": version, "workers": 0})
        routes = await self.routes()
        return [self._view(row, routes.get(name)) for (name, _), row in sorted(known.items())]

    async def try_out(
        self, ctx: TenantContext, workflow: str, version: str, percent: float, tenants: tuple[str, ...] = ()
    ) -> Changed:
        """Send ``percent`` of the new runs, and all of these tenants, to a version. Needs the operator.

        Raises ``InvalidInput``; ``Conflict`` when there is no other version for the rest of the runs;
        ``WorkflowUnknown`` when nobody has the workflow.
        """

        def change(route: Route | None) -> Route:
            return (route or Route(workflow, self._rest(workflow, version))).tried(version, percent, tenants)

        return await self._change(ctx, workflow, "version.canary", change)

    async def promote(self, ctx: TenantContext, workflow: str, version: str | None = None) -> Changed:
        """Send all new runs to the canary, or to ``version``. Needs the operator.

        Raises ``Conflict`` when there is no canary and no version is named; ``WorkflowUnknown``.
        """

        def change(route: Route | None) -> Route:
            if route is None and version is not None:
                versions = self._installed.versions(workflow)
                return Route(workflow, version, before=versions[0] if versions and versions[0] != version else None)
            return (route or Route(workflow, self._newest(workflow))).promoted(version)

        return await self._change(ctx, workflow, "version.promote", change)

    async def roll_back(self, ctx: TenantContext, workflow: str) -> Changed:
        """End the canary; without one, send all new runs to the version before. Needs the operator.

        Raises ``Conflict`` when there is nothing to go back to.
        """

        def change(route: Route | None) -> Route:
            if route is None:
                raise Conflict(f"New runs of {workflow} go to the newest version: there is nothing to roll back.")
            return route.rolled_back()

        return await self._change(ctx, workflow, "version.rollback", change)

    async def follow_newest(self, ctx: TenantContext, workflow: str) -> Changed:
        """Send all new runs to the newest version that is installed where they are submitted. Needs the operator."""
        return await self._change(ctx, workflow, "version.newest", lambda _: None)

    async def _change(
        self, ctx: TenantContext, workflow: str, act: str, change: Callable[[Route | None], Route | None]
    ) -> Changed:
        ctx.require(Scope.PLATFORM_OPERATE)
        async with self._db.tenant_transaction(ctx) as tx:
            before = await store.route(tx, workflow)
            after = change(before)
            await store.set_route(tx, workflow, after, ctx.actor, self._clock.now())
            await self._audit.record(tx, ctx, act, f"workflow:{workflow}", _told(before), _told(after))
            live = await self._queue.live_in(tx, fresh=True)
        self._routes = None
        here = self._installed.versions(workflow)
        return Changed(after, () if after is None else warnings_of(after, here.__contains__, live.codes))

    def _newest(self, workflow: str) -> str:
        versions = self._installed.versions(workflow)
        if not versions:
            raise WorkflowUnknown(f"There is no workflow {workflow!r} here.", known=self._installed.names())
        return versions[0]

    def _rest(self, workflow: str, canary: str) -> str:
        """The version of those runs that do not go to the canary."""
        self._newest(workflow)
        others = [version for version in self._installed.versions(workflow) if version != canary]
        if not others:
            raise Conflict(f"Version {canary} is the only one of {workflow}: there is none for the other runs.")
        return others[0]

    def _view(self, row: Mapping[str, Any], route: Route | None) -> VersionView:
        version, here = row["version"], self._installed.versions(row["workflow"])
        share = _share(route, version, here)
        tenants = route.tenants if route is not None and version == route.canary else ()
        return VersionView(installed=version in here, share=share, tenants=tenants, **row)


def _share(route: Route | None, version: str, here: list[str]) -> float:
    if route is None:
        return 100.0 if here[:1] == [version] else 0.0
    if version == route.canary:
        return route.percent
    return 100.0 - route.percent if version == route.base else 0.0


def _told(route: Route | None) -> dict[str, object] | None:
    return None if route is None else asdict(route)

"""The event log of a run, from any position.

Everything the platform does to a run is kept for good. What a run says of itself while it executes (progress, text,
values) is telemetry, and is forgotten after a week: then numbers are missing, and only then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from core.clock import Clock
from core.db.pool import Database
from core.db.queries import load_queries
from core.errors import NotFound
from core.runs.model import RunEvent, RunState
from core.runs.submission import Catalog
from core.tenancy import Scope, TenantContext

PAGE = 200
SAID_KEPT = timedelta(days=7)
SQL = load_queries(__file__, "log.sql")
_FORGET_BATCH = 10_000
_NO_CONTENT = frozenset(
    {"step", "attempt", "name", "cause", "claim", "cost_microusd", "model", "wake_at", "actor"}
    | {"account", "share", "threshold", "by", "over_microusd"}
)


@dataclass(frozen=True, slots=True)
class LogPage:
    """Where a run stood when it was read, and events after a position. ``newest``: the number of the last of all."""

    state: RunState
    newest: int
    user_id: str | None
    workflow: str
    events: tuple[RunEvent, ...]


class RunLog:
    """Reads what happened to runs."""

    def __init__(self, db: Database, catalog: Catalog, clock: Clock) -> None:
        self._db = db
        self._catalog = catalog
        self._clock = clock

    async def page(self, ctx: TenantContext, run_id: str, after_seq: int, limit: int = PAGE) -> LogPage:
        """Up to ``limit`` events after a position, as whoever may see everything sees them; see ``hidden``.

        Raises ``NotFound`` for foreign and missing alike.
        """
        ctx.require(Scope.RUNS_READ)
        async with self._db.tenant_transaction(ctx) as tx:
            rows = await tx.fetch(SQL["page"], run_id, after_seq, limit)
        if not rows:
            raise NotFound("There is no such run.")
        first = rows[0]
        events = tuple(RunEvent(r["seq"], r["at"], r["kind"], r["data"]) for r in rows if r["seq"] is not None)
        return LogPage(RunState(first["state"]), first["event_seq"], first["user_id"], first["workflow"], events)

    async def events(self, ctx: TenantContext, run_id: str, after_seq: int = 0, limit: int = 1_000) -> list[RunEvent]:
        """Up to ``limit`` events after a position, as the caller may see them. Raises ``NotFound``."""
        page = await self.page(ctx, run_id, after_seq, limit)
        return [without_content(event) for event in page.events] if self.hidden(ctx, page) else list(page.events)

    def hidden(self, ctx: TenantContext, page: LogPage) -> bool:
        """Whether what the run contains is for its submitter's eyes only, and this is somebody else."""
        return page.user_id not in (None, ctx.user_id) and self._catalog.is_private(page.workflow)

    async def forget_said(self) -> int:
        """Forget what runs said more than a week ago; how many events, of all tenants."""
        before: datetime = self._clock.now() - SAID_KEPT
        total = 0
        while True:
            async with self._db.control_transaction() as tx:
                forgotten = int(await tx.fetchval(SQL["forget_said"], before, _FORGET_BATCH))
            total += forgotten
            if forgotten < _FORGET_BATCH:
                return total


def without_content(event: RunEvent) -> RunEvent:
    """That it happened, without what was said."""
    return replace(event, data={key: value for key, value in event.data.items() if key in _NO_CONTENT})

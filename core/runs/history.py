"""Runs as operators see them, of every tenant and without their content; the same of one tenant for its own people."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from core.db.pool import Database, Transaction
from core.db.queries import Query, load_queries
from core.errors import NotFound
from core.runs.model import Cause, Lane, RunState
from core.runs.timeline import Attempt, Entry, Transition, timeline, waited_in
from core.runs.waiting import Passage
from core.tenancy import PLATFORM, Scope, TenantContext

SQL = load_queries(__file__, "history.sql")


@dataclass(frozen=True, slots=True)
class RunLine:
    """One run without its content. Money in micro-USD; ``attempt``: how often it had a slot; ``held``: it is paused."""

    run_id: str
    tenant_id: str
    workflow: str
    version: str
    lane: Lane
    state: RunState
    cause: str | None
    source: str
    batch_id: str | None
    outcome: str | None
    error_code: str | None
    attempt: int
    worker_seconds: float
    cost_microusd: int
    budget_microusd: int
    submitted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    held: bool
    forked_from: str | None


@dataclass(frozen=True, slots=True)
class Relative:
    """A run as a relative of another."""

    run_id: str
    workflow: str
    state: RunState


@dataclass(frozen=True, slots=True)
class Relatives:
    """A run's parent, how many children it has in each state, and twenty of them, the unsuccessful ones first."""

    parent: Relative | None = None
    counts: dict[RunState, int] = field(default_factory=dict)
    children: tuple[Relative, ...] = ()


@dataclass(frozen=True, slots=True)
class History:
    """One run and all that is known of its life until ``now``."""

    run: RunLine
    now: datetime
    attempts: tuple[Attempt, ...]
    passages: tuple[Passage, ...]
    transitions: tuple[Transition, ...]
    relatives: Relatives = field(default_factory=Relatives)

    def timeline(self) -> list[Entry]:
        """What it did, in the order in which that began."""
        return timeline(self.passages, self.attempts, self.transitions, self.now)

    def waited(self) -> dict[Cause, float]:
        """Seconds it has waited until now, or until its end, by cause."""
        return waited_in(self.timeline())


def _query(ctx: TenantContext, name: str) -> Query:
    """The operators' block of that name, or the tenant's own."""
    if Scope.PLATFORM_OPERATE not in ctx.scopes:
        ctx.require(Scope.RUNS_READ)
        return SQL[name]
    if ctx.tenant_id != PLATFORM:
        raise ValueError("an operator belongs to the tenant platform")
    return SQL["op_" + name]


async def lines(
    db: Database,
    ctx: TenantContext,
    *,
    tenant_id: str | None = None,
    state: RunState | None = None,
    workflow: str | None = None,
    run_id: str | None = None,
    limit: int = 50,
) -> list[RunLine]:
    """Runs, newest first, at most 1,000; None does not filter."""
    async with db.tenant_transaction(ctx) as tx:
        rows = await tx.fetch(_query(ctx, "run_rows"), tenant_id, state, workflow, run_id, max(1, min(limit, 1_000)))
    return [RunLine(**{**row, "lane": Lane(row["lane"]), "state": RunState(row["state"])}) for row in rows]


async def history(
    db: Database, ctx: TenantContext, run_id: str, now: datetime, *, tenant_id: str | None = None
) -> History:
    """A run's life. Raises ``NotFound`` for foreign and missing alike."""
    found = [line for line in await lines(db, ctx, tenant_id=tenant_id, run_id=run_id) if line.run_id == run_id]
    if not found:
        raise NotFound("There is no such run.")
    async with db.tenant_transaction(ctx) as tx:
        # Each statement sees what was committed before it. In this order whatever a transition names is there: the
        # final state has its transition, a started step its attempt.
        transitions = tuple(Transition(**row) for row in await tx.fetch(_query(ctx, "transition_rows"), run_id))
        return History(
            run=found[0],
            now=now,
            attempts=tuple(Attempt(**row) for row in await tx.fetch(_query(ctx, "step_rows"), run_id)),
            passages=tuple(Passage(**row) for row in await tx.fetch(_query(ctx, "passage_rows"), run_id, now)),
            transitions=transitions,
            relatives=await _relatives(tx, ctx, run_id),
        )


async def relatives(db: Database, ctx: TenantContext, run_id: str) -> Relatives:
    """A run's family; nobody for foreign and missing runs."""
    async with db.tenant_transaction(ctx) as tx:
        return await _relatives(tx, ctx, run_id)


async def _relatives(tx: Transaction, ctx: TenantContext, run_id: str) -> Relatives:
    rows = await tx.fetch(_query(ctx, "relative_rows"), run_id)
    named = {
        kind: tuple(Relative(r["run_id"], r["workflow"], RunState(r["state"])) for r in rows if r["kind"] == kind)
        for kind in ("parent", "child")
    }
    counts = {RunState(row["state"]): row["runs"] for row in rows if row["kind"] == "count"}
    return Relatives(next(iter(named["parent"]), None), counts, named["child"])

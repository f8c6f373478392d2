"""What the screens show, read from Postgres: snapshots of now and of a window, runs and their timelines.

A tenant's user reads in their tenant's transaction, so row-level security narrows everything to it. An
operator reads through the control functions ``app.op_…``, which answer in the tenant ``platform`` only and
hold no content. Every reader checks the right it needs; none of them writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd

from core.db.pool import Database, Row, Transaction
from core.db.queries import Query, load_queries
from core.ids import RunId
from core.queue.estimate import StartsIn
from core.queue.model import ALIVE, ALIVE_IDLE, HEADROOM
from core.queue.service import QueueService
from core.runs.history import History, history
from core.runs.model import Lane, Standstill, queued_cause
from core.runs.timeline import Attempt, Transition
from core.runs.waiting import Passage
from core.tenancy import PLATFORM, ActorKind, Scope, TenantContext
from ops_dashboard.figures import OTHERS, TOP
from ops_dashboard.measures import Service
from ops_dashboard.pulse import Pulse, TenantPulse, WorkerPulse

SQL = load_queries(__file__)


@dataclass(frozen=True, slots=True)
class Window:
    """What happened in the ``seconds`` before ``at``. The frames are shared: do not change them.

    What goes over time ends at ``until``, the end of the last whole bucket: a bucket still filling up would
    change the plots at every look.

    ``service``: tenant_id, worker_s, backlog_s, starts, wait_p50_s, wait_p95_s, wait_p99_s.
    ``endings``: tenant_id, succeeded, failed, cancelled, in_time, late, duration_p50_s, …_p95_s, …_p99_s.
    ``failures``: tenant_id, workflow, code, count. ``service_over_time``: tenant_id, bucket, worker_s.
    ``depth_over_time``: tenant_id, bucket, queued. In these two tenants beyond the largest are one, ``OTHERS``.
    ``wait_causes``: tenant_id, starts, bursts, capped_s, paused_s, no_worker_s, no_code_s, share_s.
    ``waits_over_time``: tenant_id, bucket, wait_p95_s of the runs that started in it, of the ``TOP`` tenants that
    waited most.
    """

    at: datetime
    until: datetime
    seconds: int
    bucket_s: int
    service: pd.DataFrame
    endings: pd.DataFrame
    failures: pd.DataFrame
    service_over_time: pd.DataFrame
    depth_over_time: pd.DataFrame
    wait_causes: pd.DataFrame
    waits_over_time: pd.DataFrame


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs to list; None does not filter. ``search`` is a whole run id, batch id or idempotency key."""

    tenant_id: str | None = None
    user_id: str | None = None
    state: str | None = None
    workflow: str | None = None
    batch_id: str | None = None
    outcome: str | None = None
    search: str | None = None


@dataclass(frozen=True, slots=True)
class RunDetail:
    """One run without its content. ``row`` as in ``run_rows``; ``starts_in``: while it is queued, if one can know."""

    row: dict[str, Any]
    history: History
    starts_in: StartsIn | None

    @property
    def steps(self) -> pd.DataFrame:
        """The attempts of its steps, with the fields of ``Attempt``."""
        return _rows(self.history.attempts, Attempt)

    @property
    def passages(self) -> pd.DataFrame:
        """When it was in the queue and in a slot, with the fields of ``Passage``."""
        return _rows(self.history.passages, Passage)

    @property
    def transitions(self) -> pd.DataFrame:
        """What happened to it, with the fields of ``Transition``."""
        return _rows(self.history.transitions, Transition)


def is_operator(ctx: TenantContext) -> bool:
    """Whether this context sees all tenants."""
    return Scope.PLATFORM_OPERATE in ctx.scopes


def _query(ctx: TenantContext, name: str) -> Query:
    """The operator's block of that name, or the tenant's own."""
    if not is_operator(ctx):
        ctx.require(Scope.RUNS_READ)
        return SQL[name]
    if ctx.tenant_id != PLATFORM:
        raise ValueError("an operator belongs to the tenant platform")
    return SQL[f"op_{name}"]


async def pulse(db: Database, ctx: TenantContext, now: datetime, headroom: float = HEADROOM) -> Pulse:
    """What stands now in the tenants that this context sees."""
    async with db.tenant_transaction(ctx) as tx:
        rows = await tx.fetch(_query(ctx, "pulse"), now)
        live_slots = int(await tx.fetchval(SQL["live_slots"], now - ALIVE, now - ALIVE_IDLE))
        codes = await tx.fetchval(SQL["live_codes"], now - ALIVE, now - ALIVE_IDLE)
        workers = await tx.fetch(SQL["op_workers"]) if is_operator(ctx) else []
        platform_cap = await tx.fetchval(SQL["op_platform"]) if is_operator(ctx) else None
    live_codes = None if codes is None else frozenset(codes)
    return Pulse(
        at=now,
        tenants=tuple(_tenant(row, live_slots, live_codes) for row in rows),
        live_slots=live_slots,
        platform_cap=platform_cap,
        workers=tuple(_worker(row, now) for row in workers),
        headroom_share=headroom,
    )


def _tenant(row: Row, live_slots: int, codes: frozenset[str] | None) -> TenantPulse:
    plain = dict(row)
    lanes = {Lane(int(lane)).name.lower(): count for lane, count in sorted(plain.pop("lanes").items())}
    full = frozenset(plain.pop("full_workflows"))
    cause = queued_cause(row["paused"], row["running"], row["cap"], live_slots, blocked=plain.pop("blocked"))
    return TenantPulse(**plain, lanes=lanes, standstill=Standstill(cause, codes, full))


def _worker(row: Row, now: datetime) -> WorkerPulse:
    return WorkerPulse(
        worker_id=row["worker_id"],
        slots=row["slots"],
        held=row["held"],
        draining=row["draining"],
        started_at=row["started_at"],
        silent_s=max(0.0, (now - row["heartbeat_at"]).total_seconds()),
    )


async def window(db: Database, ctx: TenantContext, now: datetime, seconds: int, bucket_s: int) -> Window:
    """What happened in the last ``seconds``, in buckets of ``bucket_s``."""
    span = timedelta(seconds=seconds)
    since = now - span
    until = datetime.fromtimestamp(now.timestamp() // bucket_s * bucket_s, UTC)
    async with db.tenant_transaction(ctx) as tx:
        return Window(
            at=now,
            until=until,
            seconds=seconds,
            bucket_s=bucket_s,
            service=await _frame(tx, _query(ctx, "service"), _SERVICE, since, now),
            endings=await _frame(tx, _query(ctx, "endings"), _ENDINGS, since, now),
            failures=await _frame(tx, _query(ctx, "failures"), _FAILURES, since, now),
            service_over_time=await _over_time(tx, ctx, "service_over_time", "worker_s", until, span, bucket_s),
            depth_over_time=await _over_time(tx, ctx, "depth_over_time", "queued", until, span, bucket_s),
            wait_causes=await _frame(tx, _query(ctx, "wait_causes"), _WAIT_CAUSES, since, now),
            waits_over_time=await _over_time(tx, ctx, "wait_over_time", "wait_p95_s", until, span, bucket_s),
        )


async def _over_time(
    tx: Transaction, ctx: TenantContext, name: str, value: str, until: datetime, span: timedelta, bucket_s: int
) -> pd.DataFrame:
    columns = ("tenant_id", "bucket", value)
    frame = await _frame(tx, _query(ctx, name), columns, until - span, until, bucket_s, TOP)
    return frame.fillna({"tenant_id": OTHERS})


async def services(
    db: Database, ctx: TenantContext, tenants: Iterable[TenantPulse], now: datetime, seconds: int
) -> list[Service]:
    """What each tenant with demand got in the last ``seconds``."""
    weights = {tenant.tenant_id: tenant.weight for tenant in tenants}
    async with db.tenant_transaction(ctx) as tx:
        rows = await tx.fetch(_query(ctx, "service"), now - timedelta(seconds=seconds), now)
    return [
        Service(row["tenant_id"], row["worker_s"], weights[row["tenant_id"]], row["backlog_s"])
        for row in rows
        if row["tenant_id"] in weights
    ]


async def runs(
    db: Database,
    ctx: TenantContext,
    where: RunFilter,
    *,
    before: tuple[datetime, str] | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """A page of runs without content, newest first; ``before`` is (submitted_at, run_id) of the last one shown."""
    at, run_id = before or (None, None)
    async with db.tenant_transaction(ctx) as tx:
        rows = await tx.fetch(
            _query(ctx, "run_rows"),
            where.tenant_id,
            where.user_id,
            where.state,
            where.workflow,
            where.batch_id,
            where.outcome,
            where.search,
            at,
            run_id,
            limit,
        )
    return [dict(row) for row in rows]


async def run_detail(
    db: Database, queue: QueueService, ctx: TenantContext, run_id: str, now: datetime, user_id: str | None = None
) -> RunDetail | None:
    """One run and its life; None when there is none to see. ``user_id`` narrows to the runs of one person."""
    found = await runs(db, ctx, RunFilter(search=run_id, user_id=user_id), limit=1)
    if not found or found[0]["run_id"] != run_id:
        return None
    life = await history(db, ctx, run_id, now)
    async with db.tenant_transaction(ctx) as tx:
        starts_in = await queue.starts_in(tx, RunId(run_id), any_tenant=is_operator(ctx))
    return RunDetail(found[0], life, starts_in)


async def people(db: Database, ctx: TenantContext) -> dict[str, str]:
    """Names of the context's own tenant's people, by the actor that audit and reviews hold."""
    async with db.tenant_transaction(ctx) as tx:
        return {f"{ActorKind.USER}:{row['user_id']}": row["name"] for row in await tx.fetch(SQL["people"])}


async def version_endings(
    db: Database, ctx: TenantContext, until: datetime, seconds: int, bucket_s: int
) -> pd.DataFrame:
    """Runs of all tenants that ended, by workflow, version and bucket: ended, failed. For operators."""
    ctx.require(Scope.PLATFORM_OPERATE)
    async with db.tenant_transaction(ctx) as tx:
        return await _frame(tx, SQL["version_endings"], _VERSIONS, until - timedelta(seconds=seconds), until, bucket_s)


async def audit_chains(db: Database, ctx: TenantContext) -> list[dict[str, Any]]:
    """Length and last entry of every tenant's audit chain. For operators."""
    ctx.require(Scope.PLATFORM_OPERATE)
    async with db.tenant_transaction(ctx) as tx:
        return [dict(row) for row in await tx.fetch(SQL["op_audit"])]


async def operator_acts(db: Database, ctx: TenantContext, limit: int = 200) -> list[dict[str, Any]]:
    """The newest acts recorded for the platform itself. For operators."""
    ctx.require(Scope.PLATFORM_OPERATE)
    async with db.tenant_transaction(ctx) as tx:
        return [dict(row) for row in await tx.fetch(SQL["own_audit"], limit)]


_SERVICE = ("tenant_id", "worker_s", "backlog_s", "starts", "wait_p50_s", "wait_p95_s", "wait_p99_s")
_ENDINGS = (
    *("tenant_id", "succeeded", "failed", "cancelled", "in_time", "late"),
    *("duration_p50_s", "duration_p95_s", "duration_p99_s"),
)
_FAILURES = ("tenant_id", "workflow", "code", "count")
_WAIT_CAUSES = ("tenant_id", "starts", "bursts", "capped_s", "paused_s", "no_worker_s", "no_code_s", "share_s")
_VERSIONS = ("workflow", "version", "bucket", "ended", "failed")


async def _frame(tx: Transaction, query: Query, columns: Sequence[str], *args: object) -> pd.DataFrame:
    return _framed(await tx.fetch(query, *args), columns)


def _framed(rows: Iterable[Row], columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame([tuple(row) for row in rows], columns=list(columns))


def _rows(values: Sequence[Attempt] | Sequence[Passage] | Sequence[Transition], kind: type[Any]) -> pd.DataFrame:
    return pd.DataFrame([asdict(value) for value in values], columns=[field.name for field in fields(kind)])

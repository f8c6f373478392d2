"""One act on many runs: choose by a filter and look (``preview``), then perform (``apply``), exactly once per run.

    (none) ──preview──► previewed ──apply──► applying ──no run left──► done

The preview fixes the set; a run whose state has changed since then is skipped, with a reason, and so is one that the
act no longer fits. Each run is a transaction of its own: act, event, audit and what became of it. ``apply`` works for a
moment and answers with how far it is; the scheduler, or whoever calls it again, goes on until nothing is left, also
after a crash. Several may work on one bulk at once: each takes a run that nobody has.

A preview that nobody applies, and what was done, are forgotten after thirty days; the audit keeps every act.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from core.audit.service import AuditService
from core.clock import Clock
from core.db.pool import Database
from core.db.queries import load_queries
from core.errors import InvalidInput, NotFound
from core.ids import RunId, TenantId, UserId, new_id
from core.queue.model import Topic
from core.redis.bus import Bus
from core.runs.acts import Act, Outcome
from core.runs.control import RunControl
from core.runs.model import RunState
from core.tenancy import ActorKind, Scope, TenantContext

SQL = load_queries(__file__, "bulk.sql")

MAX_RUNS = 10_000
SAMPLE = 10
_AT_ONCE = 50
_PATIENCE_S = 2.0
_KEPT = timedelta(days=30)

_OPEN = tuple(state for state in RunState if not state.final)
_FITTING: dict[Act, tuple[tuple[RunState, ...], bool | None]] = {
    Act.CANCEL: (_OPEN, None),
    Act.PAUSE: (_OPEN, False),
    Act.RESUME: (_OPEN, True),
    Act.RETRY: (tuple(state for state in RunState if state.final and state is not RunState.SUCCEEDED), None),
}
"""States in which a run must be for an act, and whether held. Dead ones are cancelled only when they are asked for."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which runs; None does not narrow. ``submitted_from`` inclusive, ``submitted_until`` exclusive, in UTC."""

    workflow: str | None = None
    state: RunState | None = None
    batch_id: str | None = None
    outcome: str | None = None
    error_code: str | None = None
    submitted_from: datetime | None = None
    submitted_until: datetime | None = None
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class SampleRun:
    """One of the runs, as it stands, without its content."""

    run_id: RunId
    workflow: str
    version: str
    state: RunState
    outcome: str | None
    error_code: str | None
    submitted_at: datetime


@dataclass(frozen=True, slots=True)
class Bulk:
    """A bulk and how far it is. ``by_state``: at the preview; ``reasons``: of the runs that were skipped."""

    bulk_id: str
    act: Act
    state: str
    choice: dict[str, Any]
    actor: str
    created_at: datetime
    applied_at: datetime | None
    done_at: datetime | None
    runs: int
    by_state: dict[str, int]
    done: int
    skipped: int
    reasons: dict[str, int]
    sample: tuple[SampleRun, ...]

    @property
    def left(self) -> int:
        """Runs on which nobody has acted yet."""
        return self.runs - self.done - self.skipped


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A bulk that is being applied, and on whose behalf."""

    tenant_id: TenantId
    bulk_id: str
    actor_kind: ActorKind
    actor_id: str
    user_id: UserId | None


class BulkControl:
    """Acts on many runs of one tenant."""

    def __init__(self, db: Database, bus: Bus, control: RunControl, audit: AuditService, clock: Clock) -> None:
        self._db = db
        self._bus = bus
        self._control = control
        self._audit = audit
        self._clock = clock

    async def preview(self, ctx: TenantContext, act: Act, choice: Choice) -> Bulk:
        """Fix the runs that an act would change; nothing is done to them yet.

        Raises ``InvalidInput`` for more than 10,000.
        """
        ctx.require(Scope.RUNS_READ)
        ctx.require(Scope.RUNS_WRITE)
        now = self._clock.now()
        bulk_id = new_id("blk", now)
        states, held = _FITTING[act]
        if act is Act.CANCEL and choice.state is RunState.DEAD:
            states = (RunState.DEAD,)
        document = {name: _written(value) for name, value in asdict(choice).items() if value is not None}
        async with self._db.tenant_transaction(ctx) as tx:
            await tx.execute(SQL["create"], bulk_id, act, document, ctx.actor_kind, ctx.actor_id, ctx.user_id, now)
            chosen = await tx.execute(
                SQL["choose"], bulk_id, list(states), held, *asdict(choice).values(), MAX_RUNS + 1
            )
            if chosen > MAX_RUNS:
                raise InvalidInput(f"These are more than {MAX_RUNS:,} runs: narrow the filter.", limit=MAX_RUNS)
        return await self.get(ctx, bulk_id)

    async def get(self, ctx: TenantContext, bulk_id: str) -> Bulk:
        """A bulk and how far it is. Raises ``NotFound`` for foreign and missing alike."""
        ctx.require(Scope.RUNS_READ)
        async with self._db.tenant_transaction(ctx) as tx:
            found = await tx.fetchrow(SQL["found"], bulk_id)
            if found is None:
                raise NotFound("There is no such bulk.")
            counts = await tx.fetch(SQL["counts"], bulk_id)
            sample = await tx.fetch(SQL["sample"], bulk_id, SAMPLE)
        by_state: dict[str, int] = {}
        for row in counts:
            by_state[row["was"]] = by_state.get(row["was"], 0) + row["runs"]
        reasons: dict[str, int] = {}
        for row in counts:
            if row["outcome"] == "skipped":
                reasons[row["reason"]] = reasons.get(row["reason"], 0) + row["runs"]
        return Bulk(
            bulk_id=found["bulk_id"],
            act=Act(found["act"]),
            state=found["state"],
            choice=found["filter"],
            actor=found["actor"],
            created_at=found["created_at"],
            applied_at=found["applied_at"],
            done_at=found["done_at"],
            runs=sum(by_state.values()),
            by_state=by_state,
            done=sum(row["runs"] for row in counts if row["outcome"] == "done"),
            skipped=sum(reasons.values()),
            reasons=reasons,
            sample=tuple(SampleRun(**{**row, "state": RunState(row["state"])}) for row in sample),
        )

    async def apply(self, ctx: TenantContext, bulk_id: str, *, for_s: float = _PATIENCE_S) -> Bulk:
        """Perform it, or go on with it, for some seconds; how far it is then. Once done, nothing is done any more.

        What is left the scheduler does. Raises ``NotFound``.
        """
        ctx.require(Scope.RUNS_WRITE)
        found = await self.get(ctx, bulk_id)
        async with self._db.tenant_transaction(ctx) as tx:
            who = (ctx.actor_kind, ctx.actor_id, ctx.user_id)
            if await tx.fetchval(SQL["apply"], bulk_id, *who, self._clock.now()) is not None:
                facts = {"choice": found.choice, "runs": found.runs}
                await self._audit.record(tx, ctx, f"bulk.{found.act}", f"bulk:{bulk_id}", after=facts)
        if not await self.go_on(ctx, bulk_id, found.act, for_s=for_s):
            await self._bus.signal(Topic.SCHEDULER)
        return await self.get(ctx, bulk_id)

    async def unfinished(self, limit: int = 100) -> list[Unfinished]:
        """Those of all tenants that are being applied, the longest first."""
        async with self._db.control_transaction() as tx:
            rows = await tx.fetch(SQL["applying"], limit)
        return [Unfinished(**{**row, "actor_kind": ActorKind(row["actor_kind"])}) for row in rows]

    async def go_on(self, ctx: TenantContext, bulk_id: str, act: Act, *, for_s: float) -> bool:
        """Act on runs that are left, for some seconds; whether all of it is done."""
        until = self._clock.now() + timedelta(seconds=for_s)
        while True:
            changed: dict[str, Outcome] = {}
            while len(changed) < _AT_ONCE and (became := await self._one(ctx, bulk_id, act)) is not None:
                changed |= became
                if self._clock.now() >= until:
                    break
            await self._control.tell(ctx, act, changed)
            if became is None:
                async with self._db.tenant_transaction(ctx) as tx:
                    await tx.execute(SQL["finish"], bulk_id, self._clock.now())
                return (await self.get(ctx, bulk_id)).state == "done"
            if self._clock.now() >= until:
                return False

    async def _one(self, ctx: TenantContext, bulk_id: str, act: Act) -> dict[str, Outcome] | None:
        """Act on one run that is left; what became of it if it was changed. None: nothing is left that nobody has."""
        async with self._db.tenant_transaction(ctx) as tx:
            left = await tx.fetchrow(SQL["next"], bulk_id)
            if left is None:
                return None
            done = await self._control.perform_in(tx, ctx, act, left["run_id"], RunState(left["was"]), bulk_id)
            outcome = "done" if done.refusal is None else "skipped"
            await tx.execute(SQL["became"], bulk_id, left["run_id"], outcome, done.refusal)
        return {left["run_id"]: done} if done.refusal is None else {}

    async def forget(self) -> int:
        """Forget what was chosen more than thirty days ago; how many."""
        total = 0
        while True:
            async with self._db.control_transaction() as tx:
                forgotten = int(await tx.fetchval(SQL["purge"], self._clock.now() - _KEPT, _AT_ONCE))
            total += forgotten
            if forgotten < _AT_ONCE:
                return total


def _written(value: str | datetime) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)

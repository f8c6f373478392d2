"""The budget of one run: what it may spend in all, as people set it while it is under way.

A run that asks for money is woken when its budget changes, or that of a run above it: the figures of its question are
not true any more, so it is withdrawn, and the ladder looks again. It goes on when the step is covered now, and asks
anew, with the figures of now, when it is not. A budget that is what it was changes nothing: the question stands, with
whoever claimed it, and a request that is sent twice does nothing twice. Who waits for the next month goes on waiting:
that is the policy's account.

Reviews are locked before the queue, the queue before runs, these before accounts, as everywhere.
"""

from __future__ import annotations

from core.audit.service import AuditService
from core.clock import Clock
from core.db.pool import Transaction
from core.db.queries import load_queries
from core.errors import Conflict, NotFound
from core.ids import RunId
from core.queue.service import QueueService
from core.runs.acts import standing
from core.runs.model import RunState
from core.runs.store import append_event
from core.tenancy import TenantContext
from core.usage.service import UsageService

SQL = load_queries(__file__, "budgets.sql")


class Budgets:
    """Sets budgets of runs, each in the transaction of its caller."""

    def __init__(self, queue: QueueService, usage: UsageService, audit: AuditService, clock: Clock) -> None:
        self._queue = queue
        self._usage = usage
        self._audit = audit
        self._clock = clock

    async def set_in(self, tx: Transaction, ctx: TenantContext, run_id: str, budget_microusd: int) -> list[RunId]:
        """The run may spend so much in all, in micro-USD; the runs that may go on now. Signal workers after the commit.

        Raises ``NotFound``, ``Conflict`` when it has succeeded, and ``InvalidInput`` for less than is spent or
        promised and for more than the policy allows it or a run above it; the transaction must end without a commit.
        """
        now = self._clock.now()
        short = await tx.fetch(SQL["short"], run_id)
        await self._queue.lock_in(tx)
        await tx.execute(SQL["keep"], [row["run_id"] for row in short])
        state = await standing(tx, run_id)
        if state is None:
            raise NotFound("There is no such run.")
        if state is RunState.SUCCEEDED:
            raise Conflict("The run has ended: succeeded.", state=state)
        *above, own = await self._usage.set_limit_in(tx, ctx, run_id, budget_microusd)
        if own.after_microusd == own.before_microusd:
            return []
        before, after = {"budget_microusd": own.before_microusd}, {"budget_microusd": own.after_microusd}
        grown = {one.run_id: one.after_microusd for one in above if one.after_microusd > one.before_microusd}
        await append_event(
            tx, run_id, now, "budget_set", {"actor": ctx.actor, "from": own.before_microusd, "to": own.after_microusd}
        )
        facts = after | ({"above": grown} if grown else {})
        await self._audit.record(tx, ctx, "run.budget", f"run:{run_id}", before=before, after=facts)
        woken = []
        for row in short:
            await tx.execute(SQL["withdraw"], row["run_id"], row["step"], now)
            if await self._queue.wake_in(tx, row["run_id"], row["step"]):
                woken.append(RunId(row["run_id"]))
        return woken

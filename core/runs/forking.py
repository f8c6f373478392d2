"""Forks: a new run of the same workflow and version that is given the first steps of another run.

The function of a forked run is called from its top, as after any wait, and the steps before ``from_step`` answer with
what they ended with in the other run. They are copied when the fork is submitted, in the same transaction: neither are
they performed nor paid again, and what becomes of the other run does not matter any more.

**A changed input** is what the function is called with; it changes nothing in the copied steps. They keep the answers
that they gave to the old input, whatever the new one says: choose ``from_step`` so that all steps on which the change
must have an effect come after it. A function that takes another way for the new input before it reaches that step fails
with the first step whose name differs from the copied one. From ``from_step`` on everything is done anew, under the
idempotency keys of the new run.

**What people decided** they decided about the old input: a fork with another one is refused beyond the first of their
decisions, or whoever submits it could put anything in the place of what was approved.

**Children** that ended well are given to the fork with the step that spawned them: their results are part of what that
step did. Those that were open when it was forked, or ended otherwise, the fork spawns anew, as its own: of a ``map``
only these, with the arguments that its input gives them. Where the other run had gone on after a child that failed, the
fork goes on like it.

A copied step is not undone when the fork is cancelled or fails: what it did belongs to the other run.
"""

from __future__ import annotations

from datetime import datetime

from core.db.pool import Transaction
from core.db.queries import load_queries
from core.errors import InvalidInput, NotFound
from core.ids import RunId
from core.runs.model import Fork
from core.runs.store import append_event
from core.tenancy import TenantContext

SQL = load_queries(__file__, "forking.sql")


async def give_steps_in(tx: Transaction, ctx: TenantContext, fork: Fork, run_id: RunId, now: datetime) -> None:
    """Give a run that is being submitted the first steps of another; both logs tell of it.

    Raises ``NotFound``, and ``InvalidInput`` beyond the step after the last one that the other run has come to, or with
    another input beyond a decision.
    """
    reached: int | None = await tx.fetchval(SQL["source_steps"], fork.run_id)
    if reached is None:
        raise NotFound("There is no such run.")
    if not 1 <= fork.from_step <= reached + 1:
        raise InvalidInput(
            f"The run has come to step {reached}: it is forked from a step between 1 and {reached + 1}.",
            field="from_step",
        )
    await tx.execute(SQL["copy_steps"], fork.run_id, run_id, fork.from_step, now)
    await tx.execute(SQL["copy_children"], fork.run_id, run_id, fork.from_step, now)
    await tx.execute(SQL["copy_reviews"], fork.run_id, run_id, fork.from_step)
    decided: int | None = await tx.fetchval(SQL["decided_otherwise"], fork.run_id, run_id)
    if decided is not None:
        raise InvalidInput(
            f"People decided step {decided} about another input: fork from there or before, and they are asked again.",
            field="from_step",
        )
    await tx.execute(SQL["copy_patches"], fork.run_id, run_id, fork.from_step)
    told = {"run_id": run_id, "from_step": fork.from_step, "actor": ctx.actor}
    await append_event(tx, fork.run_id, now, "forked", told)

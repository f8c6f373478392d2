"""What ``bailiwick runs`` does to runs of one tenant, by whoever operates this machine; never what they contain."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from core.bootstrap import Platform
from core.commands.installation import operator
from core.errors import Conflict, InvalidInput
from core.ids import TenantId
from core.runs.acts import Act
from core.runs.bulk import Bulk, Choice
from core.runs.history import history
from core.runs.model import RunState, RunView
from core.tenancy import ActorKind, Scope, TenantContext
from core.usage.model import usd

_RIGHTS = frozenset({Scope.RUNS_READ, Scope.RUNS_WRITE, Scope.TENANT_WRITE})
_SHOWN = (
    "run_id",
    "workflow",
    "version",
    "state",
    "cause",
    "held",
    "forked_from",
    "parent_run_id",
    "cost_microusd",
    "budget_microusd",
)


async def acting(platform: Platform, tenant_id: str) -> TenantContext:
    """Whoever operates this machine, inside a tenant. Raises ``NotFound``."""
    tenant = await platform.tenants.tenant(TenantId(tenant_id))
    return await platform.tenants.context_for(
        tenant.tenant_id, actor_kind=ActorKind.SYSTEM, actor_id="cli", scopes=_RIGHTS
    )


async def tenant_of(platform: Platform, run_id: str) -> str:
    """Whose run it is. Raises ``NotFound``."""
    found = await history(platform.db, await operator(platform), run_id, platform.clock.now())
    return found.run.tenant_id


def read_input(file: Path) -> dict[str, Any]:
    """The input in a file, or ``-`` from where the command reads. Raises ``InvalidInput``."""
    try:
        document = json.loads(sys.stdin.read() if str(file) == "-" else file.read_text())
    except ValueError as error:
        raise InvalidInput(f"The input is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInput("The input is not a JSON object.")
    return document


def amount_of(text: str) -> int:
    """Micro-USD of what somebody wrote, e.g. ``2.00``. Raises ``InvalidInput``."""
    try:
        amount = usd(text)
    except (ArithmeticError, ValueError) as error:
        raise InvalidInput(f"This is no amount in USD: {text}") from error
    if amount < 0:
        raise InvalidInput("A budget is not negative.")
    return amount


async def replay(platform: Platform, ctx: TenantContext, run_id: str) -> RunView:
    """A dead run begins anew. Raises ``NotFound`` and ``Conflict``."""
    run = await platform.runs.get(ctx, run_id)
    if run.state is not RunState.DEAD:
        raise Conflict(f"Only a dead run is replayed; this one is {run.state}.", state=run.state)
    return await platform.control.retry(ctx, run_id)


async def fork(
    platform: Platform,
    ctx: TenantContext,
    run_id: str,
    from_step: int,
    document: dict[str, Any] | None,
    key: str | None,
) -> RunView:
    """The new run. Raises what ``RunControl.fork`` does."""
    run, _ = await platform.control.fork(
        ctx, run_id, from_step=from_step, document=document, idempotency_key=key, source="cli"
    )
    return run


def as_json(run: RunView) -> str:
    """One JSON object: how a run stands, without its content; money in micro-USD."""
    return json.dumps({name: getattr(run, name) for name in _SHOWN})


def bulk_as_json(bulk: Bulk) -> str:
    """One JSON object: what was chosen and what became of it."""
    whole = asdict(bulk) | {"left": bulk.left}
    return json.dumps(whole, ensure_ascii=False, default=lambda moment: moment.isoformat())


async def act_on_one(platform: Platform, ctx: TenantContext, act: Act, run_id: str) -> RunView:
    """The run afterwards. Raises ``NotFound`` and ``Conflict``."""
    control = platform.control
    acts = {Act.CANCEL: control.cancel, Act.PAUSE: control.pause, Act.RESUME: control.resume}
    return await control.retry(ctx, run_id) if act is Act.RETRY else await acts[act](ctx, run_id)


async def act_on_many(
    platform: Platform,
    ctx: TenantContext,
    act: Act,
    choice: Choice,
    console: Console | None,
    agreed: Callable[[Bulk], bool],
) -> Bulk:
    """Choose, show unless ``console`` is None, and, when ``agreed``, apply until nothing is left; the bulk then."""
    console = console or Console(quiet=True)
    bulk = await platform.bulk.preview(ctx, act, choice)
    console.print(_preview(bulk))
    if not bulk.runs or not agreed(bulk):
        return bulk
    with console.status("") as status:
        while bulk.left:
            bulk = await platform.bulk.apply(ctx, bulk.bulk_id, for_s=1.0)
            status.update(f"{bulk.done + bulk.skipped} of {bulk.runs}")
    return bulk


def summed(bulk: Bulk) -> str:
    """What became of it."""
    lines = [f"{bulk.bulk_id}: {bulk.act} done to {bulk.done} of {bulk.runs} runs, {bulk.skipped} left alone."]
    return "\n".join([*lines, *(f"  {runs}: {reason}" for reason, runs in bulk.reasons.items())])


def _preview(bulk: Bulk) -> Table:
    parts = ", ".join(f"{runs} {state}" for state, runs in bulk.by_state.items()) or "none"
    table = Table(title=f"{bulk.act} {bulk.runs} runs: {parts}", box=None, padding=(0, 2, 0, 0), title_justify="left")
    for name in ("Run", "Workflow", "State", "Submitted"):
        table.add_column(name, no_wrap=True)
    for run in bulk.sample:
        workflow = escape(f"{run.workflow} v{run.version}")
        table.add_row(run.run_id, workflow, run.state, run.submitted_at.strftime("%Y-%m-%d %H:%M:%S"))
    return table

"""``bailiwick runs cancel|retry|pause|resume``: one act on runs of one tenant, by whoever operates this machine."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from core.bootstrap import Platform
from core.ids import TenantId
from core.runs.acts import Act
from core.runs.bulk import Bulk, Choice
from core.runs.model import RunView
from core.tenancy import ActorKind, Scope, TenantContext

_RIGHTS = frozenset({Scope.RUNS_READ, Scope.RUNS_WRITE})


async def acting(platform: Platform, tenant_id: str) -> TenantContext:
    """Whoever operates this machine, inside a tenant. Raises ``NotFound``."""
    tenant = await platform.tenants.tenant(TenantId(tenant_id))
    return await platform.tenants.context_for(
        tenant.tenant_id, actor_kind=ActorKind.SYSTEM, actor_id="cli", scopes=_RIGHTS
    )


async def act_on_one(platform: Platform, ctx: TenantContext, act: Act, run_id: str) -> RunView:
    """The run afterwards. Raises ``NotFound`` and ``Conflict``."""
    control = platform.control
    acts = {Act.CANCEL: control.cancel, Act.PAUSE: control.pause, Act.RESUME: control.resume}
    return await control.retry(ctx, run_id) if act is Act.RETRY else await acts[act](ctx, run_id)


async def act_on_many(
    platform: Platform, ctx: TenantContext, act: Act, choice: Choice, console: Console, agreed: Callable[[Bulk], bool]
) -> Bulk:
    """Choose, show, and, when ``agreed``, apply until nothing is left; the bulk as it stands then."""
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

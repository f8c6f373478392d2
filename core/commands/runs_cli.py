"""The command ``bailiwick runs``: what runs did and wait for, and what is done to them.

It imports what it works with only when it works.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from core.runs.acts import Act
from core.runs.bulk import Choice
from core.runs.model import RunState
from core.settings import Settings

if TYPE_CHECKING:
    from core.bootstrap import Platform
    from core.commands import runs as inspection
    from core.runs.bulk import Bulk
    from core.runs.history import History, RunLine
    from core.runs.model import RunView
    from core.runs.timeline import Transition
    from core.tenancy import TenantContext

app = typer.Typer(help="What runs did and wait for, of every tenant; never what they contain.", no_args_is_help=True)

OneRun = Annotated[str, typer.Argument(help="Id of the run.")]
SomeRun = Annotated[str | None, typer.Argument(help="Id of the run; left out: those that the options find.")]
OneTenant = Annotated[str | None, typer.Option("--tenant", help="Only of this tenant.")]
Whose = Annotated[str | None, typer.Option("--tenant", help="Whose runs; of one run it need not be said.")]
Workflow = Annotated[str | None, typer.Option(help="Only runs of this workflow.")]
State = Annotated[RunState | None, typer.Option(help="Only runs in this state.")]
Batch = Annotated[str | None, typer.Option(help="Only runs of this batch.")]
Outcome = Annotated[str | None, typer.Option(help="Only runs with this outcome.")]
Error = Annotated[str | None, typer.Option(help="Only runs with this error code.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it, without being asked.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.command()
def show(run_id: OneRun, tenant: OneTenant = None, as_json: AsJson = False) -> None:
    """A run's timeline: its waits with their causes, its steps with attempts, costs and models, its end."""
    from core.commands import runs as inspection
    from core.commands import tables
    from core.commands.installation import opened

    async def work() -> inspection.RunReport:
        async with opened(Settings()) as (platform, ctx):
            return await inspection.show(platform, ctx, run_id, tenant)

    report = asyncio.run(work())
    if as_json:
        typer.echo(inspection.as_json(report))
    else:
        tables.show(inspection.as_text(report))


@app.command()
def follow(run_id: OneRun, tenant: OneTenant = None, as_json: AsJson = False) -> None:
    """What happens to a run, a line each, while it happens; until it ends. Exit code 1 when it did not succeed."""
    from core.commands import follow as following
    from core.commands.installation import opened

    def told(found: History, one: Transition) -> None:
        if as_json:
            typer.echo(following.as_json(found, one))
        else:
            _console().print(following.as_line(found, one))

    async def work() -> History:
        async with opened(Settings()) as (platform, ctx):
            return await following.follow(platform, ctx, run_id, tenant, told)

    if asyncio.run(work()).run.state is not RunState.SUCCEEDED:
        raise typer.Exit(1)


@app.command("list")
def listing(
    tenant: OneTenant = None,
    state: State = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Runs, newest first."""
    from core.commands import runs as inspection
    from core.commands import tables
    from core.commands.installation import opened

    async def work() -> list[RunLine]:
        async with opened(Settings()) as (platform, ctx):
            return await inspection.listed(platform, ctx, tenant, state, limit)

    found = asyncio.run(work())
    if as_json:
        typer.echo(inspection.lines_as_json(found))
    else:
        tables.show(inspection.lines_as_table(found))


def _console() -> Console:
    return Console(highlight=False)


def _done_to(act: Act, tenant: str | None, run_id: str | None, choice: Choice, *, yes: bool, as_json: bool) -> None:
    """Perform an act on one run, or on those that are chosen, and print what became of them."""
    from core.commands import control
    from core.commands.installation import installation

    if run_id is not None:
        _one(run_id, tenant, lambda platform, ctx: control.act_on_one(platform, ctx, act, run_id), as_json=as_json)
        return
    if tenant is None:
        raise typer.BadParameter("Say of which tenant, with --tenant, or name one run.")

    def agreed(bulk: Bulk) -> bool:
        return yes or (sys.stdin.isatty() and typer.confirm(f"{act.capitalize()} {bulk.runs} runs?"))

    async def work() -> Bulk:
        async with installation(Settings()) as platform:
            ctx = await control.acting(platform, tenant)
            return await control.act_on_many(platform, ctx, act, choice, None if as_json else _console(), agreed)

    bulk = asyncio.run(work())
    if as_json:
        typer.echo(control.bulk_as_json(bulk))
    else:
        typer.echo(control.summed(bulk) if bulk.applied_at else "Nothing was done. Repeat it with --yes to do it.")


def _one(
    run_id: str,
    tenant: str | None,
    deed: Callable[[Platform, TenantContext], Awaitable[RunView]],
    *,
    as_json: bool,
    told: Callable[[RunView], str] = lambda run: f"{run.run_id} is {run.state} now.",
) -> None:
    """Do something to one run, whose tenant need not be named, and print how the run stands then."""
    from core.commands import control
    from core.commands.installation import installation

    async def work() -> RunView:
        async with installation(Settings()) as platform:
            whose = tenant or await control.tenant_of(platform, run_id)
            return await deed(platform, await control.acting(platform, whose))

    run = asyncio.run(work())
    typer.echo(control.as_json(run) if as_json else told(run))


def _act_on_runs(act: Act) -> None:
    """Make the command of an act."""
    what = f"{act.capitalize()} one run, or with --yes all that the options find. Of one tenant at a time."

    @app.command(act.value, help=what)
    def command(
        run_id: SomeRun = None,
        tenant: Whose = None,
        workflow: Workflow = None,
        state: State = None,
        batch: Batch = None,
        outcome: Outcome = None,
        error: Error = None,
        yes: Yes = False,
        as_json: AsJson = False,
    ) -> None:
        choice = Choice(workflow, state, batch, outcome, error)
        _done_to(act, tenant, run_id, choice, yes=yes, as_json=as_json)


for _act in (Act.CANCEL, Act.PAUSE, Act.RESUME):
    _act_on_runs(_act)


@app.command()
def retry(
    run_id: SomeRun = None,
    tenant: Whose = None,
    from_step: Annotated[
        int | None, typer.Option(min=1, help="Of one run: do this step and all after it again, finished or not.")
    ] = None,
    workflow: Workflow = None,
    state: State = None,
    batch: Batch = None,
    outcome: Outcome = None,
    error: Error = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Retry one run, or with --yes all that the options find. Of one tenant at a time."""
    if from_step is None:
        choice = Choice(workflow, state, batch, outcome, error)
        _done_to(Act.RETRY, tenant, run_id, choice, yes=yes, as_json=as_json)
        return
    if run_id is None:
        raise typer.BadParameter("Runs are retried from a step one by one: name the run.")
    _one(
        run_id,
        tenant,
        lambda platform, ctx: platform.control.retry(ctx, run_id, from_step=from_step),
        as_json=as_json,
    )


@app.command()
def replay(run_id: OneRun, tenant: Whose = None, as_json: AsJson = False) -> None:
    """Let a dead run begin anew; what it has done is not repeated. `list --state dead` names them."""
    from core.commands import control

    _one(run_id, tenant, lambda platform, ctx: control.replay(platform, ctx, run_id), as_json=as_json)


@app.command()
def fork(
    run_id: OneRun,
    from_step: Annotated[int, typer.Option(min=1, help="The first step that is performed, counted from 1.")],
    document: Annotated[
        Path | None,
        typer.Option("--input", exists=True, dir_okay=False, allow_dash=True, help="JSON file with another input."),
    ] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key: used again, it makes no second fork.")] = None,
    tenant: Whose = None,
    as_json: AsJson = False,
) -> None:
    """Submit a new run that is given the steps of another one before a step, at no cost."""
    from core.commands import control

    given = None if document is None else control.read_input(document)
    _one(
        run_id,
        tenant,
        lambda platform, ctx: control.fork(platform, ctx, run_id, from_step, given, key),
        as_json=as_json,
        told=lambda run: f"{run.run_id} is {run.state} now, forked from {run.forked_from}.",
    )


@app.command()
def budget(
    run_id: OneRun,
    to: Annotated[str, typer.Option(help="What it may spend in all, in USD, e.g. 2.00.")],
    tenant: Whose = None,
    as_json: AsJson = False,
) -> None:
    """Say what a run may spend in all, its children included: within the policy, and no less than it has spent."""
    from core.commands import control
    from core.usage.model import format_usd

    amount = control.amount_of(to)
    _one(
        run_id,
        tenant,
        lambda platform, ctx: platform.control.budget(ctx, run_id, amount),
        as_json=as_json,
        told=lambda run: (
            f"{run.run_id} may spend {format_usd(run.budget_microusd)}, of which {format_usd(run.cost_microusd)} are "
            f"spent. It is {run.state} now."
        ),
    )

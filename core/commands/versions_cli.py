"""The command ``bailiwick versions``. It imports what it works with only when it works."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from core.settings import Settings

if TYPE_CHECKING:
    from core.tenancy import TenantContext
    from core.versions.model import Changed, VersionView
    from core.versions.service import VersionService

app = typer.Typer(
    help="Versions of workflows: where new runs go, and which code is still needed.", no_args_is_help=True
)
Workflow = Annotated[str, typer.Argument(help="Name of the workflow.")]


@app.command("list")
def listing(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Every version: what of it is open, how many workers have its code, which new runs go to it."""
    from core.commands import tables
    from core.commands import versions as words
    from core.commands.installation import opened

    async def work() -> list[VersionView]:
        async with opened(Settings()) as (platform, ctx):
            return await platform.versions.list(ctx)

    views = asyncio.run(work())
    if as_json:
        typer.echo(words.listed_as_json(views))
    else:
        tables.show(words.listed_as_table(views))


@app.command()
def canary(
    workflow: Workflow,
    version: Annotated[str, typer.Argument(help="The version to try.")],
    percent: Annotated[float, typer.Option(min=0, max=100, help="Share of the new runs, in percent.")] = 0.0,
    tenant: Annotated[list[str] | None, typer.Option(help="All new runs of this tenant; may be repeated.")] = None,
) -> None:
    """Send a share of the new runs, and all of some tenants, to a version."""
    _change(workflow, lambda versions, ctx: versions.try_out(ctx, workflow, version, percent, tuple(tenant or ())))


@app.command()
def promote(
    workflow: Workflow,
    version: Annotated[str | None, typer.Argument(help="Where all new runs go; the canary unless you say.")] = None,
) -> None:
    """Send all new runs to the canary, or to a version."""
    _change(workflow, lambda versions, ctx: versions.promote(ctx, workflow, version))


@app.command()
def rollback(workflow: Workflow) -> None:
    """End the canary; without one, send all new runs to the version before."""
    _change(workflow, lambda versions, ctx: versions.roll_back(ctx, workflow))


@app.command()
def newest(workflow: Workflow) -> None:
    """Send all new runs to the newest version, as without any route."""
    _change(workflow, lambda versions, ctx: versions.follow_newest(ctx, workflow))


def _change(workflow: str, act: Callable[[VersionService, TenantContext], Awaitable[Changed]]) -> None:
    from core.commands.installation import opened
    from core.commands.versions import changed_as_text

    async def work() -> Changed:
        async with opened(Settings()) as (platform, ctx):
            return await act(platform.versions, ctx)

    typer.echo(changed_as_text(workflow, asyncio.run(work())))

"""``bailiwick``: the command line. It starts processes by module name and imports none of them."""

from __future__ import annotations

import asyncio
import runpy
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from core.audit.model import Chain
from core.commands import runs_cli, versions_cli
from core.errors import BailiwickError, SetupError
from core.settings import APP_ROLE, LOCK_ROLE, Port, Settings
from core.tenancy import Policy, Role

app = typer.Typer(
    name="bailiwick",
    help="Conversational agents and long-running workflows for many organisations on shared infrastructure.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
demo = typer.Typer(help="Show the platform at work, against a running `bailiwick up`.", no_args_is_help=True)
app.add_typer(demo, name="demo")
app.add_typer(runs_cli.app, name="runs")
audit = typer.Typer(help="The record of acts: is it whole?", no_args_is_help=True)
app.add_typer(audit, name="audit")
app.add_typer(versions_cli.app, name="versions")
OneTenant = Annotated[str | None, typer.Option("--tenant", help="Only of this tenant.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def up() -> None:
    """Run a whole installation: its servers unless you name your own, and one process of each kind."""
    from core.embedded import supervisor
    from core.embedded.board import ConsoleBoard

    began = time.monotonic()
    with ConsoleBoard(_console()) as board:

        def ready(settings: Settings, introduction: str) -> None:
            board.close()
            _introduce(settings, introduction)
            _console().print(f"Ready in {time.monotonic() - began:.1f} s. Ctrl-C stops everything.", style="bold")

        asyncio.run(supervisor.up(Settings(), board, ready))
    _console().print("Stopped.")


@app.command()
def migrate() -> None:
    """Bring the database to the current schema. Needs BAILIWICK_DATABASE_URL of a role that may create roles."""
    from core.db import migrate as migrations
    from core.embedded.secrets import role_password
    from core.embedded.servers import complete

    settings = complete(Settings())
    key = settings.required("secret_key")

    async def work() -> list[str]:
        return await migrations.migrate(
            settings.required("database_url"),
            app_password=role_password(key, APP_ROLE),
            lock_password=role_password(key, LOCK_ROLE),
        )

    applied = asyncio.run(work())
    for name in applied:
        typer.echo(f"applied {name}")
    typer.echo("The database is up to date.")


@app.command()
def tenant(
    tenant_id: Annotated[str, typer.Argument(help="Small letters, digits and hyphens, e.g. regional-bank.")],
    name: Annotated[str, typer.Option(help="How the organisation is called.")],
    policy: Annotated[Path | None, typer.Option(help="Its policy as JSON; the rest is as in tier free.")] = None,
) -> None:
    """Add an organisation to this installation."""
    from core.commands.installation import installation
    from core.tenants.founding import add_tenant, read_policy

    rules = Policy() if policy is None else read_policy(policy)

    async def work() -> bool:
        async with installation(Settings()) as platform:
            return await add_tenant(platform.tenants, platform.settings.region, tenant_id, name, rules)

    if not asyncio.run(work()):
        raise SetupError(f"There is a tenant {tenant_id} already.")
    typer.echo(f"{name} is a tenant of this platform now.")


@app.command()
def person(
    email: Annotated[str, typer.Argument(help="With which they log in.")],
    name: Annotated[str, typer.Option(help="How they are called.")],
    tenant: Annotated[str, typer.Option(help="Where they belong; operators to `platform`.")],
    role: Annotated[Role, typer.Option(help="What they may do there.")],
) -> None:
    """Add somebody to an organisation; the password is asked for, or read from standard input."""
    from core.commands.installation import installation
    from core.tenants.founding import add_person

    if sys.stdin.isatty():
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline().rstrip("\n")

    async def work() -> bool:
        async with installation(Settings()) as platform:
            return await add_person(platform.tenants, platform.settings.region, tenant, email, name, role, password)

    if not asyncio.run(work()):
        raise SetupError(f"Somebody of {tenant} has the e-mail {email} already.")
    typer.echo(f"{email} can log in now.")


@app.command()
def seed() -> None:
    """Make what is missing of the demo: three tenants, their people and keys. Prints who can log in."""
    runpy.run_module("core.demo.tenants", run_name="__main__")


@demo.command()
def loans(
    file: Annotated[Path, typer.Option(help="CSV file of applications, with a header line.")],
    tenant: Annotated[str, typer.Option(help="Demo tenant that submits, e.g. regional-bank.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many rows.")] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds after which to stop waiting.")] = 300.0,
) -> None:
    """Submit real applications through the public API, wait, and print one JSON line that counts each once.

    Exit code 0 when none was lost, none failed and no effect was carried out twice.
    """
    from core.demo import submit

    raise typer.Exit(submit.loans(file, tenant, limit=limit, timeout_s=timeout))


@demo.command()
def burst(
    runs: Annotated[int, typer.Option(min=1, max=20_000, help="Runs that the noisy tenant submits at once.")] = 600,
    seconds: Annotated[float, typer.Option(min=1, help="How long the other tenants go on submitting.")] = 60.0,
    work: Annotated[float, typer.Option(min=0, max=60, help="Seconds for which a run holds its slot.")] = 2.0,
    sla: Annotated[float, typer.Option(min=0.1, help="Seconds within which a run should end.")] = 10.0,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds after which to stop waiting.")] = 300.0,
) -> None:
    """Play a Monday morning: one tenant submits a burst, the others should not notice. Ends with one JSON line.

    Watch it on the dashboard's overview. Exit code 0 when nothing was lost and nothing failed.
    """
    from core.demo import burst as monday

    plan = monday.Plan(runs=runs, seconds=seconds, work_s=work, sla_s=sla, timeout_s=timeout)
    raise typer.Exit(monday.burst(plan))


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Say what is reachable, in which version, what is wrong and what to do. Exit code 1 when something is."""
    from core import doctor as checks

    findings = asyncio.run(checks.examine(Settings()))
    if as_json:
        typer.echo(checks.as_json(findings))
    else:
        _console().print(checks.as_table(findings))
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


@audit.command("head")
def audit_head(tenant: OneTenant = None, as_json: AsJson = False) -> None:
    """Seal what is not sealed and print the end of each chain: with --json, what an auditor keeps outside."""
    from core.commands import audit as chains
    from core.commands import tables
    from core.commands.installation import opened

    async def work() -> chains.KeptHeads:
        async with opened(Settings()) as (platform, ctx):
            return await chains.heads(platform, ctx, tenant)

    found = asyncio.run(work())
    if as_json:
        typer.echo(chains.heads_as_json(found))
    else:
        tables.show(chains.heads_as_table(found))


@audit.command("verify")
def audit_verify(
    tenant: OneTenant = None,
    against: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="What `bailiwick audit head --json` printed."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Recompute every hash of every tenant's chain. Exit code 1 when one is broken.

    Whoever owns the database can compute a whole chain anew, or cut off its end: --against tells.
    """
    from core.commands import audit as chains
    from core.commands import tables
    from core.commands.installation import opened

    kept = {} if against is None else chains.kept_heads(against.read_text("utf-8")).heads

    async def work() -> list[Chain]:
        async with opened(Settings()) as (platform, ctx):
            return await chains.examine(platform, ctx, tenant, kept)

    found = asyncio.run(work())
    if as_json:
        typer.echo(chains.as_json(found))
    else:
        tables.show(chains.as_table(found, kept))
    if any(chain.broken for chain in found):
        raise typer.Exit(1)


def _console() -> Console:
    return Console(highlight=False)  # as wide as the terminal is now


def _introduce(settings: Settings, introduction: str) -> None:
    dashboard = f"http://127.0.0.1:{settings.port(Port.DASHBOARD)}"
    table = Table.grid(padding=(0, 3))
    table.add_row("Chat and API", settings.web_url())
    table.add_row("Dashboard", dashboard)
    table.add_row("Logs", str(settings.home / "logs"))
    if settings.model_url is None:
        table.add_row("Model", "offline: answers come from rules, not from a language model.")
        table.add_row("", "Set BAILIWICK_MODEL_URL and BAILIWICK_MODEL_API_KEY to use a real one.")
    else:
        table.add_row("Model", settings.model_url)
    _console().print()
    _console().print(table)
    _console().print()
    _console().print(introduction, markup=False)


def main() -> None:
    """Entry point: every error that is ours ends in one line and exit code 1."""
    try:
        app()
    except BailiwickError as error:
        sys.exit(f"bailiwick: {error.message}")
    except ValidationError as error:
        for wrong in error.errors():
            name = "_".join(str(part) for part in wrong["loc"]).upper()
            typer.echo(f"bailiwick: BAILIWICK_{name}: {wrong['msg']}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()

"""``bailiwick runs``: what runs did and wait for, told to whoever operates this machine; never what they contain."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from core.bootstrap import Platform
from core.ids import RunId
from core.queue.estimate import StartsIn
from core.queue.model import code_of
from core.runs.history import History, RunLine, history, lines
from core.runs.model import Cause, RunState
from core.runs.timeline import Attempt, Entry, Phase
from core.tenancy import TenantContext
from core.usage.model import format_usd

_NONE = "–"
_COLORS = {
    RunState.QUEUED: "yellow",
    RunState.RUNNING: "blue",
    RunState.WAITING: "magenta",
    RunState.SUCCEEDED: "green",
    RunState.FAILED: "red",
    RunState.CANCELLED: "dim",
    RunState.DEAD: "bold red",
}
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


@dataclass(frozen=True, slots=True)
class RunReport:
    """A run's life, and when it should start while it is queued (None: nobody can say, or it has)."""

    history: History
    starts_in: StartsIn | None


async def show(platform: Platform, ctx: TenantContext, run_id: str, tenant_id: str | None) -> RunReport:
    """A run's life. Raises ``NotFound``."""
    found = await history(platform.db, ctx, run_id, platform.clock.now(), tenant_id=tenant_id)
    async with platform.db.tenant_transaction(ctx) as tx:
        codes = (await platform.queue.live_in(tx, fresh=True)).codes
        starts_in = await platform.queue.starts_in(tx, RunId(run_id), any_tenant=True)
    run = found.run
    if run.state is RunState.QUEUED and codes is not None and code_of(run.workflow, run.version) not in codes:
        return RunReport(replace(found, run=replace(run, cause=Cause.NO_CODE)), None)
    return RunReport(found, starts_in)


async def listed(
    platform: Platform, ctx: TenantContext, tenant_id: str | None, state: RunState | None, limit: int
) -> list[RunLine]:
    """Runs, newest first."""
    return await lines(platform.db, ctx, tenant_id=tenant_id, state=state, limit=limit)


# For programs --------------------------------------------------------------------------------------------


def as_json(report: RunReport) -> str:
    """``{"run", "timeline": [{"phase", "name", "began", "ended", "waited", "attempt", "burst"}], "waited_s", …}``."""
    found = report.history
    return _dumped(
        {
            "run": asdict(found.run),
            "timeline": [asdict(entry) for entry in found.timeline()],
            "waited_s": found.waited(),
            "starts_in": None if report.starts_in is None else asdict(report.starts_in),
            "relatives": asdict(found.relatives),
        }
    )


def lines_as_json(found: Sequence[RunLine]) -> str:
    """A JSON list of runs, newest first."""
    return _dumped([asdict(line) for line in found])


def _dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=lambda moment: moment.isoformat())


# For people ----------------------------------------------------------------------------------------------


def as_text(report: RunReport) -> RenderableType:
    """Head, timeline and sums."""
    return Group(_head(report), "", _timeline(report.history), "", _sums(report.history), *_family(report.history))


def lines_as_table(found: Sequence[RunLine]) -> Table:
    """One line per run."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("Run", "State", "Workflow", "Tenant", "Submitted"):
        table.add_column(name)
    table.add_column("Took", justify="right")
    table.add_column("Cost", justify="right")
    for line in found:
        took = None if line.finished_at is None else (line.finished_at - line.submitted_at).total_seconds()
        table.add_row(
            line.run_id,
            _state(line),
            escape(f"{line.workflow} v{line.version}"),
            escape(line.tenant_id),
            _moment(line.submitted_at),
            lasting(took),
            format_usd(line.cost_microusd),
        )
    return table


def lasting(seconds: float | None) -> str:
    """``12 ms``, ``4.2 s``, ``3 min 5 s``, ``2 h 10 min``."""
    if seconds is None:
        return _NONE
    if seconds < 1:
        return f"{round(seconds * 1000)} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    index = next(index for index, (size, _) in enumerate(_UNITS) if whole >= size)
    size, name = _UNITS[index]
    below, below_name = _UNITS[index + 1] if index + 1 < len(_UNITS) else (1, "s")
    rest = whole % size // below
    return f"{whole // size} {name}" + (f" {rest} {below_name}" if rest else "")


def _head(report: RunReport) -> Table:
    run, now = report.history.run, report.history.now
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_row("[bold]Run[/]", run.run_id)
    table.add_row("Tenant", escape(run.tenant_id))
    table.add_row("Workflow", escape(f"{run.workflow} v{run.version}, {run.lane.name.lower()}, from {run.source}"))
    if (parent := report.history.relatives.parent) is not None:
        table.add_row("Parent", f"{parent.run_id} {escape(parent.workflow)}")
    table.add_row("State", _state(run))
    table.add_row("Submitted", f"{_moment(run.submitted_at)} UTC")
    took = ((run.finished_at or now) - run.submitted_at).total_seconds()
    table.add_row("Lasted", lasting(took) + ("" if run.finished_at else " so far"))
    if report.starts_in is not None:
        soonest, latest = report.starts_in.soonest_s, report.starts_in.latest_s
        table.add_row("Starts in", f"{lasting(soonest)} to {lasting(latest)}, if nobody comes or goes")
    return table


def _timeline(found: History) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("After", justify="right")
    table.add_column("What")
    table.add_column("Took", justify="right")
    table.add_column("Cost", justify="right")
    table.add_column("How")
    for entry in found.timeline():
        after = lasting((entry.began - found.run.submitted_at).total_seconds())
        took = lasting(entry.lasted_s(found.now)) + ("" if entry.ended else " …")
        table.add_row(after, *_told(entry, took, found.run))
    return table


def _told(entry: Entry, took: str, run: RunLine) -> tuple[str, str, str, str]:
    """What, how long, cost, how."""
    if entry.attempt is not None:
        return _step(entry.name, entry.attempt, took)
    match entry.phase:
        case Phase.QUEUED:
            return "[yellow]queued[/]", took, "", _causes(entry.waited)
        case Phase.SLOT:
            return "[blue]slot[/]", took, "", "lent: over the tenant's cap" if entry.burst else ""
        case Phase.WAITING:
            return "[magenta]waits[/]", took, "", entry.name.replace("_", " ")
        case Phase.END:
            why = run.outcome if entry.name == RunState.SUCCEEDED else run.error_code
            color = _COLORS[RunState(entry.name)]
            return f"[{color}]{entry.name}[/]", "", "", escape(why or "")
        case _:
            return entry.name.replace("_", " "), "", "", escape(entry.why)


def _step(name: str, done: Attempt, took: str) -> tuple[str, str, str, str]:
    how = [done.kind, done.state if done.attempt == 1 else f"{done.state}, attempt {done.attempt}"]
    how += [word for word in (done.model, done.error_code) if word]
    cost = format_usd(done.cost_microusd) if done.cost_microusd else ""
    color = "red" if done.state == "failed" else "default"
    return f"  [{color}]{abs(done.step)} {escape(name)}[/]", took, cost, escape(" · ".join(how))


def _sums(found: History) -> Table:
    run, waited = found.run, found.waited()
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_row("Waited", lasting(sum(waited.values())), _causes(waited))
    table.add_row("Worked", lasting(run.worker_seconds), f"{run.attempt} × in a slot")
    table.add_row("Cost", format_usd(run.cost_microusd), f"of {format_usd(run.budget_microusd)}")
    return table


def _family(found: History) -> list[RenderableType]:
    """How the children stand, and those that say most: the unsuccessful ones first."""
    relatives = found.relatives
    if not relatives.counts:
        return []
    counts = " · ".join(f"{count:,} [{_COLORS[state]}]{state}[/]" for state, count in relatives.counts.items())
    table = Table.grid(padding=(0, 2, 0, 0))
    for child in relatives.children:
        table.add_row(child.run_id, escape(child.workflow), f"[{_COLORS[child.state]}]{child.state}[/]")
    left = sum(relatives.counts.values()) - len(relatives.children)
    return ["", f"[bold]Children[/]  {counts}", table, *([f"… and {left:,} more"] if left else [])]


def _state(run: RunLine) -> str:
    """``waiting · no code``, ``failed · step_failed``: causes in words, codes and outcomes as programs write them."""
    state = f"[{_COLORS[run.state]}]{run.state}[/]"
    why = run.error_code or run.outcome if run.state.final else (run.cause or "").replace("_", " ")
    return f"{state} · {escape(why)}" if why else state


def _causes(waited: dict[Cause, float]) -> str:
    ordered = sorted(waited.items(), key=lambda item: -item[1])
    return " · ".join(f"{cause.value.replace('_', ' ')} {lasting(seconds)}" for cause, seconds in ordered)


def _moment(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S")

"""``bailiwick versions``: where new runs go, told to whoever operates this machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.markup import escape
from rich.table import Table

from core.versions.model import Changed, Route, VersionView


def listed_as_json(views: Sequence[VersionView]) -> str:
    """A JSON list of versions, with ``open_runs``, ``removable`` and ``stuck``."""
    rows = [
        asdict(view) | {"open_runs": view.open_runs, "removable": view.removable, "stuck": view.stuck} for view in views
    ]
    return json.dumps(rows, ensure_ascii=False, default=lambda moment: moment.isoformat())


def listed_as_table(views: Sequence[VersionView]) -> Table:
    """One line per version."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("Workflow", "Version", "New runs", "Workers"):
        table.add_column(name, justify="left" if name in {"Workflow", "Version"} else "right")
    for name in ("Queued", "Running", "Waiting", "Oldest", ""):
        table.add_column(name, justify="right" if name != "" else "left")
    for view in views:
        oldest = "" if view.oldest_at is None else f"{view.oldest_at:%Y-%m-%d %H:%M}"
        table.add_row(
            escape(view.workflow),
            escape(view.version),
            share_in_words(view),
            str(view.workers),
            *(str(count) if count else "" for count in (view.queued, view.running, view.waiting)),
            oldest,
            _remark(view),
        )
    return table


def share_in_words(view: VersionView) -> str:
    """``5 %, all of bank``; empty when no new run goes to it."""
    parts = [f"{view.share:g} %"] if view.share else []
    if view.tenants:
        parts.append("all of " + ", ".join(view.tenants))
    return ", ".join(parts)


def _remark(view: VersionView) -> str:
    if view.stuck:
        return "[red]no live worker has its code[/]"
    if view.removable:
        return "[dim]its code may be removed[/]"
    return "" if view.installed else "[dim]not installed here[/]"


def changed_as_text(workflow: str, changed: Changed) -> str:
    """Where new runs go from now on, and what to see to, a line each."""
    lines = [route_in_words(workflow, changed.route), *(f"Note: {warning}" for warning in changed.warnings)]
    return "\n".join(lines)


def route_in_words(workflow: str, route: Route | None) -> str:
    """One sentence."""
    if route is None:
        return f"New runs of {workflow} go to its newest version."
    if route.canary is None:
        return f"New runs of {workflow} go to version {route.base}."
    of = f" and all of {', '.join(route.tenants)}" if route.tenants else ""
    return (
        f"{route.percent:g} % of the new runs of {workflow}{of} go to version {route.canary}, the rest to {route.base}."
    )

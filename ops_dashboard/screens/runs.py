"""Runs: find them, and open one."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pandas as pd
import streamlit as st

from core.runs.bulk import Choice
from core.runs.model import Lane, RunState
from core.usage.model import format_usd
from ops_dashboard import data, session, snapshots
from ops_dashboard.data import RunFilter
from ops_dashboard.pulse import Pulse
from ops_dashboard.screens import bulk, run_detail
from ops_dashboard.screens.tables import height_of
from ops_dashboard.session import Viewer
from ops_dashboard.words import CAUSES, NONE, duration, moment, plain

PAGE = 50
_FIELD_PX = 155
_ANY = "any"
_TABLE = "runs_table"
_SHOWN = "runs_shown"
_CLICKED = "runs_clicked"
_KEPT = "runs_kept_filters"
_FILTERS = ("state", "workflow", "tenant", "outcome", "search")
_PAGES = "runs_pages"


def show() -> None:
    """The list, or one run when the address names one (``?run=…``)."""
    if _CLICKED in st.session_state:
        # Only a run of the whole script may change the address: what a fragment writes there can get lost.
        st.query_params["run"] = st.session_state.pop(_CLICKED)
    run_id = st.query_params.get("run")
    if run_id:
        run_detail.show(run_id, close)
        return
    st.title("Runs", anchor=False)
    who = session.viewer()
    _filters(who)
    if who.reviewer:
        bulk.menu(_choice())
        bulk.ask()
        bulk.progress()
    _list()


def close() -> None:
    """Back to the list, with the filters as they were."""
    del st.query_params["run"]
    st.session_state.update(st.session_state.pop(_KEPT, {}))


def _filters(who: Viewer) -> None:
    workflows = [_ANY, *session.ask(_workflow_names)]
    st.segmented_control(
        "State",
        [state.value for state in RunState],
        key="state",
        bind="query-params",
        on_change=_first_page,
        label_visibility="collapsed",
    )
    kept: dict[str, Any] = {"bind": "query-params", "on_change": _first_page}
    # Not columns: on a narrow screen two of them share a line.
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox("Workflow", workflows, key="workflow", width=_FIELD_PX, **kept)
        if who.operator:
            tenants = [_ANY, *(tenant.tenant_id for tenant in snapshots.pulse(who).tenants)]
            st.selectbox("Tenant", tenants, key="tenant", width=_FIELD_PX, **kept)
        st.text_input("Outcome", key="outcome", placeholder="declined", width=_FIELD_PX, **kept)
        st.text_input(
            "Search",
            key="search",
            placeholder="run id, batch id or idempotency key",
            type="search",
            width=320,
            **kept,
        )


async def _workflow_names(platform: Any, _: Viewer) -> list[str]:
    names: list[str] = platform.workflows.names()
    return names


def _choice() -> Choice:
    """What the filters say, for an act on all that they find; what is searched for is a batch then."""
    state = _chosen("state")
    return Choice(
        workflow=_chosen("workflow"),
        state=None if state is None else RunState(state),
        batch_id=_chosen("search"),
        outcome=_chosen("outcome"),
    )


def _first_page() -> None:
    st.session_state.pop(_PAGES, None)


def _chosen(key: str) -> str | None:
    value = (st.session_state.get(key) or "").strip()
    return None if value in {"", _ANY} else value


@session.live()
def _list() -> None:
    if _CLICKED in st.session_state:
        st.rerun()  # a run was clicked: the whole screen changes
    who = session.viewer()
    pages: list[tuple[datetime, str]] = st.session_state.setdefault(_PAGES, [])
    where = RunFilter(
        tenant_id=_chosen("tenant") if who.operator else None,
        user_id=who.only_own_runs,
        state=_chosen("state"),
        workflow=_chosen("workflow"),
        outcome=_chosen("outcome"),
        search=_chosen("search"),
    )
    found = session.ask(
        lambda platform, who: data.runs(
            platform.db, who.ctx, where, before=pages[-1] if pages else None, limit=PAGE + 1
        )
    )
    rows, more = found[:PAGE], len(found) > PAGE
    if not rows:
        _nothing(where)
        return
    # What a click on a row means is decided by the rows that were on the screen when it was clicked.
    st.session_state[_SHOWN] = [row["run_id"] for row in rows]
    st.dataframe(
        _table(who, rows),
        hide_index=True,
        height=height_of(len(rows), 18),
        key=_TABLE,
        on_select=_open_selected,
        selection_mode="single-cell",
        column_config={
            "Run": st.column_config.TextColumn(width="small"),
            "Batch": st.column_config.TextColumn(width="small"),
            "Cause": st.column_config.TextColumn(help=CAUSES),
            "Outcome": st.column_config.TextColumn(width=110),
            "Cost": st.column_config.TextColumn(width=90),
            "State": st.column_config.MultiselectColumn(
                options=[state.value for state in RunState], color=list(_STATE_TONES), width=110
            ),
        },
    )
    _pager(pages, rows, more)


_STATE_TONES = ("orange", "blue", "violet", "green", "red", "gray", "yellow")


def _open_selected() -> None:
    cells = st.session_state[_TABLE].selection.cells
    if cells:
        st.session_state[_CLICKED] = st.session_state[_SHOWN][cells[0][0]]
        st.session_state[_KEPT] = {key: st.session_state[key] for key in _FILTERS if key in st.session_state}


def _pager(pages: list[tuple[datetime, str]], rows: list[dict[str, Any]], more: bool) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button("Newer", icon=":material/chevron_left:", disabled=not pages):
            pages.pop()
            st.rerun(scope="fragment")
        if st.button("Older", icon=":material/chevron_right:", icon_position="right", disabled=not more):
            pages.append((rows[-1]["submitted_at"], rows[-1]["run_id"]))
            st.rerun(scope="fragment")
        st.caption(f"Page {len(pages) + 1} · click a run to open it · times of {session.viewer().timezone}")


def _nothing(where: RunFilter) -> None:
    if any((where.state, where.workflow, where.outcome, where.search, where.tenant_id)):
        st.info("No run matches these filters.", icon=":material/filter_alt_off:")
    else:
        st.info(
            "No run yet. Start one in the chat, with `POST /api/v1/runs`, or with a schedule.",
            icon=":material/rocket_launch:",
        )


def _table(who: Viewer, rows: list[dict[str, Any]]) -> pd.DataFrame:
    pulse = snapshots.pulse(who)
    names = {tenant.tenant_id: tenant.name for tenant in pulse.tenants}
    columns: dict[str, list[Any]] = {
        "State": [[row["state"]] for row in rows],
        "Cause": [_cause(row, pulse) for row in rows],
        "Workflow": [f"{row['workflow']} v{row['version']}" for row in rows],
        "Outcome": [plain(row["outcome"] or row["error_code"] or NONE) for row in rows],
        "Submitted": [moment(row["submitted_at"], who.timezone) for row in rows],
        "Waited": [_span(row["submitted_at"], row["started_at"]) for row in rows],
        "Duration": [_span(row["submitted_at"], row["finished_at"]) for row in rows],
        "Cost": [format_usd(row["cost_microusd"]) for row in rows],
    }
    # What is the same for all, as a rule, takes no room.
    if any(row["lane"] != Lane.NORMAL for row in rows):
        columns["Lane"] = [Lane(row["lane"]).name.lower() for row in rows]
    columns["Source"] = [row["source"] for row in rows]
    if any(row["batch_id"] for row in rows):
        columns["Batch"] = [row["batch_id"] or NONE for row in rows]
    columns["Run"] = [row["run_id"] for row in rows]
    if who.operator:
        columns = {"Tenant": [names.get(row["tenant_id"], row["tenant_id"]) for row in rows], **columns}
    return pd.DataFrame(columns)


def _cause(row: dict[str, Any], pulse: Pulse) -> str:
    queued = row["state"] == RunState.QUEUED
    cause = pulse.queued_cause(row["tenant_id"], row["workflow"], row["version"]) if queued else row["cause"]
    return plain(cause) if cause else NONE


def _span(begin: datetime, end: datetime | None) -> str:
    return duration((end - begin).total_seconds()) if end is not None else NONE

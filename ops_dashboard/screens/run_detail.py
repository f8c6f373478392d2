"""One run: where it stands, its timeline, its steps and costs; for its tenant also input and output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import pandas as pd
import streamlit as st

from core.bootstrap import Platform
from core.errors import NotFound
from core.runs.history import Relative, Relatives
from core.runs.model import Cause, RunState, RunView
from core.usage.model import format_usd
from ops_dashboard import data, figures, session, snapshots, timeline
from ops_dashboard.data import RunDetail
from ops_dashboard.screens import run_acts
from ops_dashboard.screens.tiles import tile
from ops_dashboard.session import Viewer
from ops_dashboard.words import NONE, badge, duration, literal, moment, percent, plain

_RUN = "run_shown"
_Color = Literal["orange", "blue", "violet", "green", "red", "gray"]
_STATE_BADGES: dict[RunState, tuple[_Color, str]] = {
    RunState.QUEUED: ("orange", ":material/hourglass_top:"),
    RunState.RUNNING: ("blue", ":material/play_arrow:"),
    RunState.WAITING: ("violet", ":material/pause:"),
    RunState.SUCCEEDED: ("green", ":material/check:"),
    RunState.FAILED: ("red", ":material/error:"),
    RunState.CANCELLED: ("gray", ":material/block:"),
    RunState.DEAD: ("red", ":material/skull:"),
}

_STARTS: dict[str, str] = {
    Cause.PAUSED: "It starts when somebody resumes its tenant.",
    Cause.NO_WORKER: "It starts when a worker comes: none is alive.",
    Cause.NO_CODE: "It starts when a worker comes that has its version: none that is alive has it.",
}


@dataclass(frozen=True, slots=True)
class _Shown:
    detail: RunDetail
    view: RunView | None  # with content; None for operators
    now: datetime
    hidden: bool  # input and output are for the submitter's eyes only, and this is somebody else


async def _read(platform: Platform, who: Viewer, run_id: str) -> _Shown:
    now = platform.clock.now()
    detail = await data.run_detail(platform.db, platform.queue, who.ctx, run_id, now, who.only_own_runs)
    if detail is None:
        raise NotFound("There is no such run, or it is not yours to see.")
    view = None if who.operator else await platform.runs.get(who.ctx, run_id)
    workflow, submitter = detail.row["workflow"], None if view is None else view.user_id
    hidden = submitter not in {None, who.ctx.user_id} and platform.workflows.is_private(workflow)
    return _Shown(detail, view, now, hidden)


def show(run_id: str, close: Callable[[], None]) -> None:
    """The run's page. ``close`` is called when the person goes back to the list."""
    st.button("All runs", icon=":material/arrow_back:", on_click=close, type="tertiary")
    st.session_state[_RUN] = run_id
    _live()
    run_acts.ask(run_id)


@session.live()
def _live() -> None:
    run_id = st.session_state[_RUN]
    try:
        shown = session.ask(lambda platform, who: _read(platform, who, run_id))
    except NotFound as error:
        st.warning(literal(error.message), icon=":material/search_off:")
        return
    who = session.viewer()
    _head(who, shown)
    _tiles(shown.detail.row, who, shown.now)
    queued = shown.detail.row["state"] == RunState.QUEUED
    _waiting(shown.detail, _queued_cause(who, shown.detail.row) if queued else None)
    if shown.view is not None and shown.view.progress:
        _progress(shown.view.progress)
    _family(shown.detail.history.relatives)
    with st.container(border=True):
        st.plotly_chart(
            timeline.timeline(
                shown.detail.steps, shown.detail.passages, shown.detail.transitions, _calm(shown.now), who.timezone
            ),
            key="timeline",
            config=figures.CONFIG,
        )
        if (attempts := len(shown.detail.steps)) > timeline.MOST_STEPS:
            st.caption(
                f"The newest {timeline.MOST_STEPS} of {attempts:,} attempts of steps; all are in the table below."
            )
    _tabs(who, shown)


def _head(who: Viewer, shown: _Shown) -> None:
    row = shown.detail.row
    state = RunState(row["state"])
    color, icon = _STATE_BADGES[state]
    st.subheader(literal(f"{row['workflow']} v{row['version']}"), anchor=False)
    with st.container(horizontal=True, vertical_alignment="center"):
        cause = row["cause"] if state is not RunState.QUEUED else _queued_cause(who, row)
        st.badge(f"{state}: {plain(cause)}" if cause else str(state), icon=icon, color=color)
        if row["held"] and state is RunState.RUNNING:
            st.badge("pauses before its next step", icon=":material/pause:", color="violet")
        if row["outcome"]:
            st.markdown(badge(plain(row["outcome"]), "gray"))
        if row["error_code"]:
            st.markdown(badge(plain(row["error_code"]), "red"))
        if who.operator:
            st.markdown(f"of **{literal(_name_of(who, row['tenant_id']))}**")
        if _compensates(shown.detail.transitions, state):
            st.badge("undoing", icon=":material/undo:", color="orange")
        st.markdown(f"`{row['run_id']}`")
        if row["forked_from"]:
            st.markdown(f"forked from [{row['forked_from']}](/runs?run={row['forked_from']})")
    with st.container(horizontal=True, gap="xsmall"):  # of their own: on a narrow screen they stand in lines
        if who.operator and state is RunState.DEAD:
            run_acts.replay(row["run_id"])
        if who.reviewer and shown.view is not None:  # operators and members look only
            run_acts.buttons(shown.view)
        if who.admin or who.operator:
            run_acts.fund(row["run_id"], state)


def _compensates(transitions: pd.DataFrame, state: RunState) -> bool:
    """Whether it is undoing what it did."""
    told = [kind for kind in transitions["kind"] if kind in {"compensating", "retried"}]
    return not state.final and told[-1:] == ["compensating"]


def _name_of(who: Viewer, tenant_id: str) -> str:
    return next((one.name for one in snapshots.pulse(who).tenants if one.tenant_id == tenant_id), tenant_id)


def _queued_cause(who: Viewer, row: dict[str, Any]) -> str | None:
    return snapshots.pulse(who).queued_cause(row["tenant_id"], row["workflow"], row["version"])


def _calm(now: datetime) -> datetime:
    """The present, in steps of 5 s: a plot that grew at every look would flicker."""
    return now - timedelta(seconds=now.timestamp() % 5)


def _tiles(row: dict[str, Any], who: Viewer, now: datetime) -> None:
    spent, budget = row["cost_microusd"], row["budget_microusd"]
    waited = row["started_at"] and (row["started_at"] - row["submitted_at"]).total_seconds()
    took = ((row["finished_at"] or now) - row["submitted_at"]).total_seconds()
    with st.grid(5, min_column_width=150):
        for label, value, below in (
            ("Cost", format_usd(spent), f"{percent(spent / budget)} of {format_usd(budget)}" if budget else NONE),
            ("Worker time", duration(row["worker_seconds"]), f"{row['attempt']} × in a slot"),
            ("First wait", duration(waited), "until its first slot"),
            ("Duration", duration(took), "from submission to the end" if row["finished_at"] else "so far"),
            (
                "Submitted",
                moment(row["submitted_at"], who.timezone)[11:],
                moment(row["submitted_at"], who.timezone)[:10],
            ),
        ):
            tile(label, value, below)


def _waiting(detail: RunDetail, queued_for: str | None) -> None:
    """What it waited for so far, and when it should start."""
    if detail.starts_in is not None:
        soonest, latest = round(detail.starts_in.soonest_s), round(detail.starts_in.latest_s)
        when = f"in about {duration(latest)}" if soonest == latest else f"in {duration(soonest)} to {duration(latest)}"
        st.info(f"Should start {'at once' if latest == 0 else when}, if nobody comes or goes.", icon=":material/timer:")
    elif detail.row["state"] == RunState.QUEUED:
        st.info(_STARTS.get(queued_for or "", "Nobody can say yet when it starts."), icon=":material/timer_off:")
    # In tenths of a second: a bar that grew at every look would flicker.
    waited = {cause.value: round(seconds, 1) for cause, seconds in detail.history.waited().items() if seconds >= 0.1}
    if waited:
        whole = duration(sum(waited.values()))
        st.caption(f"Waited {whole} so far" if detail.row["finished_at"] is None else f"Waited {whole}")
        st.html(figures.stacked_bar(waited))


def _progress(progress: dict[str, Any]) -> None:
    done, total = progress.get("done"), progress.get("total")
    if isinstance(done, int | float) and isinstance(total, int | float) and total > 0:
        st.progress(min(1.0, done / total), text=literal(f"{done} of {total} · {progress.get('note') or ''}"))


def _family(family: Relatives) -> None:
    """What spawned it, and what it spawned: the unsuccessful ones first."""
    if family.parent is not None:
        st.caption(f"Spawned by {_linked(family.parent)}")
    if not family.counts:
        return
    told = " · ".join(f"{count:,} {state}" for state, count in family.counts.items())
    # With a key it stays open when what it is called changes, or what stands above it.
    with st.expander(f"Children: {told}", key="run_children", icon=":material/family_history:"):
        for child in family.children:
            st.markdown(f":{_STATE_BADGES[child.state][0]}-badge[{child.state}] {_linked(child)}")
        left = sum(family.counts.values()) - len(family.children)
        if left:
            st.caption(f"and {left:,} more")


def _linked(run: Relative) -> str:
    return f"[{run.run_id}](/runs?run={run.run_id}) {literal(run.workflow)}"


def _tabs(who: Viewer, shown: _Shown) -> None:
    names = ["Steps", "What happened"] + ([] if shown.view is None else ["Input", "Output"])
    # With a key the chosen one stays chosen when something more is shown above.
    tabs = st.tabs(names, key="run_tabs")
    with tabs[0]:
        _steps(shown.detail.steps, who)
    with tabs[1]:
        _transitions(shown.detail.transitions, who)
    if shown.view is None:
        st.caption("Inputs and outputs belong to the tenant; operators do not see them.")
        return
    if shown.hidden:
        for tab in tabs[2:]:
            tab.info("Only the person who submitted this run sees what it was given and returned.")
        return
    with tabs[2]:
        st.json(shown.view.input)
    with tabs[3]:
        if shown.view.error:
            st.error(literal(f"{plain(shown.view.error.get('code'))}: {shown.view.error.get('message')}"))
        if shown.view.output is not None:
            st.json(shown.view.output)
        elif not shown.view.error:
            st.info("No output yet.")


def _steps(steps: pd.DataFrame, who: Viewer) -> None:
    if steps.empty:
        st.info("No step has begun yet.")
        return
    st.dataframe(
        pd.DataFrame(
            {
                "#": steps["step"].abs(),
                "Step": steps["name"],
                "Kind": steps["kind"],
                "Attempt": steps["attempt"],
                "State": steps["state"],
                "Took": [
                    NONE
                    if pd.isna(step.finished_at)
                    else duration((step.finished_at - step.started_at).total_seconds())
                    for step in steps.itertuples()
                ],
                "Cost": [format_usd(int(cost)) for cost in steps["cost_microusd"]],
                "Model": steps["model"].fillna(NONE),
                "Error": [NONE if pd.isna(code) else plain(code) for code in steps["error_code"]],
                "Began": [moment(at, who.timezone) for at in steps["started_at"]],
            }
        ),
        hide_index=True,
    )


def _transitions(transitions: pd.DataFrame, who: Viewer) -> None:
    st.dataframe(
        pd.DataFrame(
            {
                "#": transitions["seq"],
                "At": [moment(at, who.timezone) for at in transitions["at"]],
                "What": [plain(kind) for kind in transitions["kind"]],
                "Step": [NONE if pd.isna(step) else str(abs(int(step))) for step in transitions["step"]],
                "Cause": [NONE if pd.isna(cause) else plain(cause) for cause in transitions["cause"]],
            }
        ),
        hide_index=True,
    )

"""Schedules, pollers and triggers: what starts by itself. Edits act at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd
import streamlit as st

from core.bootstrap import Platform
from core.errors import InvalidInput
from core.schedules.model import FireView, PollerView, ScheduleView
from core.triggers.model import TriggerView
from ops_dashboard import session
from ops_dashboard.screens import pollers, triggers
from ops_dashboard.screens.forms import json_input, zone_input
from ops_dashboard.session import Viewer
from ops_dashboard.words import NONE, code, literal, moment, relative

PREVIEW = 5


@dataclass(frozen=True, slots=True)
class _Listed:
    schedules: Sequence[ScheduleView]
    pollers: Sequence[PollerView]
    triggers: Sequence[TriggerView]
    workflows: list[str]
    now: datetime


async def _read(platform: Platform, who: Viewer) -> _Listed:
    return _Listed(
        await platform.schedules.list(who.ctx),
        await platform.pollers.list(who.ctx),
        await platform.triggers.list(who.ctx),
        platform.workflows.names(),
        platform.clock.now(),
    )


def show() -> None:
    """Three lists; admins edit, others look."""
    who = session.viewer()
    st.title("Schedules", anchor=False)
    listed = session.ask(_read)
    times, addresses, events = st.tabs(["By time", "By a change at an address", "By a webhook or an event"])
    with times:
        if who.admin and st.button("New schedule", icon=":material/add:", key="new_schedule"):
            _create(listed.workflows, who.timezone)
        if not listed.schedules:
            st.info(
                "No schedule yet. Make one here, or say it in the chat: “Every weekday at 09:00 re-check pending "
                "applications”.",
                icon=":material/event_repeat:",
            )
        for schedule in listed.schedules:
            _card(who, schedule, listed)
    with addresses:
        pollers.show(who, listed.pollers, listed.workflows, listed.now)
    with events:
        triggers.show(who, listed.triggers, listed.workflows)


def _card(who: Viewer, schedule: ScheduleView, listed: _Listed) -> None:
    with st.container(border=True):
        facts, acts = st.columns([3, 2], vertical_alignment="top")
        with facts:
            with st.container(horizontal=True, vertical_alignment="center"):
                st.markdown(f"##### {literal(schedule.name)}")
                if schedule.paused:
                    st.badge("paused", icon=":material/pause:", color="gray")
                elif schedule.retry_at:
                    st.badge("tries again", icon=":material/sync_problem:", color="orange")
            st.markdown(
                f"{code(schedule.cron)} · {literal(schedule.timezone)} · starts **{literal(schedule.workflow)}**"
            )
            _last(schedule)
        with acts:
            _next_fires(schedule, listed.now)
        if who.admin:
            _buttons(schedule, listed.workflows)


def _last(schedule: ScheduleView) -> None:
    if schedule.last_error:
        told = literal(schedule.last_error["message"])
        st.error(f"Last time nothing started: {told}", icon=":material/error:")
    elif schedule.last_run_id:
        last = moment(schedule.last_due_at, schedule.timezone)
        st.caption(f"last fired {last} · [{schedule.last_run_id}](/runs?run={schedule.last_run_id})")
    else:
        st.caption("has not fired yet")


def _next_fires(schedule: ScheduleView, now: datetime) -> None:
    if schedule.paused:
        st.caption("Fires nothing until it is resumed.")
        return
    fires = session.ask(lambda platform, _: _preview(platform, schedule.cron, schedule.timezone, now))
    _show_fires(fires, schedule.timezone, now)


async def _preview(platform: Platform, cron: str, timezone: str, now: datetime | None = None) -> list[datetime]:
    return list(platform.schedules.preview(cron, timezone, PREVIEW, now or platform.clock.now()))


def _show_fires(fires: list[datetime], timezone: str, now: datetime) -> None:
    lines = [f"{_long(at, timezone)}" + (f" — {relative(at, now)}" if at is fires[0] else "") for at in fires]
    st.caption(f"Next times, {timezone}")
    st.markdown("  \n".join(lines) or "never")


def _long(at: datetime, timezone: str) -> str:
    return f"{pd.Timestamp(at).tz_convert(timezone):%a} {moment(at, timezone)}"


def _buttons(schedule: ScheduleView, workflows: list[str]) -> None:
    key = schedule.schedule_id
    with st.container(horizontal=True):
        if st.button("Edit", icon=":material/edit:", key=f"edit_{key}"):
            _edit(schedule, workflows)
        if schedule.paused:
            if st.button("Resume", icon=":material/play_arrow:", key=f"resume_{key}"):
                session.act(lambda platform, who: platform.schedules.resume(who.ctx, key), "Resumed.")
                st.rerun()
        elif st.button("Pause", icon=":material/pause:", key=f"pause_{key}"):
            session.act(lambda platform, who: platform.schedules.pause(who.ctx, key), "Paused.")
            st.rerun()
        if st.button("Run now", icon=":material/bolt:", key=f"run_{key}"):
            session.act(lambda platform, who: platform.schedules.run_now(who.ctx, key), "A run was started.")
            st.rerun()
        if st.button("History", icon=":material/history:", key=f"fires_{key}"):
            _fires(schedule)
        if st.button("Delete", icon=":material/delete:", key=f"delete_{key}", type="tertiary"):
            _delete(schedule)


@dataclass(frozen=True, slots=True)
class _Draft:
    name: str
    cron: str
    timezone: str
    workflow: str
    input: dict[str, Any] | None  # None: what is written is no JSON object

    @property
    def arguments(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "cron": self.cron,
            "timezone": self.timezone,
            "workflow": self.workflow,
            "input": self.input,
        }


def _form(key: str, before: ScheduleView | None, workflows: list[str], timezone: str) -> _Draft:
    name = st.text_input("Name", before.name if before else "", key=f"{key}_name")
    left, right = st.columns(2)
    cron = left.text_input(
        "Cron: minute, hour, day of month, month, day of week",
        before.cron if before else "0 9 * * mon-fri",
        key=f"{key}_cron",
        live=True,
    )
    zone = zone_input(right, before.timezone if before else timezone, f"{key}_zone")
    _preview_or_fault(cron, zone)
    names = workflows if before is None or before.workflow in workflows else [before.workflow, *workflows]
    workflow = st.selectbox(
        "Workflow", names, index=names.index(before.workflow) if before else 0, key=f"{key}_workflow"
    )
    return _Draft(
        name, cron, zone, workflow or "", json_input("Input (JSON)", before.input if before else {}, f"{key}_input")
    )


def _preview_or_fault(cron: str, timezone: str) -> None:
    try:
        fires = session.ask(lambda platform, _: _preview(platform, cron, timezone))
    except InvalidInput as error:
        session.show_refusal(error)
        return
    st.caption("Next times: " + " · ".join(_long(at, timezone) for at in fires) if fires else "It never fires.")


@st.dialog("New schedule", width="large")
def _create(workflows: list[str], timezone: str) -> None:
    draft = _form("new", None, workflows, timezone)
    if st.button("Create", type="primary", disabled=draft.input is None) and session.attempt(
        lambda platform, who: platform.schedules.create(who.ctx, **draft.arguments), "The schedule is in force."
    ):
        st.rerun()


@st.dialog("Edit schedule", width="large")
def _edit(schedule: ScheduleView, workflows: list[str]) -> None:
    draft = _form(schedule.schedule_id, schedule, workflows, schedule.timezone)
    if st.button("Save", type="primary", disabled=draft.input is None) and session.attempt(
        lambda platform, who: platform.schedules.edit(
            who.ctx, schedule.schedule_id, version=schedule.version, **draft.arguments
        ),
        "Saved. It acts from now on.",
    ):
        st.rerun()


@st.dialog("Delete this schedule?")
def _delete(schedule: ScheduleView) -> None:
    st.write(f"**{literal(schedule.name)}** fires no more. Its runs stay.")
    if st.button("Delete", type="primary", key="confirm_delete") and session.attempt(
        lambda platform, who: platform.schedules.delete(who.ctx, schedule.schedule_id), "Deleted."
    ):
        st.rerun()


@st.dialog("What became of it", width="large")
def _fires(schedule: ScheduleView) -> None:
    fires: Sequence[FireView] = session.ask(
        lambda platform, who: platform.schedules.fires(who.ctx, schedule.schedule_id, 50)
    )
    if not fires:
        st.info("It has not fired yet.")
        return
    st.dataframe(
        pd.DataFrame(
            {
                "Due": [moment(fire.due_at, schedule.timezone) for fire in fires],
                "Fired": [moment(fire.fired_at, schedule.timezone) for fire in fires],
                "Stands for all since": [moment(fire.missed_since, schedule.timezone) for fire in fires],
                "Run": [fire.run_id or NONE for fire in fires],
                "Fault": [(fire.error or {}).get("message", NONE) for fire in fires],
            }
        ),
        hide_index=True,
    )

"""Pollers: the second half of the schedules screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import streamlit as st

from core.schedules.model import PollerView
from ops_dashboard import session
from ops_dashboard.numbers import whole
from ops_dashboard.screens.forms import json_input, whole_input
from ops_dashboard.session import Viewer
from ops_dashboard.words import code, duration, literal, moment, relative

_EVERY = "Look every … seconds"


def show(who: Viewer, listed: Sequence[PollerView], workflows: list[str], now: datetime) -> None:
    """All pollers; admins edit, others look."""
    if who.admin and st.button("New poller", icon=":material/add:", key="new_poller"):
        _create(workflows)
    if not listed:
        st.info(
            "No poller yet. A poller looks at an address and starts a run when something new is there.",
            icon=":material/rss_feed:",
        )
    for poller in listed:
        _card(who, poller, workflows, now)


def _card(who: Viewer, poller: PollerView, workflows: list[str], now: datetime) -> None:
    with st.container(border=True):
        facts, seen = st.columns([3, 2], vertical_alignment="top")
        with facts:
            with st.container(horizontal=True, vertical_alignment="center"):
                st.markdown(f"##### {literal(poller.name)}")
                if poller.paused:
                    st.badge("paused", icon=":material/pause:", color="gray")
                elif poller.failures:
                    st.badge(f"failed {poller.failures} ×", icon=":material/sync_problem:", color="orange")
            every = f"every {duration(poller.interval_s)} · starts **{literal(poller.workflow)}**"
            st.markdown(f"{code(poller.url)}  \n{every}")
            if poller.last_error:
                st.error(literal(poller.last_error["message"]), icon=":material/error:")
        with seen:
            st.caption(f"last look: {poller.last_status or 'none yet'}, {moment(poller.last_polled_at, who.timezone)}")
            st.caption(f"last change: {moment(poller.last_changed_at, who.timezone)}")
            if poller.next_at:
                st.caption(f"next look {relative(poller.next_at, now) if poller.next_at > now else 'at once'}")
            if poller.last_run_id:
                st.caption(f"last run [{poller.last_run_id}](/runs?run={poller.last_run_id})")
        if who.admin:
            _buttons(poller, workflows)


def _buttons(poller: PollerView, workflows: list[str]) -> None:
    key = poller.poller_id
    with st.container(horizontal=True):
        if st.button("Edit", icon=":material/edit:", key=f"edit_{key}"):
            _edit(poller, workflows)
        if poller.paused:
            if st.button("Resume", icon=":material/play_arrow:", key=f"resume_{key}"):
                session.act(lambda platform, who: platform.pollers.resume(who.ctx, key), "Resumed.")
                st.rerun()
        elif st.button("Pause", icon=":material/pause:", key=f"pause_{key}"):
            session.act(lambda platform, who: platform.pollers.pause(who.ctx, key), "Paused.")
            st.rerun()
        if st.button("Look now", icon=":material/bolt:", key=f"look_{key}", disabled=poller.paused):
            session.act(lambda platform, who: platform.pollers.look_now(who.ctx, key), "It is being looked at.")
            st.rerun()
        if st.button("Delete", icon=":material/delete:", key=f"delete_{key}", type="tertiary"):
            _delete(poller)


@dataclass(frozen=True, slots=True)
class _Draft:
    name: str
    url: str
    interval_s: float
    workflow: str
    input: dict[str, Any] | None  # None: what is written is no JSON object

    @property
    def arguments(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "url": self.url,
            "interval_s": whole(self.interval_s, _EVERY),
            "workflow": self.workflow,
            "input": self.input,
        }


def _form(key: str, before: PollerView | None, workflows: list[str]) -> _Draft:
    name = st.text_input("Name", before.name if before else "", key=f"{key}_name")
    url = st.text_input("Address", before.url if before else "https://", key=f"{key}_url")
    left, right = st.columns(2)
    interval_s = whole_input(left, _EVERY, before.interval_s if before else 300, key=f"{key}_interval")
    names = workflows if before is None or before.workflow in workflows else [before.workflow, *workflows]
    workflow = right.selectbox(
        "Workflow", names, index=names.index(before.workflow) if before else 0, key=f"{key}_workflow"
    )
    document = json_input(
        "Input (JSON); what changed is added as “change”", before.input if before else {}, f"{key}_input"
    )
    return _Draft(name, url, interval_s or 0, workflow or "", document)


@st.dialog("New poller", width="large")
def _create(workflows: list[str]) -> None:
    draft = _form("new_poller", None, workflows)
    if st.button("Create", type="primary", disabled=draft.input is None) and session.attempt(
        lambda platform, who: platform.pollers.create(who.ctx, **draft.arguments), "The poller is in force."
    ):
        st.rerun()


@st.dialog("Edit poller", width="large")
def _edit(poller: PollerView, workflows: list[str]) -> None:
    draft = _form(poller.poller_id, poller, workflows)
    if st.button("Save", type="primary", disabled=draft.input is None) and session.attempt(
        lambda platform, who: platform.pollers.edit(
            who.ctx, poller.poller_id, version=poller.version, **draft.arguments
        ),
        "Saved. It acts from now on.",
    ):
        st.rerun()


@st.dialog("Delete this poller?")
def _delete(poller: PollerView) -> None:
    st.write(f"**{literal(poller.name)}** is looked at no more. Its runs stay.")
    if st.button("Delete", type="primary", key="confirm_delete") and session.attempt(
        lambda platform, who: platform.pollers.delete(who.ctx, poller.poller_id), "Deleted."
    ):
        st.rerun()

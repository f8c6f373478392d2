"""Triggers: the third part of the schedules screen. The secret of a webhook is shown once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import streamlit as st

from core.bootstrap import Platform
from core.errors import BailiwickError
from core.triggers.model import TriggerKind, TriggerView
from core.triggers.service import Made
from ops_dashboard import session
from ops_dashboard.screens.forms import json_input
from ops_dashboard.session import Viewer
from ops_dashboard.words import code, literal, moment


def show(who: Viewer, listed: Sequence[TriggerView], workflows: list[str]) -> None:
    """All triggers; admins edit, others look."""
    if who.admin and st.button("New trigger", icon=":material/add:", key="new_trigger"):
        _create(workflows)
    if not listed:
        st.info(
            "No trigger yet. A trigger starts a run when another system calls its address, or when an event of its "
            "name is sent.",
            icon=":material/webhook:",
        )
    for trigger in listed:
        _card(who, trigger, workflows)


def _card(who: Viewer, trigger: TriggerView, workflows: list[str]) -> None:
    with st.container(border=True):
        facts, seen = st.columns([3, 2], vertical_alignment="top")
        with facts:
            with st.container(horizontal=True, vertical_alignment="center"):
                st.markdown(f"##### {literal(trigger.name)}")
                if trigger.paused:
                    st.badge("paused", icon=":material/pause:", color="gray")
            where = f"webhook at {code(trigger.hook)}" if trigger.hook else f"every event {code(trigger.event or '')}"
            st.markdown(f"{where}  \nstarts **{literal(trigger.workflow)}**")
            if trigger.last_error:
                told = literal(trigger.last_error["message"])
                st.error(f"Last time nothing started: {told}", icon=":material/error:")
        with seen:
            st.caption(f"last time: {moment(trigger.last_fired_at, who.timezone)}")
            if trigger.last_run_id:
                st.caption(f"last run [{trigger.last_run_id}](/runs?run={trigger.last_run_id})")
        if who.admin:
            _buttons(trigger, workflows)


def _buttons(trigger: TriggerView, workflows: list[str]) -> None:
    key = trigger.trigger_id
    with st.container(horizontal=True):
        if st.button("Edit", icon=":material/edit:", key=f"edit_{key}"):
            _edit(trigger, workflows)
        if trigger.paused:
            if st.button("Resume", icon=":material/play_arrow:", key=f"resume_{key}"):
                session.act(lambda platform, who: platform.triggers.resume(who.ctx, key), "Resumed.")
                st.rerun()
        elif st.button("Pause", icon=":material/pause:", key=f"pause_{key}"):
            session.act(lambda platform, who: platform.triggers.pause(who.ctx, key), "Paused.")
            st.rerun()
        if trigger.hook and st.button("New secret", icon=":material/key:", key=f"rotate_{key}"):
            _rotate(trigger)
        if st.button("Delete", icon=":material/delete:", key=f"delete_{key}", type="tertiary"):
            _delete(trigger)


def _form(key: str, before: TriggerView | None, kind: TriggerKind, workflows: list[str]) -> dict[str, Any] | None:
    """What is written, as arguments; None: the input is no JSON object."""
    name = st.text_input("Name", before.name if before else "", key=f"{key}_name")
    event = None
    if kind is TriggerKind.EVENT:
        event = st.text_input("Name of the events", (before and before.event) or "", key=f"{key}_event")
    names = workflows if before is None or before.workflow in workflows else [before.workflow, *workflows]
    workflow = st.selectbox(
        "Workflow", names, index=names.index(before.workflow) if before else 0, key=f"{key}_workflow"
    )
    document = json_input("Input (JSON); what came is added as “event”", before.input if before else {}, f"{key}_input")
    if document is None:
        return None
    return {"name": name, "event": event, "workflow": workflow or "", "input": document}


@st.dialog("New trigger", width="large", on_dismiss="rerun")
def _create(workflows: list[str]) -> None:
    kinds = {TriggerKind.WEBHOOK: "a webhook", TriggerKind.EVENT: "an event"}
    kind = st.radio("Starts by", list(kinds), format_func=kinds.__getitem__, horizontal=True, key="new_trigger_kind")
    draft = _form("new_trigger", None, kind, workflows)
    if not st.button("Create", type="primary", disabled=draft is None) or draft is None:
        return
    made = _made(lambda platform, who: platform.triggers.create(who.ctx, kind=kind, **draft))
    if made is not None and made.secret is None:
        session.notify("The trigger is in force.")
        st.rerun()


@st.dialog("Edit trigger", width="large")
def _edit(trigger: TriggerView, workflows: list[str]) -> None:
    draft = _form(trigger.trigger_id, trigger, trigger.kind, workflows)
    if st.button("Save", type="primary", disabled=draft is None) and session.attempt(
        lambda platform, who: platform.triggers.edit(
            who.ctx, trigger.trigger_id, version=trigger.version, **(draft or {})
        ),
        "Saved. It acts from now on.",
    ):
        st.rerun()


@st.dialog("New secret for this webhook?", on_dismiss="rerun")
def _rotate(trigger: TriggerView) -> None:
    st.write(f"What **{literal(trigger.name)}** was signed with until now is refused at once.")
    if st.button("Make a new secret", type="primary", key="confirm_rotate"):
        _made(lambda platform, who: platform.triggers.rotate_secret(who.ctx, trigger.trigger_id))


def _made(deed: Callable[[Platform, Viewer], Awaitable[Made]]) -> Made | None:
    """Do it and show the address and the secret; None, with the reason shown, when it was refused."""
    try:
        made = session.ask(deed)
    except BailiwickError as error:
        session.show_refusal(error)
        return None
    if made.secret is not None:
        st.success("Copy the secret now; it is never shown again.", icon=":material/content_copy:")
        st.code(made.trigger.hook, language=None, wrap_lines=True)
        st.code(made.secret, language=None, wrap_lines=True)
    return made


@st.dialog("Delete this trigger?")
def _delete(trigger: TriggerView) -> None:
    st.write(f"**{literal(trigger.name)}** starts nothing any more. Its runs stay.")
    if st.button("Delete", type="primary", key="confirm_delete") and session.attempt(
        lambda platform, who: platform.triggers.delete(who.ctx, trigger.trigger_id), "Deleted."
    ):
        st.rerun()

"""Versions of workflows, for operators: what runs in which version, where new runs go, and how each version does."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import streamlit as st

from core.bootstrap import Platform
from core.commands.versions import changed_as_text, share_in_words
from core.errors import BailiwickError
from core.versions.model import Changed, VersionView
from ops_dashboard import figures, session, snapshots
from ops_dashboard.figures import CONFIG
from ops_dashboard.screens.tables import table
from ops_dashboard.session import Viewer
from ops_dashboard.spans import HOUR, SPANS, named
from ops_dashboard.words import NONE, literal, moment

_CHANGED = "route_changed"


def show() -> None:
    """A workflow is chosen; its versions and plots, which renew themselves, and the acts on its route are shown."""
    st.title("Versions", anchor=False)
    views = session.ask(_listed)
    if not views:
        st.info(
            "No version is known yet: a worker tells what it has when it starts. `bailiwick worker` starts one.",
            icon=":material/alt_route:",
        )
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        names = list(dict.fromkeys(view.workflow for view in views))
        workflow = st.selectbox("Workflow", names, key="workflow", bind="query-params", width=320)
        st.segmented_control(
            "Window", [span.name for span in SPANS], default=HOUR.name, required=True, key="versions_window"
        )
    _live()
    _acts(workflow, [view for view in views if view.workflow == workflow])


@session.live("5s")
def _live() -> None:
    who = session.viewer()
    workflow = st.session_state.get("workflow")
    span = named(st.session_state.get("versions_window")) or HOUR
    views = session.ask(_listed)
    _stuck(views)
    _versions([view for view in views if view.workflow == workflow], who.timezone)
    frame = snapshots.version_endings(who, span)
    own = frame[frame["workflow"] == workflow]
    left, right = st.columns(2, border=True)
    left.plotly_chart(figures.version_endings(own, who.timezone), key="versions_ended", config=CONFIG)
    right.plotly_chart(figures.version_failures(own, who.timezone), key="versions_failed", config=CONFIG)


async def _listed(platform: Platform, who: Viewer) -> list[VersionView]:
    return await platform.versions.list(who.ctx)


def _stuck(views: list[VersionView]) -> None:
    for view in views:
        if view.stuck:
            st.warning(
                f"No live worker has the code of {literal(view.workflow)} v{literal(view.version)}. Queued with cause "
                f"“no code” until one comes: {view.queued}.",
                icon=":material/extension_off:",
            )


def _versions(views: list[VersionView], timezone: str) -> None:
    table(
        {
            "Version": [view.version for view in views],
            "New runs": [share_in_words(view) or NONE for view in views],
            "Workers": [view.workers for view in views],
            "Queued": [view.queued for view in views],
            "Running": [view.running for view in views],
            "Waiting": [view.waiting for view in views],
            "Oldest open run": [moment(view.oldest_at, timezone) if view.oldest_at else NONE for view in views],
            "Code": [_code(view) for view in views],
        }
    )


def _code(view: VersionView) -> str:
    if view.stuck:
        return "missing"
    return "may be removed" if view.removable else "needed"


def _acts(workflow: str, views: list[VersionView]) -> None:
    st.subheader("Where new runs go", anchor=False)
    for line in st.session_state.pop(_CHANGED, []):
        st.info(literal(line), icon=":material/alt_route:")
    st.caption(
        "A change acts within a second, and on new runs only: a run stays on the version it was submitted with. "
        "A request that names a version gets it."
    )
    versions = [view.version for view in views]
    with st.form("canary"), st.container(horizontal=True, vertical_alignment="bottom"):
        version = st.selectbox("Version to try", versions, index=len(versions) - 1, width=180)
        percent = st.number_input("Percent of new runs", value=5.0, width=180)
        tenants = st.text_input("All new runs of these tenants", placeholder="regional-bank, credit-union", width=320)
        if st.form_submit_button("Try", icon=":material/science:"):
            named = tuple(name.strip() for name in tenants.split(",") if name.strip())
            _change(workflow, lambda p, who: p.versions.try_out(who.ctx, workflow, version or "", percent, named))
    with st.container(horizontal=True):
        if st.button("Promote the canary", icon=":material/publish:", key="promote"):
            _change(workflow, lambda p, who: p.versions.promote(who.ctx, workflow))
        if st.button("Roll back", icon=":material/undo:", key="rollback"):
            _change(workflow, lambda p, who: p.versions.roll_back(who.ctx, workflow))
        if st.button("Follow the newest", icon=":material/update:", key="newest", type="tertiary"):
            _change(workflow, lambda p, who: p.versions.follow_newest(who.ctx, workflow))


def _change(workflow: str, deed: Callable[[Platform, Viewer], Coroutine[Any, Any, Changed]]) -> None:
    try:
        changed = session.ask(deed)
    except BailiwickError as error:
        session.show_refusal(error)
        return
    st.session_state[_CHANGED] = changed_as_text(workflow, changed).splitlines()
    st.rerun()

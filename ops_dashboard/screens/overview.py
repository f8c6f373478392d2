"""Overview: who is hit and why, what stands now, and what happened lately, for one tenant or for all of them."""

from __future__ import annotations

import streamlit as st

from ops_dashboard import attention, session, snapshots
from ops_dashboard.attention import Hit
from ops_dashboard.bridge import bridge
from ops_dashboard.data import Window
from ops_dashboard.pulse import Pulse
from ops_dashboard.screens import overview_plots, overview_tables, overview_tiles
from ops_dashboard.session import Viewer
from ops_dashboard.spans import AUTO, SPANS, named
from ops_dashboard.words import literal


def show() -> None:
    """The screen. Everything below the title renews itself every two seconds."""
    title, chooser = st.columns([2, 1], vertical_alignment="bottom")
    title.title("Overview", anchor=False)
    with chooser:
        st.segmented_control(
            "Window",
            [AUTO, *(span.name for span in SPANS)],
            default=AUTO,
            required=True,
            key="window",
            bind="query-params",
            label_visibility="collapsed",
        )
    _live()


@session.live()
def _live() -> None:
    who = session.viewer()
    span = named(st.session_state.get("window")) or snapshots.fitting_span(who)
    pulse, window = snapshots.pulse(who), snapshots.window(who, span)
    if not pulse.tenants:
        st.info("There is no tenant yet. `bailiwick seed` makes the demo tenants.", icon=":material/domain_add:")
        return
    hits = attention.hits(pulse, window)
    if who.operator:
        _of_all(who, pulse, window, hits)
    else:
        _of_one(pulse, window, hits)
    overview_plots.show(who, pulse, window)
    if who.operator:
        overview_tables.workers(pulse)


def _of_all(who: Viewer, pulse: Pulse, window: Window, hits: list[Hit]) -> None:
    with st.container(border=True):
        if overload := attention.shedding(pulse, bridge().platform.settings.queue_limit):
            st.error(overload, icon=":material/warning:")
        if crowd := attention.crowd(pulse):
            st.markdown(f":material/groups: {literal(crowd)}")
        if hits:
            st.markdown(f"##### :material/error: Who is hit, and why ({len(hits)} of {len(pulse.tenants)})")
            st.markdown(attention.listed(hits))
        else:
            st.markdown(
                ":green-badge[:material/check: Nobody is hit] No run has been queued for more than 5 min, and of every "
                "tenant at least 95 % end in time."
            )
    overview_tiles.of_all(
        pulse,
        window,
        overview_plots.correlations(window),
        snapshots.fairness_of(who, pulse, 300),
        snapshots.fairness_of(who, pulse, 3_600),
    )
    overview_tables.now(pulse, hits)
    st.subheader(f"The last {_name(window)}", anchor=False)
    overview_tables.lately(pulse, window, hits)


def _of_one(pulse: Pulse, window: Window, hits: list[Hit]) -> None:
    for hit in hits:
        st.warning("  \n".join(literal(sign.sentence) for sign in hit.signs), icon=":material/error:")
    overview_tiles.of_one(pulse, window)


def _name(window: Window) -> str:
    return next(span.name for span in SPANS if span.seconds == window.seconds)

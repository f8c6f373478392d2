"""The plots of the overview, and whether one tenant's spike was felt by others."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import streamlit as st

from ops_dashboard import figures
from ops_dashboard.data import Window
from ops_dashboard.measures import CORRELATION, POINTS, SPIKE, Correlation
from ops_dashboard.measures import correlations as measured
from ops_dashboard.pulse import Pulse
from ops_dashboard.screens.tables import table
from ops_dashboard.session import Viewer
from ops_dashboard.theme import colours_of
from ops_dashboard.words import drawn, duration, literal

_PAIRS = 10


def show(who: Viewer, pulse: Pulse, window: Window) -> None:
    """Six plots; for operators also the table of pairs."""
    names = {tenant.tenant_id: drawn(tenant.name) for tenant in pulse.tenants}
    colors = colours_of(_drawn(window))
    buckets = figures.buckets_of(window.until, window.seconds, window.bucket_s)
    left, right = st.columns(2, border=True)
    left.plotly_chart(
        figures.service_share(window.service_over_time, buckets, names, colors, who.timezone),
        key="service",
        config=figures.CONFIG,
    )
    right.plotly_chart(
        figures.queue_depth(window.depth_over_time, names, colors, who.timezone), key="depth", config=figures.CONFIG
    )
    left, right = st.columns(2, border=True)
    left.plotly_chart(figures.wait_causes(window.wait_causes, names), key="wait_causes", config=figures.CONFIG)
    if who.operator:
        right.plotly_chart(
            figures.normalised_service(_normalised(pulse, window), names, colors),
            key="normalised",
            config=figures.CONFIG,
        )
        left, right = st.columns(2, border=True)
        left.plotly_chart(
            figures.waits_over_time(window.waits_over_time, buckets, names, colors, who.timezone),
            key="waits",
            config=figures.CONFIG,
        )
    else:
        right.plotly_chart(figures.endings(window.endings), key="endings", config=figures.CONFIG)
        right = st.container(border=True)
    right.plotly_chart(figures.failures(window.failures, names, colors), key="failures", config=figures.CONFIG)
    if who.operator:
        _felt(correlations(window), {tenant.tenant_id: tenant.name for tenant in pulse.tenants})


def correlations(window: Window) -> list[Correlation]:
    """Of the tenants with the longest queues with those that waited most."""
    depth = window.depth_over_time
    return measured(depth[depth["tenant_id"] != figures.OTHERS], window.waits_over_time)


def _felt(pairs: list[Correlation], names: Mapping[str, str]) -> None:
    st.subheader("Is one tenant's spike felt by others?", anchor=False, help=CORRELATION)
    if not pairs:
        st.caption(
            f"Nothing to compare in this window: it takes a queue of {SPIKE} runs that was also short for a while, and "
            f"{POINTS} moments at which runs of others started."
        )
        return
    moved = [pair for pair in pairs if pair.moved]
    for pair in moved[:3]:
        st.warning(
            literal(
                f"While the queue of {names.get(pair.of, pair.of)} was long, {names.get(pair.on, pair.on)} waited "
                f"{duration(pair.spike_s)} instead of {duration(pair.calm_s)} (p95)."
            ),
            icon=":material/compare_arrows:",
        )
    if not moved:
        st.markdown(":green-badge[:material/check: No] No tenant waited longer because of another one's spike.")
    table(
        {
            "Spike of": [names.get(pair.of, pair.of) for pair in pairs[:_PAIRS]],
            "Waits of": [names.get(pair.on, pair.on) for pair in pairs[:_PAIRS]],
            "Correlation": [round(pair.r, 2) for pair in pairs[:_PAIRS]],
            "Wait p95 in the calm": [duration(pair.calm_s) for pair in pairs[:_PAIRS]],
            "in the spike": [duration(pair.spike_s) for pair in pairs[:_PAIRS]],
            "Felt": ["yes" if pair.moved else "no" for pair in pairs[:_PAIRS]],
        },
        {"Correlation": st.column_config.NumberColumn(format="%.2f", width="small")},
    )


def _drawn(window: Window) -> list[str]:
    """The tenants on the plots, the busiest first: they get colours of their own."""
    frames = ((window.service_over_time, "worker_s"), (window.depth_over_time, "queued"), (window.failures, "count"))
    sums = [frame.groupby("tenant_id")[value].sum().sort_values(ascending=False) for frame, value in frames]
    ranked = [one.index[: figures.TOP] for one in sums]
    waited = window.waits_over_time["tenant_id"].unique()
    return [tenant for tenants in (*ranked, waited) for tenant in tenants if tenant != figures.OTHERS]


def _normalised(pulse: Pulse, window: Window) -> pd.DataFrame:
    weights = {tenant.tenant_id: tenant.weight for tenant in pulse.tenants}
    known = [row for row in window.service.itertuples() if row.tenant_id in weights]
    return pd.DataFrame(
        {
            "tenant_id": [row.tenant_id for row in known],
            "normalised": [round(row.worker_s / weights[row.tenant_id], 1) for row in known],
            "backlogged": [round(min(1.0, row.backlog_s / window.seconds), 1) for row in known],
        }
    )

"""Plotly figures from data frames. Pure: no Streamlit, no clock, no database.

Streamlit draws a plot anew whenever its specification changes in the least, so equal data must give equal
figures: values are rounded, and nothing depends on the moment of drawing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import cycle

import pandas as pd
import plotly.graph_objects as go

from ops_dashboard.theme import CAUSE_COLORS, NEUTRAL, PALETTE, STATE_COLORS
from ops_dashboard.words import drawn, duration, plain

TOP = 8
"""Tenants with a line or an area of their own; the others are drawn together."""

OTHERS = "others"
_CODES = 12
_BELOW_A_NAME = -0.36
"""Where the legend begins when the axis over it has a name."""

CONFIG = {"displaylogo": False, "modeBarButtonsToRemove": ["lasso2d", "select2d", "autoScale2d"]}
"""For ``st.plotly_chart(config=…)``."""

QUEUE_CAUSES = {
    "share_s": "share",
    "capped_s": "cap",
    "paused_s": "paused",
    "no_worker_s": "no_worker",
    "no_code_s": "no_code",
}
"""Seconds of waiting in the queue, and the cause of each."""


def base(title: str, height: int, **layout: object) -> go.Figure:
    """A figure that looks like all the others."""
    figure = go.Figure()
    figure.update_layout(
        title={"text": title, "font": {"size": 14}, "x": 0, "xanchor": "left"},
        height=height,
        margin={"l": 8, "r": 8, "t": 40, "b": 8},
        legend={"orientation": "h", "yanchor": "top", "y": -0.24, "xanchor": "left", "x": 0},
        hovermode="x unified",
        **layout,
    )
    return figure


def top_tenants(frame: pd.DataFrame, value: str) -> pd.DataFrame:
    """The same frame with all but the ``TOP`` tenants of the largest sums added up as ``others``."""
    sums = frame.groupby("tenant_id")[value].sum().sort_values(ascending=False)
    keep = set(sums.index[:TOP])
    named = frame.assign(tenant_id=[tenant if tenant in keep else OTHERS for tenant in frame["tenant_id"]])
    return named.groupby(["tenant_id", "bucket"], as_index=False)[value].sum()


def _grid(frame: pd.DataFrame, value: str, buckets: pd.DatetimeIndex) -> pd.DataFrame:
    """One column per tenant, one row per bucket, gaps filled with 0."""
    table = top_tenants(frame, value).pivot_table(index="bucket", columns="tenant_id", values=value, aggfunc="sum")
    return table.reindex(buckets).fillna(0.0)


def buckets_of(at: datetime, seconds: int, bucket_s: int) -> pd.DatetimeIndex:
    """The beginnings of all buckets of a window that ends at ``at``."""
    since = at - timedelta(seconds=seconds)
    return pd.date_range(since, periods=-(-seconds // bucket_s), freq=f"{bucket_s}s")


def _until_now(nothing: str, buckets: pd.DatetimeIndex) -> str:
    """Nothing so far, where a bucket that is still filling up is not looked at."""
    return f"{nothing}; the last {duration(pd.Timedelta(buckets.freq).total_seconds())} are drawn when they are over."


def service_share(
    frame: pd.DataFrame, buckets: pd.DatetimeIndex, names: Mapping[str, str], colors: Mapping[str, str], timezone: str
) -> go.Figure:
    """Slots in use (worker-seconds per second) over time, stacked by tenant."""
    figure = base("Slots in use, by tenant", 300)
    figure.update_yaxes(rangemode="tozero", title_text="slots")
    if frame.empty or len(buckets) < 2:
        return empty(figure, _until_now("No run has executed", buckets))
    bucket_s = (buckets[1] - buckets[0]).total_seconds()
    table = _grid(frame, "worker_s", buckets) / bucket_s
    for tenant in sorted(table.columns, key=lambda tenant: tenant == OTHERS):
        figure.add_scatter(
            x=local(table.index, timezone),
            y=table[tenant].round(3),
            name=names.get(tenant, tenant),
            mode="lines",
            stackgroup="all",
            line={"width": 0.5, "shape": "hv", "color": colors.get(tenant, NEUTRAL)},
            hovertemplate="%{y:.2f} slots",
        )
    return figure


def queue_depth(frame: pd.DataFrame, names: Mapping[str, str], colors: Mapping[str, str], timezone: str) -> go.Figure:
    """Runs in the queue over time, one line per tenant."""
    figure = base("Runs in the queue, by tenant", 300)
    figure.update_yaxes(rangemode="tozero", title_text="runs")
    if frame.empty:
        return empty(figure, "Nothing was queued in this window.")
    table = top_tenants(frame, "queued").pivot_table(
        index="bucket", columns="tenant_id", values="queued", aggfunc="sum"
    )
    for tenant in sorted(table.columns, key=lambda tenant: tenant == OTHERS):
        figure.add_scatter(
            x=local(table.index, timezone),
            y=table[tenant],
            name=names.get(tenant, tenant),
            mode="lines",
            line={"width": 2, "shape": "hv", "color": colors.get(tenant, NEUTRAL)},
            hovertemplate="%{y} queued",
        )
    return figure


def normalised_service(services: pd.DataFrame, names: Mapping[str, str], colors: Mapping[str, str]) -> go.Figure:
    """Worker-seconds per unit of weight, per tenant with demand: even bars mean fair service.

    ``services``: tenant_id, normalised, backlogged (share of the window with runs queued).
    """
    figure = base("Worker-seconds / weight: even is fair", 300, showlegend=False)
    figure.update_layout(hovermode="closest")
    if services.empty:
        return empty(figure, "No tenant had demand in this window.")
    shown = services.sort_values("normalised", ascending=False).head(20)
    figure.add_bar(
        y=[names.get(tenant, tenant) for tenant in shown["tenant_id"]],
        x=shown["normalised"],
        orientation="h",
        marker={
            "color": [colors.get(tenant, NEUTRAL) for tenant in shown["tenant_id"]],
            "opacity": [0.45 + 0.55 * share for share in shown["backlogged"]],
        },
        customdata=[f"{share:.0%}" for share in shown["backlogged"]],
        hovertemplate="%{y}: %{x:,.1f} s / weight<br>runs queued %{customdata} of the time<extra></extra>",
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(rangemode="tozero", title_text="worker-seconds / weight")
    return figure


def waits_over_time(
    frame: pd.DataFrame, buckets: pd.DatetimeIndex, names: Mapping[str, str], colors: Mapping[str, str], timezone: str
) -> go.Figure:
    """How long runs had waited for their slots (p95), over time, one line per tenant; a gap: none started."""
    figure = base("Wait for a slot (p95), by tenant", 300)
    figure.update_yaxes(rangemode="tozero", title_text="seconds")
    if frame.empty:
        return empty(figure, _until_now("No run has started", buckets))
    table = frame.pivot_table(index="bucket", columns="tenant_id", values="wait_p95_s", aggfunc="max").reindex(buckets)
    for tenant in table.columns:
        figure.add_scatter(
            x=local(table.index, timezone),
            y=table[tenant].round(2),
            name=names.get(tenant, tenant),
            mode="lines+markers",
            line={"width": 2, "color": colors.get(tenant, NEUTRAL)},
            marker={"size": 5},
            customdata=[duration(value) for value in table[tenant]],
            hovertemplate="%{customdata}",
        )
    return figure


def wait_causes(frame: pd.DataFrame, names: Mapping[str, str]) -> go.Figure:
    """Minutes that runs waited in the queue before they started, in sum, by cause, per tenant: those that waited most.

    ``frame``: tenant_id, capped_s, paused_s, no_worker_s, no_code_s, share_s.
    """
    figure = base("Waiting in the queue in sum, by cause", 300, barmode="stack", showlegend=True)
    figure.update_layout(hovermode="closest", legend_y=_BELOW_A_NAME)
    total = pd.Series(dtype=float) if frame.empty else frame[[*QUEUE_CAUSES]].sum(axis=1)
    if not total.sum() > 0:
        return empty(figure, "No run that started in this window had to wait.")
    shown = frame.loc[total.sort_values(ascending=False).index[:TOP]]
    for column, cause in QUEUE_CAUSES.items():
        if not shown[column].any():
            continue
        figure.add_bar(
            y=[names.get(tenant, tenant) for tenant in shown["tenant_id"]],
            x=(shown[column] / 60).round(2),
            orientation="h",
            name=plain(cause),
            marker={"color": CAUSE_COLORS[cause]},
            customdata=[duration(value) for value in shown[column]],
            hovertemplate="%{y}: %{customdata}<extra>%{fullData.name}</extra>",
        )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(rangemode="tozero", title_text="minutes")
    return figure


def stacked_bar(parts: Mapping[str, float]) -> str:
    """One bar as HTML, its parts as wide as their seconds, with a legend: what a run waited for."""
    whole = sum(parts.values())
    ordered = sorted(parts.items(), key=lambda part: -part[1])
    colors = {cause: CAUSE_COLORS.get(cause, NEUTRAL) for cause, _ in ordered}
    bar = "".join(
        f'<div style="width:{100 * seconds / whole:.2f}%;background:{colors[cause]}"></div>'
        for cause, seconds in ordered
    )
    legend = " &nbsp; ".join(
        f'<span style="color:{colors[cause]}">■</span> {plain(cause)} {duration(seconds)}' for cause, seconds in ordered
    )
    return (
        f'<div style="display:flex;gap:2px;height:.6rem;border-radius:.3rem;overflow:hidden;margin:.2rem 0">{bar}</div>'
        f'<div style="font-size:.9rem">{legend}</div>'
    )


def endings(frame: pd.DataFrame) -> go.Figure:
    """How the runs of one tenant ended."""
    figure = base("Runs that ended", 300, showlegend=False)
    figure.update_layout(hovermode="closest")
    states = ("succeeded", "failed", "cancelled")
    counts = {state: 0 if frame.empty else int(frame[state].sum()) for state in states}
    if not any(counts.values()):
        return empty(figure, "No run ended in this window.")
    figure.add_bar(
        x=list(counts.values()),
        y=list(counts),
        orientation="h",
        marker={"color": [STATE_COLORS[state] for state in counts]},
        text=list(counts.values()),
        hovertemplate="%{y}: %{x} runs<extra></extra>",
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(rangemode="tozero", title_text="runs")
    return figure


def version_endings(frame: pd.DataFrame, timezone: str) -> go.Figure:
    """Runs of one workflow that ended, over time, stacked by version."""
    figure = base("Runs that ended, by version", 300, barmode="stack")
    figure.update_yaxes(title_text="runs")
    if frame.empty:
        return empty(figure, "No run ended in this window.")
    for (version, rows), color in zip(frame.groupby("version"), cycle(PALETTE), strict=False):
        figure.add_bar(
            x=local(rows["bucket"], timezone),
            y=rows["ended"],
            name=f"v{version}",
            marker={"color": color},
            hovertemplate="%{y} ended",
        )
    return figure


def version_failures(frame: pd.DataFrame, timezone: str) -> go.Figure:
    """The share of them that failed, over time, one line per version."""
    figure = base("Of these failed, by version", 300)
    figure.update_yaxes(rangemode="tozero", ticksuffix=" %")
    if frame.empty:
        return empty(figure, "No run ended in this window.")
    for (version, rows), color in zip(frame.groupby("version"), cycle(PALETTE), strict=False):
        figure.add_scatter(
            x=local(rows["bucket"], timezone),
            y=(100 * rows["failed"] / rows["ended"]).round(2),
            name=f"v{version}",
            mode="lines+markers",
            line={"width": 2, "color": color},
            marker={"color": color},
            customdata=rows["failed"],
            hovertemplate="%{y:.1f} % (%{customdata} runs)",
        )
    return figure


def failures(frame: pd.DataFrame, names: Mapping[str, str], colors: Mapping[str, str]) -> go.Figure:
    """Failed runs by error code, the most frequent ones, stacked by tenant."""
    figure = base("Failed runs, by error", 300, barmode="stack")
    figure.update_layout(
        hovermode="closest", legend_y=_BELOW_A_NAME, bargap=max(0.2, 0.8 - 0.2 * frame["code"].nunique())
    )
    if frame.empty:
        return empty(figure, "No run failed in this window.")
    most = frame.groupby("tenant_id")["count"].sum().nlargest(TOP).index
    named = frame["tenant_id"].where(frame["tenant_id"].isin(most), OTHERS)
    codes = frame.groupby("code")["count"].sum().nlargest(_CODES).index
    for tenant in [*sorted(most), *([OTHERS] if OTHERS in set(named) else [])]:
        by_code = frame[named == tenant].groupby("code")["count"].sum().reindex(codes).dropna()
        figure.add_bar(
            y=[drawn(plain(code)) for code in by_code.index],
            x=by_code,
            orientation="h",
            name=names.get(tenant, tenant),
            marker={"color": colors.get(tenant, NEUTRAL)},
            hovertemplate="%{y}: %{x} runs<extra>%{fullData.name}</extra>",
        )
    figure.update_yaxes(
        categoryorder="array", categoryarray=[drawn(plain(code)) for code in codes], autorange="reversed"
    )
    figure.update_xaxes(rangemode="tozero", title_text="runs")
    return figure


def local(moments: Sequence[datetime] | pd.Index, timezone: str) -> pd.DatetimeIndex:
    """Moments as they are drawn."""
    # Plotly shows what it is given: convert to the zone and drop it, or it shows UTC.
    return pd.DatetimeIndex(moments).tz_convert(timezone).tz_localize(None)


def empty(figure: go.Figure, text: str) -> go.Figure:
    """A figure of nothing says so, instead of empty axes."""
    figure.add_annotation(text=text, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper", font={"color": NEUTRAL})
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure

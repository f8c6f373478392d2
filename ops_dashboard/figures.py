"""Plotly figures from data frames. Pure: no Streamlit, no clock, no database.

Streamlit draws a plot anew whenever its specification changes in the least, so equal data must give equal
figures: values are rounded, and nothing depends on the moment of drawing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import cycle
from zoneinfo import ZoneInfo

import pandas as pd
import plotly.graph_objects as go

from core.runs.model import Cause, RunState
from core.runs.waiting import ENDS_A_SLOT, Parking, parked
from core.usage.model import format_usd
from ops_dashboard.theme import CAUSE_COLORS, NEUTRAL, PALETTE, STATE_COLORS
from ops_dashboard.words import duration

TOP = 8
"""Tenants with a line or an area of their own; the others are drawn together."""

OTHERS = "others"
CONFIG = {"displaylogo": False, "modeBarButtonsToRemove": ["lasso2d", "select2d", "autoScale2d"]}
"""For ``st.plotly_chart(config=…)``."""

_BAR_COLORS = {"queue": STATE_COLORS["queued"], "slot": STATE_COLORS["running"], "wait": STATE_COLORS["waiting"]}
_QUEUE_CAUSES = {
    "share_s": "share",
    "capped_s": "cap",
    "paused_s": "paused",
    "no_worker_s": "no_worker",
    "no_code_s": "no_code",
}
_WAITING_KINDS = {"review", "timer", "event", "rate", "budget", "children"}
_STEP_COLORS = {
    "done": STATE_COLORS["succeeded"],
    "failed": STATE_COLORS["failed"],
    "started": STATE_COLORS["running"],
    "skipped": STATE_COLORS["cancelled"],
}


def _base(title: str, height: int, **layout: object) -> go.Figure:
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


def service_share(
    frame: pd.DataFrame, buckets: pd.DatetimeIndex, names: Mapping[str, str], colors: Mapping[str, str], timezone: str
) -> go.Figure:
    """Worker-seconds per second (slots in use) over time, stacked by tenant."""
    figure = _base("Worker-seconds per second", 300)
    figure.update_yaxes(rangemode="tozero", title_text=None)
    if frame.empty or len(buckets) < 2:
        return _empty(figure, "No run has executed in this window.")
    bucket_s = (buckets[1] - buckets[0]).total_seconds()
    table = _grid(frame, "worker_s", buckets) / bucket_s
    for tenant in sorted(table.columns, key=lambda tenant: tenant == OTHERS):
        figure.add_scatter(
            x=_local(table.index, timezone),
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
    figure = _base("Runs in the queue", 300)
    figure.update_yaxes(rangemode="tozero")
    if frame.empty:
        return _empty(figure, "Nothing was queued in this window.")
    table = top_tenants(frame, "queued").pivot_table(
        index="bucket", columns="tenant_id", values="queued", aggfunc="sum"
    )
    for tenant in sorted(table.columns, key=lambda tenant: tenant == OTHERS):
        figure.add_scatter(
            x=_local(table.index, timezone),
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
    figure = _base("Worker-seconds / weight", 300, showlegend=False)
    figure.update_layout(hovermode="closest")
    if services.empty:
        return _empty(figure, "No tenant had demand in this window.")
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
    figure.update_xaxes(rangemode="tozero")
    return figure


def wait_causes(frame: pd.DataFrame, names: Mapping[str, str]) -> go.Figure:
    """Seconds that runs waited in the queue before they started, by cause, per tenant: those that waited most.

    ``frame``: tenant_id, capped_s, paused_s, no_worker_s, no_code_s, share_s.
    """
    figure = _base("Waiting in the queue, by cause", 300, barmode="stack")
    figure.update_layout(hovermode="closest")
    total = pd.Series(dtype=float) if frame.empty else frame[[*_QUEUE_CAUSES]].sum(axis=1)
    if not total.sum() > 0:
        return _empty(figure, "No run that started in this window had to wait.")
    shown = frame.loc[total.sort_values(ascending=False).index[:TOP]]
    for column, cause in _QUEUE_CAUSES.items():
        figure.add_bar(
            y=[names.get(tenant, tenant) for tenant in shown["tenant_id"]],
            x=shown[column].round(1),
            orientation="h",
            name=cause.replace("_", " "),
            marker={"color": CAUSE_COLORS[cause]},
            customdata=[duration(value) for value in shown[column]],
            hovertemplate="%{y}: %{customdata}<extra>%{fullData.name}</extra>",
        )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(rangemode="tozero", title_text=None)
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
        f'<span style="color:{colors[cause]}">■</span> {cause.replace("_", " ")} {duration(seconds)}'
        for cause, seconds in ordered
    )
    return (
        f'<div style="display:flex;height:.6rem;border-radius:.3rem;overflow:hidden;margin:.2rem 0">{bar}</div>'
        f'<div style="font-size:.9rem">{legend}</div>'
    )


def endings(frame: pd.DataFrame) -> go.Figure:
    """How the runs of one tenant ended."""
    figure = _base("Runs that ended", 300, showlegend=False)
    figure.update_layout(hovermode="closest")
    states = ("succeeded", "failed", "cancelled")
    counts = {state: 0 if frame.empty else int(frame[state].sum()) for state in states}
    if not any(counts.values()):
        return _empty(figure, "No run ended in this window.")
    figure.add_bar(
        x=list(counts.values()),
        y=list(counts),
        orientation="h",
        marker={"color": [STATE_COLORS[state] for state in counts]},
        text=list(counts.values()),
        hovertemplate="%{y}: %{x} runs<extra></extra>",
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(rangemode="tozero")
    return figure


def version_endings(frame: pd.DataFrame, timezone: str) -> go.Figure:
    """Runs of one workflow that ended, over time, stacked by version."""
    figure = _base("Runs that ended, by version", 300, barmode="stack")
    if frame.empty:
        return _empty(figure, "No run ended in this window.")
    for (version, rows), color in zip(frame.groupby("version"), cycle(PALETTE), strict=False):
        figure.add_bar(
            x=_local(rows["bucket"], timezone),
            y=rows["ended"],
            name=f"v{version}",
            marker={"color": color},
            hovertemplate="%{y} ended",
        )
    return figure


def version_failures(frame: pd.DataFrame, timezone: str) -> go.Figure:
    """The share of them that failed, over time, one line per version."""
    figure = _base("Of these failed, by version", 300)
    figure.update_yaxes(rangemode="tozero", ticksuffix=" %")
    if frame.empty:
        return _empty(figure, "No run ended in this window.")
    for (version, rows), color in zip(frame.groupby("version"), cycle(PALETTE), strict=False):
        figure.add_scatter(
            x=_local(rows["bucket"], timezone),
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
    """Failed runs by error code, stacked by tenant."""
    figure = _base("Failed runs, by error", 300, barmode="stack")
    figure.update_layout(hovermode="closest", bargap=max(0.2, 0.8 - 0.2 * frame["code"].nunique()))
    if frame.empty:
        return _empty(figure, "No run failed in this window.")
    for tenant, rows in frame.groupby("tenant_id"):
        by_code = rows.groupby("code", as_index=False)["count"].sum()
        figure.add_bar(
            y=by_code["code"],
            x=by_code["count"],
            orientation="h",
            name=names.get(tenant, tenant),
            marker={"color": colors.get(tenant, NEUTRAL)},
            hovertemplate="%{y}: %{x} runs<extra>%{fullData.name}</extra>",
        )
    figure.update_xaxes(rangemode="tozero")
    return figure


def timeline(
    steps: pd.DataFrame, passages: pd.DataFrame, transitions: pd.DataFrame, now: datetime, timezone: str
) -> go.Figure:
    """A run as bars over time: when it was queued, held a slot and waited (and why), and each attempt of each step."""
    bars = [*_passage_bars(passages, transitions, now), *_step_bars(steps, now)]
    rows = list(dict.fromkeys(bar.row for bar in bars))
    figure = _base("", 70 + 30 * max(2, len(rows)), showlegend=False, barmode="overlay", bargap=0.35)
    figure.update_layout(hovermode="closest", margin={"l": 8, "r": 8, "t": 8, "b": 8})
    if not bars:
        return _empty(figure, "This run has not started yet.")
    zone = ZoneInfo(timezone)
    whole_s = (max(bar.end for bar in bars) - min(bar.begin for bar in bars)).total_seconds()
    figure.add_bar(
        base=[bar.begin.astimezone(zone).replace(tzinfo=None) for bar in bars],
        # At least a hair's breadth, or an instant would be invisible.
        x=[1000 * max(bar.seconds, whole_s / 400, 0.001) for bar in bars],
        y=[bar.row for bar in bars],
        orientation="h",
        marker={"color": [bar.color for bar in bars], "line": {"width": 0}},
        text=[bar.label for bar in bars],
        textposition="inside",
        insidetextanchor="middle",
        customdata=[f"<b>{bar.row}</b><br>{bar.hover}<br>{duration(bar.seconds)}" for bar in bars],
        hovertemplate="%{customdata}<extra></extra>",
    )
    figure.update_xaxes(type="date", showgrid=True)
    figure.update_yaxes(categoryorder="array", categoryarray=rows, autorange="reversed", title_text=None)
    return figure


@dataclass(frozen=True, slots=True)
class _Bar:
    row: str
    begin: datetime
    end: datetime
    color: str
    hover: str
    label: str = ""

    @property
    def seconds(self) -> float:
        return max(0.0, (self.end - self.begin).total_seconds())


def _passage_bars(passages: pd.DataFrame, transitions: pd.DataFrame, now: datetime) -> list[_Bar]:
    bars: list[_Bar] = []
    released: datetime | None = None
    for passage in passages.itertuples():
        if released is not None and passage.queued_at > released:
            bars += _wait_bars(released, passage.queued_at, transitions)
        claimed = None if pd.isna(passage.claimed_at) else passage.claimed_at
        bars.append(_Bar("queue", passage.queued_at, claimed or now, _BAR_COLORS["queue"], "in the queue"))
        released = None if pd.isna(passage.released_at) else passage.released_at
        if claimed is not None and claimed != released:  # else it left the queue without one
            bars.append(_Bar("slot", claimed, released or now, _BAR_COLORS["slot"], "holds a slot"))
    if released is not None:
        bars += _wait_bars(released, now, transitions)
    return bars


def _wait_bars(begin: datetime, end: datetime, transitions: pd.DataFrame) -> list[_Bar]:
    """What was waited for after a slot was given back; nothing once the run had ended (and was retried later)."""
    parkings = [
        Parking(each.at, Cause(each.cause) if each.kind == RunState.WAITING else None)
        for each in transitions.itertuples()
        if each.kind in ENDS_A_SLOT
    ]
    bars = []
    for cause, began, ended in parked(begin, end, parkings):
        word = cause.value.replace("_", " ")
        bars.append(_Bar("waits", began, ended or end, _BAR_COLORS["wait"], f"waits: {word}", word))
    return bars


def _step_bars(steps: pd.DataFrame, now: datetime) -> list[_Bar]:
    bars = []
    for step in steps.itertuples():
        end = now if pd.isna(step.finished_at) else step.finished_at
        retried = f" (attempt {step.attempt})" if step.attempt > 1 else ""
        fault = "" if pd.isna(step.error_code) else f"<br>{step.error_code}"
        cost = f"<br>{format_usd(step.cost_microusd)}" if step.cost_microusd else ""
        row = f"{abs(step.step)}. {step.name}{retried}"
        parked = step.state == "started" and step.kind in _WAITING_KINDS
        color = STATE_COLORS["waiting"] if parked else _STEP_COLORS[step.state]
        bars.append(_Bar(row, step.started_at, end, color, f"{step.kind} · {step.state}{cost}{fault}"))
    return bars


def _local(moments: Sequence[datetime] | pd.Index, timezone: str) -> pd.DatetimeIndex:
    # Plotly shows what it is given: convert to the zone and drop it, or it shows UTC.
    return pd.DatetimeIndex(moments).tz_convert(timezone).tz_localize(None)


def _empty(figure: go.Figure, text: str) -> go.Figure:
    figure.add_annotation(text=text, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper", font={"color": NEUTRAL})
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure

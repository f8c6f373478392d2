"""One run as a figure: when it was queued, held a slot and waited, and each attempt of each step. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

import pandas as pd
import plotly.graph_objects as go

from core.runs.model import Cause, RunState
from core.runs.waiting import ENDS_A_SLOT, Parking, parked
from core.usage.model import format_usd
from ops_dashboard.figures import base, empty
from ops_dashboard.theme import STATE_COLORS
from ops_dashboard.words import drawn, duration, plain

MOST_STEPS = 40
"""Attempts of steps that are drawn: the newest ones."""

_BAR_COLORS = {"queue": STATE_COLORS["queued"], "slot": STATE_COLORS["running"], "wait": STATE_COLORS["waiting"]}
_WAITING_KINDS = {"review", "timer", "event", "rate", "budget", "children"}
_STEP_COLORS = {
    "done": STATE_COLORS["succeeded"],
    "failed": STATE_COLORS["failed"],
    "started": STATE_COLORS["running"],
    "skipped": STATE_COLORS["cancelled"],
    "set aside": STATE_COLORS["cancelled"],
}


def timeline(
    steps: pd.DataFrame, passages: pd.DataFrame, transitions: pd.DataFrame, now: datetime, timezone: str
) -> go.Figure:
    """A run as bars over time: when it was queued, held a slot and waited (and why), and each attempt of each step."""
    bars = [*_passage_bars(passages, transitions, now), *_step_bars(_newest(steps), now)]
    rows = list(dict.fromkeys(bar.row for bar in bars))
    figure = base("", 70 + 30 * max(2, len(rows)), showlegend=False, barmode="overlay", bargap=0.35)
    figure.update_layout(hovermode="closest", margin={"l": 8, "r": 8, "t": 8, "b": 8})
    if not bars:
        return empty(figure, "This run has not started yet.")
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
        word = plain(cause)
        bars.append(_Bar("waits", began, ended or end, _BAR_COLORS["wait"], f"waits: {word}", word))
    return bars


def _newest(steps: pd.DataFrame) -> pd.DataFrame:
    """At most ``MOST_STEPS`` attempts, in their order: a run of a thousand steps must not fill thirty screens."""
    if len(steps) <= MOST_STEPS:
        return steps
    return steps.loc[sorted(steps["started_at"].sort_values().index[-MOST_STEPS:])]


def _step_bars(steps: pd.DataFrame, now: datetime) -> list[_Bar]:
    bars = []
    for step in steps.itertuples():
        end = now if pd.isna(step.finished_at) else step.finished_at
        retried = f" (attempt {step.attempt})" if step.attempt > 1 else ""
        fault = "" if pd.isna(step.error_code) else f"<br>{drawn(plain(step.error_code))}"
        cost = f"<br>{format_usd(step.cost_microusd)}" if step.cost_microusd else ""
        row = f"{abs(step.step)}. {drawn(step.name)}{retried}"
        parked = step.state == "started" and step.kind in _WAITING_KINDS
        color = STATE_COLORS["waiting"] if parked else _STEP_COLORS[step.state]
        bars.append(_Bar(row, step.started_at, end, color, f"{step.kind} · {step.state}{cost}{fault}"))
    return bars

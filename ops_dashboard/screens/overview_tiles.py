"""The big numbers of the overview."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from core.runs.model import Lane
from core.usage.model import format_usd
from ops_dashboard.data import Window
from ops_dashboard.measures import CORRELATION, JAIN_FORMULA, Correlation, Fairness, ratio
from ops_dashboard.pulse import Pulse, TenantPulse
from ops_dashboard.screens.tiles import tile
from ops_dashboard.words import CAUSES, NONE, causes, count, duration, literal, percent

SLA = (
    "Share of runs that ended within their tenant's run SLA, counted from submission; runs that are still open "
    "past it count as late. Cancelled runs do not count."
)
WAIT = "Time between entering the queue and getting a slot, each time a run does so."
TAKES = "From submission to the end, waits included."
_CONTENDING = (
    "Below it the index among the tenants that contended: those that had runs queued for at least half as long as "
    "the tenant with the longest backlog, so that one that wanted little does not count as treated unfairly."
)
_HEADROOM = (
    "Slots in use, of all live ones within the platform's cap. The last few free ones, the headroom, are kept for "
    "tenants that have nothing running, so that a quiet tenant starts at once."
)


def of_all(pulse: Pulse, window: Window, pairs: Sequence[Correlation], short: Fairness, long: Fairness) -> None:
    """For operators: the whole platform, and never a total without the worst tenant."""
    tenants = pulse.tenants
    silent = sum(worker.state == "silent" for worker in pulse.workers)
    parked: Counter[str] = sum((Counter(tenant.waiting) for tenant in tenants), Counter())
    running, queued = sum(t.running for t in tenants), sum(t.queued for t in tenants)
    lanes: Counter[str] = sum((Counter(tenant.lanes) for tenant in tenants), Counter())
    fair_help = f"{JAIN_FORMULA}\n\n{_CONTENDING}"
    with st.grid(4, min_column_width=150):
        tile("Running", f"{count(running)} / {count(pulse.slots)}", _slots(pulse), help_text=_HEADROOM)
        tile("Queued", count(queued), f"oldest {_oldest(pulse)} · {in_lanes(lanes)}" if queued else "")
        tile("Waiting", count(parked.total()), causes(parked), help_text=CAUSES)
        tile(
            "Workers",
            count(len(pulse.workers) - silent),
            f"{silent} silent" if silent else ("none is alive" if not pulse.workers else "all alive"),
            alarm=silent > 0 or not pulse.workers,
        )
        tile("Wait p95", *_worst_wait(pulse, window), help_text=WAIT)
        tile("In time", percent(_attainment(window.endings)), _worst_sla(pulse, window), help_text=SLA)
        tile("Jain's index, 5 min", _index(short.overall), _contention(short, long), help_text=fair_help)
        tile("Cross-tenant correlation", *_strongest(pulse, pairs), help_text=CORRELATION)


def of_one(pulse: Pulse, window: Window) -> None:
    """For a tenant's people: their own."""
    (tenant,) = pulse.tenants
    service = window.service.iloc[0] if len(window.service) else None
    ending = window.endings.iloc[0] if len(window.endings) else None
    with st.grid(4, min_column_width=150):
        tile("Running", f"{tenant.running} / {tenant.cap}", "of your slots")
        tile(
            "Queued",
            count(tenant.queued),
            f"oldest {_oldest(pulse)} · {in_lanes(tenant.lanes)}" if tenant.queued else "",
        )
        tile("Waiting", count(tenant.waiting_total), causes(tenant.waiting), help_text=CAUSES)
        tile("In time", percent(_attainment(window.endings)), "of the runs", help_text=SLA)
        tile("Wait p50", *_percentiles(service, "wait"), help_text=WAIT)
        tile("Duration p50", *_percentiles(ending, "duration"), help_text=TAKES)
        tile(
            "Reviews open",
            count(tenant.reviews_open),
            f"{tenant.reviews_overdue} overdue",
            alarm=tenant.reviews_overdue > 0,
        )
    left, right = st.columns(2)
    _bar(left, "Budget of the month", promised(tenant), tenant.month_limit_microusd, format_usd)
    _bar(right, "Runs today", tenant.runs_today, tenant.daily_runs, count)
    if tenant.paused:
        st.warning("Your tenant is paused: queued runs do not start. Running ones finish.", icon=":material/pause:")


def promised(tenant: TenantPulse) -> int:
    """Micro-USD of the month that are spent or reserved."""
    return tenant.month_spent_microusd + tenant.month_reserved_microusd


def in_lanes(lanes: Mapping[str, int]) -> str:
    """``urgent 3 · normal 40``."""
    order = [lane.name.lower() for lane in Lane]
    return " · ".join(f"{name} {count(lanes[name])}" for name in order if lanes.get(name)) or NONE


def _bar(place: DeltaGenerator, label: str, used: int, limit: int, write: Callable[[int], str]) -> None:
    share = ratio(used, limit)
    text = f"{label}: **{literal(write(used))}** of {literal(write(limit))} ({percent(share)})"
    place.progress(min(1.0, share or 0.0), text=text)


def _slots(pulse: Pulse) -> str:
    cap = "" if pulse.platform_cap is None else f"cap {count(pulse.platform_cap)} · "
    return f"{cap}headroom {count(pulse.headroom)}"


def _oldest(pulse: Pulse) -> str:
    moments = [tenant.oldest_queued_at for tenant in pulse.tenants if tenant.oldest_queued_at is not None]
    return duration((pulse.at - min(moments)).total_seconds()) if moments else NONE


def _worst_wait(pulse: Pulse, window: Window) -> tuple[str, str]:
    waits = window.service.dropna(subset=["wait_p95_s"])
    if waits.empty:
        return NONE, "no run has started"
    worst = waits.loc[waits["wait_p95_s"].idxmax()]
    return duration(worst["wait_p95_s"]), f"worst: {_names(pulse).get(worst['tenant_id'], worst['tenant_id'])}"


def _names(pulse: Pulse) -> dict[str, str]:
    return {tenant.tenant_id: tenant.name for tenant in pulse.tenants}


def _attainment(endings: pd.DataFrame) -> float | None:
    in_time = int(endings["in_time"].sum())
    return ratio(in_time, in_time + int(endings["late"].sum()))


def _worst_sla(pulse: Pulse, window: Window) -> str:
    names = _names(pulse)
    attained = [
        (row.in_time / (row.in_time + row.late), names.get(row.tenant_id, row.tenant_id))
        for row in window.endings.itertuples()
        if row.in_time + row.late > 0
    ]
    if not attained:
        return "no run ended"
    worst, name = min(attained)
    return "every tenant" if worst == 1 else f"worst: {name} {percent(worst)}"


def _percentiles(row: pd.Series | None, what: str) -> tuple[str, str]:
    if row is None or pd.isna(row[f"{what}_p50_s"]):
        return NONE, ""
    p50, p95, p99 = (duration(row[f"{what}_p{percentile}_s"]) for percentile in (50, 95, 99))
    return p50, f"p95 {p95} · p99 {p99}"


def _contention(short: Fairness, long: Fairness) -> str:
    hour = f"1 h {_index(long.overall)}"
    if short.contending is None:
        return f"nobody contended · {hour}"
    return f"{short.contenders} contended: {_index(short.contending)} · {hour}"


def _strongest(pulse: Pulse, pairs: Sequence[Correlation]) -> tuple[str, str]:
    if not pairs:
        return NONE, "no spike to feel"
    names, first = _names(pulse), pairs[0]
    return f"{first.r:.2f}", f"{names.get(first.of, first.of)} → {names.get(first.on, first.on)}"


def _index(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"

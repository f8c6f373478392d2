"""Overview: what stands now and what happened lately, for one tenant or for all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from core.runs.model import Lane
from core.usage.model import format_usd
from ops_dashboard import figures, session, snapshots
from ops_dashboard.data import Window
from ops_dashboard.measures import JAIN_FORMULA, Fairness, ratio
from ops_dashboard.pulse import Pulse, TenantPulse
from ops_dashboard.screens.tables import share_column, table
from ops_dashboard.session import Viewer
from ops_dashboard.snapshots import SPANS
from ops_dashboard.theme import colours_of
from ops_dashboard.words import NONE, causes, count, duration, percent

_CONTENDING = (
    "Below it the index among the tenants that contended: those that had runs queued for at least half as long as "
    "the tenant with the longest backlog, so that one that wanted little does not count as treated unfairly."
)
_SLA = (
    "Share of runs that ended within their tenant's run SLA, counted from submission; runs that are still open "
    "past it count as late. Cancelled runs do not count."
)


def show() -> None:
    """The screen. Everything below the title renews itself every two seconds."""
    title, chooser = st.columns([3, 1], vertical_alignment="bottom")
    title.title("Overview", anchor=False)
    with chooser:
        st.segmented_control(
            "Window",
            [span.name for span in SPANS],
            default=SPANS[1].name,
            required=True,
            key="window",
            bind="query-params",
            label_visibility="collapsed",
        )
    _live()


@session.live()
def _live() -> None:
    who = session.viewer()
    span = next((span for span in SPANS if span.name == st.session_state.get("window")), SPANS[1])
    pulse, window = snapshots.pulse(who), snapshots.window(who, span)
    if who.operator:
        if not pulse.tenants:
            st.info("There is no tenant yet. `bailiwick seed` makes the demo tenants.", icon=":material/domain_add:")
            return
        _operator_tiles(pulse, window, snapshots.fairness_of(who, 300), snapshots.fairness_of(who, 3_600))
        _now_table(pulse)
        st.subheader(f"The last {span.name}", anchor=False)
        _window_table(pulse, window)
    else:
        _tenant_tiles(pulse, window)
    _plots(who, pulse, window)
    if who.operator:
        _workers(pulse)


def _operator_tiles(pulse: Pulse, window: Window, short: Fairness, long: Fairness) -> None:
    tenants = pulse.tenants
    slots = pulse.slots
    silent = sum(worker.state == "silent" for worker in pulse.workers)
    parked: Counter[str] = sum((Counter(tenant.waiting) for tenant in tenants), Counter())
    with st.grid(4):
        _tile(
            "Running", f"{count(sum(t.running for t in tenants))} / {count(slots)}", _slots(pulse), help_text=_HEADROOM
        )
        _tile(
            "Queued", count(sum(t.queued for t in tenants)), f"oldest {_oldest(pulse)} · {_lanes(_all_lanes(tenants))}"
        )
        _tile("Waiting", count(parked.total()), causes(parked))
        _tile("Wait p95", *_worst_wait(pulse, window), help_text=_WAIT)
        _tile("In time", percent(_attainment(window.endings)), _worst_sla(pulse, window), help_text=_SLA)
        _tile(
            "Jain's index, 5 min",
            _index(short.overall),
            _contention(short),
            help_text=f"{JAIN_FORMULA}\n\n{_CONTENDING}",
        )
        _tile(
            "Jain's index, 1 h",
            _index(long.overall),
            _contention(long),
            help_text=f"{JAIN_FORMULA}\n\n{_CONTENDING}",
        )
        _tile(
            "Workers",
            count(len(pulse.workers) - silent),
            f"{silent} silent" if silent else ("none is alive" if not pulse.workers else "all alive"),
            alarm=silent > 0 or not pulse.workers,
        )


_HEADROOM = (
    "Slots in use, of all live ones within the platform's cap. The last few free ones, the headroom, are kept for "
    "tenants that have nothing running, so that a quiet tenant starts at once."
)
_BURST = (
    "Slots over the cap, lent while nobody else could use them, of those the policy allows; and the worker-seconds "
    "still to be paid back by running under the cap. At the policy's credit bursts end."
)
_WAIT = "Time between entering the queue and getting a slot, each time a run does so."


def _tenant_tiles(pulse: Pulse, window: Window) -> None:
    (tenant,) = pulse.tenants
    service = window.service.iloc[0] if len(window.service) else None
    ending = window.endings.iloc[0] if len(window.endings) else None
    with st.grid(4):
        _tile("Running", f"{tenant.running} / {tenant.cap}", "of your slots")
        _tile("Queued", count(tenant.queued), f"oldest {_oldest(pulse)} · {_lanes(tenant.lanes)}")
        _tile("Waiting", count(tenant.waiting_total), causes(tenant.waiting))
        _tile(
            "Wait p50 / p95 / p99",
            duration(service.wait_p50_s) if service is not None else NONE,
            _two(service, "wait_p95_s", "wait_p99_s"),
            help_text=_WAIT,
        )
        _tile(
            "Duration p50 / p95 / p99",
            duration(ending.duration_p50_s) if ending is not None else NONE,
            _two(ending, "duration_p95_s", "duration_p99_s"),
            help_text="From submission to the end, waits included.",
        )
        _tile("In time", percent(_attainment(window.endings)), "of the runs", help_text=_SLA)
        _tile(
            "Reviews open",
            count(tenant.reviews_open),
            f"{tenant.reviews_overdue} overdue",
            alarm=tenant.reviews_overdue > 0,
        )
    left, right = st.columns(2)
    _bar(left, "Budget of the month", _promised(tenant), tenant.month_limit_microusd, format_usd)
    _bar(right, "Runs today", tenant.runs_today, tenant.daily_runs, count)
    if tenant.draining:
        st.warning(
            "The operator drains your organisation: nothing new is taken, queued runs go on.",
            icon=":material/water_drop:",
        )
    if tenant.paused:
        st.warning("Your tenant is paused: queued runs do not start. Running ones finish.", icon=":material/pause:")


def _tile(label: str, value: str, below: str, *, help_text: str | None = None, alarm: bool = False) -> None:
    st.metric(
        label,
        value,
        delta=below or NONE,
        delta_color="red" if alarm else "off",
        delta_arrow="off",
        border=True,
        help=help_text,
    )


def _bar(place: DeltaGenerator, label: str, used: int, limit: int, write: Callable[[int], str]) -> None:
    share = ratio(used, limit)
    text = f"{label}: **{write(used)}** of {write(limit)} ({percent(share)})".replace("$", "\\$")
    place.progress(min(1.0, share or 0.0), text=text)


def _now_table(pulse: Pulse) -> None:
    tenants = pulse.tenants
    table(
        {
            "Tenant": [_name(tenant) for tenant in tenants],
            "Tier": [tenant.tier for tenant in tenants],
            "Running / cap": [f"{tenant.running} / {tenant.cap}" for tenant in tenants],
            "Cap used": [tenant.running / max(1, tenant.cap) for tenant in tenants],
            "Burst": [burst_in_words(tenant) for tenant in tenants],
            "Queued": [tenant.queued for tenant in tenants],
            "Lanes": [_lanes(tenant.lanes) for tenant in tenants],
            "Oldest": [_age(pulse, tenant) for tenant in tenants],
            "Not executing, by cause": [causes(tenant.causes) for tenant in tenants],
            "Runs today / quota": [ratio(tenant.runs_today, tenant.daily_runs) for tenant in tenants],
            "Budget of the month": [ratio(_promised(tenant), tenant.month_limit_microusd) for tenant in tenants],
            "Reviews": [_reviews(tenant) for tenant in tenants],
        },
        {
            "Cap used": share_column(),
            "Burst": st.column_config.TextColumn(help=_BURST),
            "Queued": st.column_config.NumberColumn(width="small"),
            "Runs today / quota": share_column("Of the daily quota, counted from the tenant's midnight."),
            "Budget of the month": share_column("Spent and reserved."),
        },
    )


def _window_table(pulse: Pulse, window: Window) -> None:
    rows = pd.DataFrame(
        [(tenant.tenant_id, tenant.name, tenant.weight) for tenant in pulse.tenants],
        columns=["tenant_id", "name", "weight"],
    )
    for frame in (window.service, window.endings):
        rows = rows.join(frame.set_index("tenant_id"), on="tenant_id")
    total = rows["worker_s"].sum()
    table(
        {
            "Tenant": rows["name"],
            "Wait p50": _durations(rows["wait_p50_s"]),
            "Wait p95": _durations(rows["wait_p95_s"]),
            "Wait p99": _durations(rows["wait_p99_s"]),
            "Duration p50": _durations(rows["duration_p50_s"]),
            "Duration p95": _durations(rows["duration_p95_s"]),
            "Duration p99": _durations(rows["duration_p99_s"]),
            "In time": [_share(*pair) for pair in zip(rows["in_time"], rows["late"], strict=True)],
            "Failed": [_share(*pair) for pair in zip(rows["failed"], rows["succeeded"], strict=True)],
            "Weight": rows["weight"],
            "Worker time": _durations(rows["worker_s"]),
            "Share of it": rows["worker_s"] / total if total else rows["worker_s"],
        },
        {
            "In time": st.column_config.TextColumn(help=_SLA),
            "Failed": st.column_config.TextColumn(help="Of the runs that succeeded or failed."),
            "Wait p50": st.column_config.TextColumn(help=_WAIT),
            "Duration p50": st.column_config.TextColumn(help="From submission to the end, waits included."),
            "Weight": st.column_config.NumberColumn(width="small", format="%g"),
            "Share of it": share_column("Of all worker-seconds in the window."),
        },
    )


def _name(tenant: TenantPulse) -> str:
    marks = [word for word, true in (("paused", tenant.paused), ("draining", tenant.draining)) if true]
    return f"{tenant.name} ({', '.join(marks)})" if marks else tenant.name


def burst_in_words(tenant: TenantPulse) -> str:
    """Slots over the cap and what is owed for them: ``2 / 5 · 40 s of 5 min owed``."""
    if not tenant.burst_slots and tenant.debt_s < 1:
        return NONE
    owed = f" · {duration(tenant.debt_s)} of {duration(tenant.burst_credit_s)} owed" if tenant.debt_s >= 1 else ""
    return f"{tenant.bursting} / {tenant.burst_slots}{owed}"


def _slots(pulse: Pulse) -> str:
    cap = "" if pulse.platform_cap is None else f"cap {count(pulse.platform_cap)} · "
    return f"{cap}headroom {count(pulse.headroom)}"


def _all_lanes(tenants: Sequence[TenantPulse]) -> Counter[str]:
    return sum((Counter(tenant.lanes) for tenant in tenants), Counter())


def _lanes(lanes: Mapping[str, int]) -> str:
    order = [lane.name.lower() for lane in Lane]
    return " · ".join(f"{name} {count(lanes[name])}" for name in order if lanes.get(name)) or NONE


def _age(pulse: Pulse, tenant: TenantPulse) -> str:
    oldest = tenant.oldest_queued_at
    return NONE if oldest is None else duration((pulse.at - oldest).total_seconds())


def _promised(tenant: TenantPulse) -> int:
    return tenant.month_spent_microusd + tenant.month_reserved_microusd


def _reviews(tenant: TenantPulse) -> str:
    return f"{tenant.reviews_open}" + (f" ({tenant.reviews_overdue} overdue)" if tenant.reviews_overdue else "")


def _durations(column: pd.Series) -> list[str]:
    return [duration(value) for value in column]


def _plots(who: Viewer, pulse: Pulse, window: Window) -> None:
    names = {tenant.tenant_id: tenant.name for tenant in pulse.tenants}
    colors = colours_of(list(names))
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
    else:
        right.plotly_chart(figures.endings(window.endings), key="endings", config=figures.CONFIG)
    with st.container(border=True):
        st.plotly_chart(figures.failures(window.failures, names, colors), key="failures", config=figures.CONFIG)


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


def _workers(pulse: Pulse) -> None:
    st.subheader("Workers", anchor=False)
    if not pulse.workers:
        st.warning("No worker is alive: queued runs wait with cause “no worker”.", icon=":material/power_off:")
        return
    table(
        {
            "Worker": [worker.worker_id for worker in pulse.workers],
            "State": [worker.state for worker in pulse.workers],
            "Slots in use": [worker.held / worker.slots for worker in pulse.workers],
            "Held / slots": [f"{worker.held} / {worker.slots}" for worker in pulse.workers],
            "Last heard of": [f"{duration(worker.silent_s)} ago" for worker in pulse.workers],
            "Up for": [duration((pulse.at - worker.started_at).total_seconds()) for worker in pulse.workers],
        },
        {"Slots in use": share_column()},
    )


def _oldest(pulse: Pulse) -> str:
    moments = [tenant.oldest_queued_at for tenant in pulse.tenants if tenant.oldest_queued_at is not None]
    return duration((pulse.at - min(moments)).total_seconds()) if moments else NONE


def _worst_wait(pulse: Pulse, window: Window) -> tuple[str, str]:
    waits = window.service.dropna(subset=["wait_p95_s"])
    if waits.empty:
        return NONE, "no run has started"
    worst = waits.loc[waits["wait_p95_s"].idxmax()]
    names = {tenant.tenant_id: tenant.name for tenant in pulse.tenants}
    return duration(worst["wait_p95_s"]), f"worst: {names.get(worst['tenant_id'], worst['tenant_id'])}"


def _attainment(endings: pd.DataFrame) -> float | None:
    in_time = int(endings["in_time"].sum())
    return ratio(in_time, in_time + int(endings["late"].sum()))


def _share(in_time: float, late: float) -> str:
    return percent(ratio(in_time, in_time + late)) if in_time + late > 0 else NONE


def _worst_sla(pulse: Pulse, window: Window) -> str:
    names = {tenant.tenant_id: tenant.name for tenant in pulse.tenants}
    attained = [
        (row.in_time / (row.in_time + row.late), names.get(row.tenant_id, row.tenant_id))
        for row in window.endings.itertuples()
        if row.in_time + row.late > 0
    ]
    if not attained:
        return "no run ended"
    worst, name = min(attained)
    return "every tenant" if worst == 1 else f"worst: {name} {percent(worst)}"


def _two(row: pd.Series | None, first: str, second: str) -> str:
    return f"{duration(row[first])} / {duration(row[second])}" if row is not None else NONE


def _contention(found: Fairness) -> str:
    if found.contending is None:
        return "nobody contended"
    return f"{_index(found.contending)} among {found.contenders} that contended"


def _index(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"

"""The tables of the overview: a line per tenant, those that are hit first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from ops_dashboard.attention import Hit
from ops_dashboard.data import Window
from ops_dashboard.figures import QUEUE_CAUSES
from ops_dashboard.measures import ratio
from ops_dashboard.pulse import Pulse, TenantPulse
from ops_dashboard.screens.overview_tiles import SLA, TAKES, WAIT, in_lanes, promised
from ops_dashboard.screens.tables import share_column, table
from ops_dashboard.words import CAUSES, NONE, causes, count, duration, percent, shares

MOST = 100
"""Tenants in a table; the others are found by their name."""

_BURST = (
    "Slots over the cap, lent while nobody else could use them, of those the policy allows; and the worker-seconds "
    "still to be paid back by running under the cap. At the policy's credit bursts end."
)


def now(pulse: Pulse, hits: Sequence[Hit]) -> None:
    """What stands now, per tenant."""
    tenants = _chosen(pulse, hits)
    columns: dict[str, Any] = {
        "Tenant": [_name(tenant) for tenant in tenants],
        "Running / cap": [f"{tenant.running} / {tenant.cap}" for tenant in tenants],
        "Cap used": [tenant.running / max(1, tenant.cap) for tenant in tenants],
        "Queued": [tenant.queued for tenant in tenants],
        "Oldest": [_age(pulse, tenant) for tenant in tenants],
        "Not executing, by cause": [causes(tenant.causes) for tenant in tenants],
        "Runs today / quota": [ratio(tenant.runs_today, tenant.daily_runs) for tenant in tenants],
        "Budget of the month": [ratio(promised(tenant), tenant.month_limit_microusd) for tenant in tenants],
        "Reviews": [_reviews(tenant) for tenant in tenants],
    }
    # What only some installations use takes no room in the others.
    if any(tenant.lanes.keys() - {"normal"} for tenant in tenants):
        columns["Lanes"] = [in_lanes(tenant.lanes) for tenant in tenants]
    if any(tenant.burst_slots or tenant.debt_s >= 1 for tenant in tenants):
        columns["Burst"] = [burst_in_words(tenant) for tenant in tenants]
    table(
        columns,
        {
            "Tenant": st.column_config.TextColumn(pinned=True),
            "Cap used": share_column(),
            "Queued": st.column_config.NumberColumn(width="small"),
            "Not executing, by cause": st.column_config.TextColumn(help=CAUSES, width="medium"),
            "Runs today / quota": share_column("Of the daily quota, counted from the tenant's midnight."),
            "Budget of the month": share_column("Spent and reserved."),
            "Burst": st.column_config.TextColumn(help=_BURST),
        },
    )
    left = len(pulse.tenants) - len(tenants)
    if left:
        st.caption(f"And {count(left)} more, with less queued: Tenants finds one by its name.")


def lately(pulse: Pulse, window: Window, hits: Sequence[Hit]) -> None:
    """What happened in the window, per tenant."""
    rows = pd.DataFrame(
        [(tenant.tenant_id, tenant.name, tenant.weight) for tenant in _chosen(pulse, hits)],
        columns=["tenant_id", "name", "weight"],
    )
    total = window.service["worker_s"].sum()
    for frame in (window.service, window.endings, window.wait_causes.drop(columns="starts")):
        rows = rows.join(frame.set_index("tenant_id"), on="tenant_id")
    table(
        {
            "Tenant": rows["name"],
            "Wait p50": _durations(rows["wait_p50_s"]),
            "Wait p95": _durations(rows["wait_p95_s"]),
            "Wait p99": _durations(rows["wait_p99_s"]),
            "Waited for": [_waited(row) for row in rows.itertuples()],
            "Duration p50": _durations(rows["duration_p50_s"]),
            "Duration p95": _durations(rows["duration_p95_s"]),
            "Duration p99": _durations(rows["duration_p99_s"]),
            "In time": [_share(*pair) for pair in zip(rows["in_time"], rows["late"], strict=True)],
            "Failed": [_share(*pair) for pair in zip(rows["failed"], rows["succeeded"], strict=True)],
            "Weight": rows["weight"],
            "Worker time": _durations(rows["worker_s"]),
            "Share of it": (rows["worker_s"] / total).round(2) if total else rows["worker_s"],
        },
        {
            "Tenant": st.column_config.TextColumn(pinned=True),
            "In time": st.column_config.TextColumn(help=SLA),
            "Failed": st.column_config.TextColumn(help="Of the runs that succeeded or failed."),
            "Wait p50": st.column_config.TextColumn(help=WAIT),
            "Waited for": st.column_config.TextColumn(help=f"Of all the time that its runs were queued.\n\n{CAUSES}"),
            "Duration p50": st.column_config.TextColumn(help=TAKES),
            "Weight": st.column_config.NumberColumn(width="small", format="%g"),
            "Share of it": share_column("Of all worker-seconds in the window."),
        },
    )


def workers(pulse: Pulse) -> None:
    """The workers, and whether they live."""
    st.subheader("Workers", anchor=False)
    if not pulse.workers:
        st.warning(
            "No worker is alive: queued runs wait with cause “no worker”. Start one: `bailiwick worker`.",
            icon=":material/power_off:",
        )
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


def burst_in_words(tenant: TenantPulse) -> str:
    """Slots over the cap and what is owed for them: ``2 / 5 · 40 s of 5 min owed``."""
    if not tenant.burst_slots and tenant.debt_s < 1:
        return NONE
    owed = f" · {duration(tenant.debt_s)} of {duration(tenant.burst_credit_s)} owed" if tenant.debt_s >= 1 else ""
    return f"{tenant.bursting} / {tenant.burst_slots}{owed}"


def _chosen(pulse: Pulse, hits: Sequence[Hit]) -> list[TenantPulse]:
    """Those that are hit, then by the length of their queue in powers of ten: an order that seldom changes."""
    place = {hit.tenant_id: number for number, hit in enumerate(hits)}
    ordered = sorted(
        pulse.tenants,
        key=lambda one: (place.get(one.tenant_id, len(place)), -len(str(one.queued)) if one.queued else 0, one.name),
    )
    return ordered[:MOST]


def _name(tenant: TenantPulse) -> str:
    marks = [word for word, true in (("paused", tenant.paused), ("draining", tenant.draining)) if true]
    return f"{tenant.name} ({', '.join(marks)})" if marks else tenant.name


def _age(pulse: Pulse, tenant: TenantPulse) -> str:
    oldest = tenant.oldest_queued_at
    return NONE if oldest is None else duration((pulse.at - oldest).total_seconds())


def _reviews(tenant: TenantPulse) -> str:
    return f"{tenant.reviews_open}" + (f" ({tenant.reviews_overdue} overdue)" if tenant.reviews_overdue else "")


def _waited(row: Any) -> str:
    seconds = {cause: getattr(row, column) for column, cause in QUEUE_CAUSES.items()}
    return shares(seconds) if sum(seconds.values()) >= 1 else NONE


def _durations(column: pd.Series) -> list[str]:
    return [duration(value) for value in column]


def _share(part: float, rest: float) -> str:
    return percent(ratio(part, part + rest)) if part + rest > 0 else NONE

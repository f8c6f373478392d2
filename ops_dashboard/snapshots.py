"""One snapshot for all who look: sessions of the same tenant, and all operators, share what was read.

However many tabs are open, a tenant is read once per two seconds, and only while somebody looks. Callers have
identified themselves before they ask (``session.viewer``); the key is their tenant. Snapshots are shared
between threads: do not change them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pandas as pd
import streamlit as st

from core.tenancy import TenantContext
from ops_dashboard import data
from ops_dashboard.bridge import bridge
from ops_dashboard.data import Window
from ops_dashboard.measures import Fairness, fairness
from ops_dashboard.pulse import Pulse
from ops_dashboard.session import Viewer


@dataclass(frozen=True, slots=True)
class Span:
    """A window a person may choose: its name, its length, the width of a bucket in its plots."""

    name: str
    seconds: int
    bucket_s: int


SPANS = (Span("5 min", 300, 10), Span("1 h", 3_600, 30), Span("24 h", 86_400, 900))


def pulse(who: Viewer) -> Pulse:
    """What stands now, at most two seconds old."""
    return _pulse(who.ctx)


def window(who: Viewer, span: Span) -> Window:
    """What happened in a window, at most 5 s old (30 s for a day)."""
    fetch = _window if span.seconds <= 3_600 else _long_window
    return fetch(span, who.ctx)


def version_endings(who: Viewer, span: Span) -> pd.DataFrame:
    """How the runs of each version ended in a window, whole buckets only, at most 5 s old. For operators."""
    return _version_endings(span, who.ctx)


def fairness_of(who: Viewer, seconds: int) -> Fairness:
    """Jain's index over the last ``seconds``, at most 5 s old."""
    return _fairness(seconds, who.ctx)


def _tenant_of(ctx: TenantContext) -> str:
    return ctx.tenant_id


_SHARED: dict[str, Any] = {
    "max_entries": 2_000,
    "show_spinner": False,
    "hash_funcs": {TenantContext: _tenant_of, Span: repr},
}


@st.cache_resource(ttl=2, **_SHARED)
def _pulse(ctx: TenantContext) -> Pulse:
    platform = bridge().platform
    return bridge().run(data.pulse(platform.db, ctx, platform.clock.now()))


@st.cache_resource(ttl=5, **_SHARED)
def _window(span: Span, ctx: TenantContext) -> Window:
    return _read_window(span, ctx)


@st.cache_resource(ttl=30, **_SHARED)
def _long_window(span: Span, ctx: TenantContext) -> Window:
    return _read_window(span, ctx)


def _read_window(span: Span, ctx: TenantContext) -> Window:
    platform = bridge().platform
    return bridge().run(data.window(platform.db, ctx, platform.clock.now(), span.seconds, span.bucket_s))


@st.cache_resource(ttl=5, **_SHARED)
def _version_endings(span: Span, ctx: TenantContext) -> pd.DataFrame:
    platform = bridge().platform
    now = platform.clock.now()
    until = now - timedelta(seconds=now.timestamp() % span.bucket_s)
    return bridge().run(data.version_endings(platform.db, ctx, until, span.seconds, span.bucket_s))


@st.cache_resource(ttl=5, **_SHARED)
def _fairness(seconds: int, ctx: TenantContext) -> Fairness:
    platform = bridge().platform
    tenants = _pulse(ctx).tenants
    return fairness(bridge().run(data.services(platform.db, ctx, tenants, platform.clock.now(), seconds)))

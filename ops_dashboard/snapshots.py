"""One snapshot for all who look: sessions of the same tenant, and all operators, share what was read.

However many tabs are open, a tenant is read once per two seconds, less often where that takes long (``shared``), and
only while somebody looks. Callers have identified themselves before they ask (``session.viewer``); the key is their
tenant. Snapshots are shared between threads: do not change them.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import timedelta

import pandas as pd
import streamlit as st

from core.tenancy import Scope
from ops_dashboard import data, spans
from ops_dashboard.bridge import bridge
from ops_dashboard.data import Window
from ops_dashboard.measures import Fairness, Service, fairness
from ops_dashboard.pulse import Pulse
from ops_dashboard.session import Viewer
from ops_dashboard.shared import Shared
from ops_dashboard.spans import HOUR, Span


def pulse(who: Viewer) -> Pulse:
    """What stands now, about two seconds old."""
    platform = bridge().platform
    share = platform.settings.queue_headroom
    return _pulses().look(
        who.ctx.tenant_id, lambda: data.pulse(platform.db, who.ctx, platform.clock.now(), share), _counting
    )


def window(who: Viewer, span: Span) -> Window:
    """What happened in a window, about 5 s old (30 s for a day)."""
    platform = bridge().platform
    shared = _windows() if span.seconds <= 3_600 else _long_windows()
    return shared.look(
        (who.ctx.tenant_id, span),
        lambda: data.window(platform.db, who.ctx, platform.clock.now(), span.seconds, span.bucket_s),
        _counting,
    )


def fitting_span(who: Viewer) -> Span:
    """The shortest span that holds what happened lately; as old as the window of an hour."""
    return spans.fitting(window(who, HOUR))


def version_endings(who: Viewer, span: Span) -> pd.DataFrame:
    """How the runs of each version ended in a window, whole buckets only, about 5 s old. For operators."""
    who.ctx.require(Scope.PLATFORM_OPERATE)
    platform = bridge().platform
    now = platform.clock.now()
    until = now - timedelta(seconds=now.timestamp() % span.bucket_s)
    return _versions().look(
        span,
        lambda: data.version_endings(platform.db, who.ctx, until, span.seconds, span.bucket_s),
        _counting,
    )


def fairness_of(who: Viewer, pulse: Pulse, seconds: int) -> Fairness:
    """Jain's index over the last ``seconds``, about 5 s old."""
    platform = bridge().platform
    return fairness(
        _services().look(
            (who.ctx.tenant_id, seconds),
            lambda: data.services(platform.db, who.ctx, pulse.tenants, platform.clock.now(), seconds),
            _counting,
        )
    )


def _counting() -> AbstractContextManager[None]:
    return st.spinner("Counting…")


@st.cache_resource(show_spinner=False)
def _pulses() -> Shared[Pulse]:
    return Shared(bridge().start, ttl_s=2)


@st.cache_resource(show_spinner=False)
def _windows() -> Shared[Window]:
    return Shared(bridge().start, ttl_s=5)


@st.cache_resource(show_spinner=False)
def _long_windows() -> Shared[Window]:
    return Shared(bridge().start, ttl_s=30)


@st.cache_resource(show_spinner=False)
def _versions() -> Shared[pd.DataFrame]:
    return Shared(bridge().start, ttl_s=5)


@st.cache_resource(show_spinner=False)
def _services() -> Shared[list[Service]]:
    return Shared(bridge().start, ttl_s=5)

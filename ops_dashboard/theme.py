"""Colours: one palette for pages and plots, readable in light and dark."""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

PALETTE = ("#2f6fde", "#e27a12", "#55c2f1", "#783894", "#e6a589", "#a82459", "#945d38", "#692fee")
"""Tenants and versions. No two of them, nor of the colours below, look alike to people who do not see red or green, or
blue (``tests/unit/ops_dashboard/test_theme.py``)."""

STATE_COLORS = {
    "queued": "#e0a73a",
    "running": "#2f6fde",
    "waiting": "#b889e6",
    "succeeded": "#45c08a",
    "failed": "#cf3a2b",
    "cancelled": "#8a94a3",
    "dead": "#7d1f4b",
}
CAUSE_COLORS = {
    "share": "#e0a73a",
    "cap": "#2f6fde",
    "paused": "#8a94a3",
    "no_worker": "#bd0f0f",
    "no_code": "#a82431",
    "review": "#b889e6",
    "timer": "#5cc185",
    "event": "#166961",
    "rate": "#692fee",
    "endpoint": "#d87246",
    "budget": "#e2127a",
    "children": "#943894",
}
"""Why a run does not execute."""

NEUTRAL = "#8a94a3"

THEME: dict[str, object] = {
    "theme.baseRadius": "0.5rem",
    "theme.baseFontSize": 15,
    "theme.metricValueFontSize": "1.9rem",
    "theme.headingFontSizes": ["1.75rem", "1.25rem", "1.05rem"],
    "theme.paddingTop": "2.5rem",
    "theme.paddingBottom": "2rem",
    "theme.showSidebarBorder": True,
    "theme.showWidgetBorder": True,
    "theme.chartCategoricalColors": list(PALETTE),
    "theme.light.primaryColor": "#2f6fde",
    "theme.light.backgroundColor": "#ffffff",
    "theme.light.secondaryBackgroundColor": "#f4f6f9",
    "theme.light.textColor": "#1b2430",
    "theme.light.borderColor": "#dfe4eb",
    "theme.dark.primaryColor": "#6d9cf0",
    "theme.dark.backgroundColor": "#12161c",
    "theme.dark.secondaryBackgroundColor": "#1b2129",
    "theme.dark.textColor": "#e6eaf0",
    "theme.dark.borderColor": "#303945",
}


def colours_of(tenant_ids: Iterable[str]) -> dict[str, str]:
    """A colour per tenant, the same on every plot of a screen.

    Each prefers the colour of its name, so that others who come and go seldom change it, and takes the next free one
    when that is taken; beyond the palette they repeat.
    """
    colours: dict[str, str] = {}
    for number, tenant in enumerate(dict.fromkeys(tenant_ids)):
        first = crc32(tenant.encode()) % len(PALETTE)
        wished = [PALETTE[(first + step) % len(PALETTE)] for step in range(len(PALETTE))]
        free = [colour for colour in wished if colour not in colours.values() or number >= len(PALETTE)]
        colours[tenant] = free[0]
    return colours

"""Colours: one palette for pages and plots, readable in light and dark."""

from __future__ import annotations

from collections.abc import Sequence

PALETTE = ("#2f6fde", "#e08a1e", "#1f9d74", "#b5549c", "#7a6ff0", "#c9483f", "#2b9fb3", "#8a8f2a", "#9a6b4f", "#6b7a90")
"""Tenants, in order; told apart also by people who see red and green alike."""

STATE_COLORS = {
    "queued": "#e0a73a",
    "running": "#2f6fde",
    "waiting": "#9b7fe0",
    "succeeded": "#1f9d74",
    "failed": "#d1493f",
    "cancelled": "#8a94a3",
    "dead": "#7d1f2b",
}
CAUSE_COLORS = {
    "share": "#e0a73a",
    "cap": "#2f6fde",
    "paused": "#8a94a3",
    "no_worker": "#d1493f",
    "no_code": "#c76a8f",
    "review": "#9b7fe0",
    "timer": "#1f9d74",
    "event": "#2b9fb3",
    "rate": "#b5549c",
    "endpoint": "#c9483f",
    "budget": "#9a6b4f",
    "children": "#5b6ee1",
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


def colours_of(tenant_ids: Sequence[str]) -> dict[str, str]:
    """A colour per tenant, the same on every plot of a screen; beyond the palette they repeat."""
    return {tenant: PALETTE[index % len(PALETTE)] for index, tenant in enumerate(sorted(tenant_ids))}

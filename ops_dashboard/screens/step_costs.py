"""What the steps of a tenant have cost, and how good their estimates were."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from core.usage.model import format_usd
from ops_dashboard import session
from ops_dashboard.words import NONE, count, literal, percent


def show(tenant_id: str | None) -> None:
    """A table; ``tenant_id`` is for operators, None: the viewer's own."""
    found = session.ask(lambda platform, who: platform.usage.step_costs(who.ctx, tenant_id))
    if not found:
        st.info("No step that costs something has ended yet.")
        return
    st.caption(
        "A step that declares no estimate reserves the 95th percentile of what it cost the last 64 times. When an "
        "estimate is too small, more is reserved within the run's budget."
    )
    st.table(
        pd.DataFrame(
            {
                "Workflow": [literal(each.workflow) for each in found],
                "Step": [literal(each.step) for each in found],
                "Times": [count(each.settled) for each in found],
                "Cost p95": [literal(format_usd(each.p95_microusd)) for each in found],
                "Estimate too small": [percent(each.exceeded_share) for each in found],
                "Short by, on average": [
                    literal(format_usd(each.mean_overshoot_microusd)) if each.exceeded_share else NONE for each in found
                ],
            }
        ),
        border="horizontal",
        hide_index=True,
    )

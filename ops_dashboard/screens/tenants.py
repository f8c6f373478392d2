"""Tenants: the policy in force, and changing it. Every change is shown before and after, and confirmed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from core.bootstrap import Platform
from core.errors import InvalidInput
from core.ids import TenantId
from core.tenancy import ModelTier, Policy, Tier
from core.tenants.model import TenantView
from core.usage.model import format_usd
from ops_dashboard import policies, session, snapshots
from ops_dashboard.measures import ratio
from ops_dashboard.numbers import whole
from ops_dashboard.policies import BUDGETS, INSIDE, LADDER, QUOTAS, SERVICE_LEVELS, Field
from ops_dashboard.screens import api_keys, step_costs
from ops_dashboard.screens.forms import whole_input, zone_input
from ops_dashboard.screens.tiles import tile
from ops_dashboard.session import Viewer
from ops_dashboard.words import causes, code, count, duration, literal, percent


def _tenant(tenant_id: str) -> TenantView:
    return session.ask(lambda platform, _: platform.tenants.tenant(TenantId(tenant_id)))


def show() -> None:
    """All tenants and one of them for operators; the own one for admins."""
    who = session.viewer()
    if not who.operator:
        st.title(literal(who.identity.tenant_name), anchor=False)
        _use()
        policy, costs, keys = st.tabs(["Policy", "Costs of steps", "API keys"])
        with policy:
            _editor(who, _tenant(who.ctx.tenant_id))
        with costs:
            step_costs.show(None)
        with keys:
            api_keys.show()
        return
    st.title("Tenants", anchor=False)
    _platform_cap(who)
    tenants = [tenant.tenant_id for tenant in snapshots.pulse(who).tenants]
    if not tenants:
        st.info("There is no tenant yet. `bailiwick seed` makes the demo tenants.", icon=":material/domain_add:")
        return
    asked = st.query_params.get("policy_of", tenants[0])
    if asked not in tenants:
        st.warning(f"There is no tenant {code(asked)}. Choose another one.", icon=":material/search_off:")
    # The address holds what is shown: ids, so that a link to a tenant is a link to that tenant.
    chosen = st.selectbox("Tenant", tenants, key="policy_of", bind="query-params")
    _use()
    if chosen is not None:
        policy, costs = st.tabs(["Policy", "Costs of steps"])
        with policy:
            _editor(who, _tenant(chosen))
        with costs:
            step_costs.show(chosen)


@session.live()
def _use() -> None:
    """How much of its rights the tenant uses now."""
    who = session.viewer()
    chosen = st.session_state.get("policy_of") if who.operator else who.ctx.tenant_id
    now = next((tenant for tenant in snapshots.pulse(who).tenants if tenant.tenant_id == chosen), None)
    if now is None:
        return
    spent, limit = now.month_spent_microusd, now.month_limit_microusd
    reserved = format_usd(now.month_reserved_microusd)
    with st.grid(3, min_column_width=150):
        for label, value, below in (
            ("Running", f"{now.running} / {now.cap}", f"{percent(ratio(now.running, now.cap))} of the cap"),
            ("Queued", count(now.queued), causes(now.causes)),
            (
                "Slots over the cap",
                f"{now.bursting} / {now.burst_slots}",
                f"{duration(now.debt_s)} owed" if now.debt_s >= 1 else "nothing owed",
            ),
            ("Runs today", count(now.runs_today), f"{percent(ratio(now.runs_today, now.daily_runs))} of the quota"),
            ("Spent this month", format_usd(spent), f"of {format_usd(limit)}, {reserved} reserved"),
            ("Reviews open", count(now.reviews_open), f"{now.reviews_overdue} overdue"),
        ):
            tile(label, value, below)
    used = min(1.0, ratio(spent + now.month_reserved_microusd, limit) or 0.0)
    st.progress(used, text=f"Budget of the month, spent and reserved: {percent(used)}")


def _editor(who: Viewer, tenant: TenantView) -> None:
    if who.operator:
        _steer(tenant)
    policy = tenant.policy
    # The version is part of every key: after a change the form shows the policy that is in force now.
    key = f"{tenant.tenant_id}_{tenant.policy_version}"
    fields: dict[str, Any] = {}
    st.caption(
        f"{literal(tenant.name)} · version {tenant.policy_version} is in force · region {tenant.region}"
        + ("" if who.operator else " · what is greyed out is changed by the operator")
    )
    with st.container(border=True):
        st.markdown("##### Share and quotas")
        fields |= _numbers(policy, QUOTAS, key, editable=who.operator)
        left, right = st.columns(2)
        fields["tier"] = left.selectbox(
            "Tier", list(Tier), index=list(Tier).index(policy.tier), key=f"tier_{key}", disabled=not who.operator
        )
        fields["model_tier"] = right.selectbox(
            "Models",
            list(ModelTier),
            index=list(ModelTier).index(policy.model_tier),
            key=f"models_{key}",
            disabled=not who.operator,
        )
    with st.container(border=True):
        st.markdown("##### Shares inside the organisation")
        fields |= _numbers(policy, INSIDE, key, editable=True)
        caps = _workflow_caps(policy, key)
    with st.container(border=True):
        st.markdown("##### Budgets")
        fields |= _numbers(policy, BUDGETS, key, editable=who.operator)
        fields |= _numbers(policy, LADDER, key, editable=True)
    with st.container(border=True):
        st.markdown("##### Rate limits of external services")
        limits = _rate_limits(policy, key, editable=who.operator)
    with st.container(border=True):
        st.markdown("##### Service levels, tools and time")
        fields |= _numbers(policy, SERVICE_LEVELS, key, editable=True)
        fields |= _own(policy, key)
    _offer(tenant, fields, limits, caps)


def _numbers(policy: Policy, asked: Sequence[Field], key: str, *, editable: bool) -> dict[str, Any]:
    values: dict[str, Any] = {}
    # A row at a time: where columns stand below each other, fields keep their order.
    rows = [st.columns(3) for _ in range(0, len(asked), 3)]
    for index, field in enumerate(asked):
        place, before = rows[index // 3][index % 3], policies.shown(policy, field)
        shape: dict[str, Any] = {
            "key": f"{field.name}_{key}",
            "help": field.help or None,
            "disabled": not editable,
        }
        if field.whole:
            value = whole_input(place, field.label, before, **shape)
        else:
            # Without bounds, like whole numbers.
            value = place.number_input(field.label, value=before, step=field.step or 0.5, format="%g", **shape)
        values[field.name] = policies.stored(field, value)
    return values


def _rate_limits(policy: Policy, key: str, *, editable: bool) -> list[dict[str, Any]]:
    before = pd.DataFrame(
        [(name, limit.limit, limit.window_s) for name, limit in policy.rate_limits.items()],
        columns=["name", "limit", "window_s"],
    ).astype({"name": "object", "limit": "Int64", "window_s": "Int64"})
    if before.empty and not editable:
        st.caption("None.")
        return []
    edited = st.data_editor(
        before,
        key=f"rates_{key}",
        num_rows="dynamic",
        hide_index=True,
        disabled=not editable,
        column_config={
            "name": st.column_config.TextColumn("Service", required=True),
            "limit": st.column_config.NumberColumn("Calls", min_value=1, step=1, required=True),
            "window_s": st.column_config.NumberColumn("in seconds", min_value=1, step=1, required=True),
        },
    )
    return [
        {"name": row.name, "limit": _whole(row.limit), "window_s": _whole(row.window_s)}
        for row in edited.itertuples(index=False)
    ]


def _workflow_caps(policy: Policy, key: str) -> list[dict[str, Any]]:
    before = pd.DataFrame(list(policy.workflow_caps.items()), columns=["workflow", "cap"]).astype(
        {"workflow": "object", "cap": "Int64"}
    )
    edited = st.data_editor(
        before,
        key=f"workflow_caps_{key}",
        num_rows="dynamic",
        hide_index=True,
        column_config={
            "workflow": st.column_config.TextColumn("Workflow", required=True),
            "cap": st.column_config.NumberColumn("Runs at a time", min_value=0, step=1, required=True),
        },
    )
    return [{"workflow": row.workflow, "cap": _whole(row.cap)} for row in edited.itertuples(index=False)]


def _whole(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)


def _own(policy: Policy, key: str) -> dict[str, Any]:
    """What a tenant's own admin may change too."""
    left, middle, right = st.columns(3)
    pools = ["dedicated", "shared"]
    return {
        "reviewer_pool": left.selectbox("Reviewers", pools, index=pools.index(policy.reviewer_pool), key=f"pool_{key}"),
        "timezone": zone_input(middle, policy.timezone, f"zone_{key}"),
        "denied_tools": _words(right, "Denied tools", policy.denied_tools, f"denied_{key}"),
        "allowed_tools": _words(left, "Allowed tools (empty: all)", policy.allowed_tools, f"allowed_{key}"),
    }


def _words(place: Any, label: str, values: Sequence[str], key: str) -> list[str]:
    text = place.text_input(label, ", ".join(values), key=key, placeholder="names, separated by commas")
    return [word.strip() for word in text.split(",") if word.strip()]


def _offer(
    tenant: TenantView, fields: dict[str, Any], limits: list[dict[str, Any]], caps: list[dict[str, Any]]
) -> None:
    try:
        tables = {"rate_limits": policies.rate_limits(limits), "workflow_caps": policies.workflow_caps(caps)}
        after = policies.changed(tenant.policy, {**fields, **tables})
    except InvalidInput as error:
        session.show_refusal(error)
        return
    differs = policies.differences(tenant.policy, after)
    label = f"Review {len(differs)} change{'s' if len(differs) != 1 else ''}" if differs else "Nothing changed"
    if st.button(label, type="primary", disabled=not differs, icon=":material/difference:"):
        _confirm(tenant, after, differs)


@st.dialog("Change this policy?", width="large")
def _confirm(tenant: TenantView, after: Policy, differs: list[tuple[str, str, str]]) -> None:
    st.write(f"**{literal(tenant.name)}**, version {tenant.policy_version} → {tenant.policy_version + 1}")
    st.dataframe(pd.DataFrame(differs, columns=["What", "Before", "After"]), hide_index=True)
    st.caption("It acts at the next claim, also on runs that are queued now. The audit keeps both versions.")
    if st.button("Put it in force", type="primary", key="confirm_policy") and session.attempt(
        lambda platform, who: _change(platform, who, tenant, after), "The policy is in force."
    ):
        st.rerun()


async def _change(platform: Platform, who: Viewer, tenant: TenantView, after: Policy) -> None:
    now = await platform.tenants.tenant(tenant.tenant_id)
    if now.policy_version != tenant.policy_version:
        raise InvalidInput("Somebody else changed this policy meanwhile. Close this and look again.")
    await platform.tenants.change_policy(who.ctx, tenant.tenant_id, after)


def _steer(tenant: TenantView) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        if tenant.paused:
            st.badge("paused", icon=":material/pause:", color="orange")
        if tenant.draining:
            st.badge("draining", icon=":material/water_drop:", color="orange")
        word = "Resume" if tenant.paused else "Pause"
        icon = ":material/play_arrow:" if tenant.paused else ":material/pause:"
        if st.button(f"{word} this tenant", icon=icon, key="pause_tenant"):
            _confirm_pause(tenant)
        word = "End draining" if tenant.draining else "Drain"
        if st.button(f"{word} this tenant", icon=":material/water_drop:", key="drain_tenant"):
            _confirm_drain(tenant)


@st.dialog("Pause or resume this tenant?")
def _confirm_pause(tenant: TenantView) -> None:
    if tenant.paused:
        st.write(f"Queued runs of **{literal(tenant.name)}** start again.")
    else:
        st.write(f"No queued run of **{literal(tenant.name)}** starts until it is resumed. Running ones finish.")
    if st.button("Resume" if tenant.paused else "Pause", type="primary", key="confirm_pause"):
        session.act(
            lambda platform, who: platform.tenants.pause(who.ctx, tenant.tenant_id, not tenant.paused),
            f"{tenant.name} is {'running' if tenant.paused else 'paused'}.",
        )
        st.rerun()


@st.dialog("Drain this tenant, or end it?")
def _confirm_drain(tenant: TenantView) -> None:
    if tenant.draining:
        st.write(f"What **{literal(tenant.name)}** submits is taken again.")
    else:
        st.write(
            f"Nothing that **{literal(tenant.name)}** submits is taken until draining ends. What is queued goes on."
        )
    if st.button("End draining" if tenant.draining else "Drain", type="primary", key="confirm_drain"):
        session.act(
            lambda platform, who: platform.tenants.drain(who.ctx, tenant.tenant_id, not tenant.draining),
            f"{tenant.name} {'may submit again' if tenant.draining else 'is draining'}.",
        )
        st.rerun()


def _platform_cap(who: Viewer) -> None:
    """Slots that may be held at once, whatever the workers have; for operators."""
    now = snapshots.pulse(who)
    with st.expander("Platform", icon=":material/dns:"):
        st.caption(f"{now.live_slots} slots of workers that live; {now.headroom} of the free ones are headroom.")
        with st.form("platform_cap", border=False):
            label = "Slots that may be held at once"
            cap = whole_input(st, label, now.platform_cap, placeholder="no cap")
            if st.form_submit_button("Put it in force"):
                session.act(
                    lambda platform, who: platform.tenants.cap_platform(who.ctx, whole(cap, label)),
                    "There is no cap of the platform." if cap is None else f"The platform's cap is {cap}.",
                )

"""Audit: who did what, and whether the chain is whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import streamlit as st

from core.audit.model import AuditEntry
from core.bootstrap import Platform
from core.ids import TenantId
from core.tenancy import ActorKind
from ops_dashboard import data, session
from ops_dashboard.screens.tables import table
from ops_dashboard.session import Viewer
from ops_dashboard.words import NONE, count, literal, moment, plain

_LIMIT = 500


def show() -> None:
    """A tenant's entries for its admins; every tenant's chain, without entries, for operators."""
    st.title("Audit", anchor=False)
    if session.viewer().operator:
        _chains()
    else:
        _own()


async def _recent(platform: Platform, who: Viewer) -> tuple[Sequence[AuditEntry], dict[str, str]]:
    return await platform.audit.recent(who.ctx, _LIMIT), await data.people(platform.db, who.ctx)


def _own() -> None:
    who = session.viewer()
    entries, people = session.ask(_recent)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        acts = sorted({entry.act for entry in entries})
        act = st.selectbox("Act", ["any", *acts], key="act", bind="query-params", width=300)
        who_acts = st.text_input("Actor or subject contains", key="about", bind="query-params", width=320)
        if st.button("Verify chain", icon=":material/link:", key="verify"):
            _verify(who.ctx.tenant_id)
    shown = [
        entry
        for entry in entries
        if act in {"any", entry.act}
        and who_acts.lower()
        in f"{people.get(entry.actor)} {entry.actor} {people.get(entry.subject)} {entry.subject}".lower()
    ]
    if not shown:
        st.info("No entry matches." if entries else "Nothing has happened yet.", icon=":material/verified_user:")
        return
    _table(
        [
            {
                "At": moment(entry.at, who.timezone),
                "Actor": people.get(entry.actor, entry.actor),
                "Act": entry.act,
                "Subject": people.get(entry.subject, entry.subject),
                "Before": before,
                "After": after,
                "Policy": entry.policy_version,
                "Seal": f"#{entry.seq}" if entry.seq else "not yet",
            }
            for entry in shown
            for before, after in [_differing(entry.before, entry.after)]
        ]
    )
    st.caption(
        f"The newest {count(len(entries))} entries, times of {who.timezone}. Sealed entries are chained by hash; "
        "sealing runs in batches."
    )


@dataclass(frozen=True, slots=True)
class _Chains:
    chains: list[dict[str, Any]]
    acts: list[dict[str, Any]]
    people: dict[str, str]


async def _read_chains(platform: Platform, who: Viewer) -> _Chains:
    return _Chains(
        await data.audit_chains(platform.db, who.ctx),
        await data.operator_acts(platform.db, who.ctx),
        await data.people(platform.db, who.ctx),
    )


def _chains() -> None:
    who = session.viewer()
    read = session.ask(_read_chains)
    chains, acts = read.chains, read.acts
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.selectbox("Chain of", [chain["tenant_id"] for chain in chains], width=320)
        if st.button("Verify chain", icon=":material/link:", key="verify") and chosen:
            _verify(chosen)
        if st.button("Verify all", icon=":material/checklist:", key="verify_all"):
            _verify_all([chain["tenant_id"] for chain in chains])
    _table(
        [
            {
                "Tenant": chain["tenant_id"],
                "Sealed entries": chain["sealed"],
                "Not sealed yet": chain["unsealed"],
                "Last entry": moment(chain["last_at"], who.timezone),
            }
            for chain in chains
        ]
    )
    st.subheader("Acts on the platform", anchor=False)
    if not acts:
        st.info("No operator has changed anything yet.", icon=":material/verified_user:")
        return
    _table(
        [
            {
                "At": moment(act["at"], who.timezone),
                "Actor": read.people.get(act["actor"], act["actor"]),
                "Act": act["act"],
                "Subject": read.people.get(act["subject"], act["subject"]),
                "Before": before,
                "After": after,
            }
            for act in acts
            for before, after in [_differing(act["before"], act["after"])]
        ]
    )


async def _broken(platform: Platform, who: Viewer, tenant_id: str) -> int | None:
    ctx = who.ctx
    if who.operator:
        # Only the verdict about the chain is asked for: the context carries no right at all.
        ctx = await platform.tenants.context_for(
            TenantId(tenant_id), actor_kind=ActorKind.USER, actor_id=who.ctx.actor_id
        )
    return await platform.audit.verify(ctx)


def _verify(tenant_id: str) -> None:
    with st.spinner("Recomputing every hash…"):
        broken = session.ask(partial(_broken, tenant_id=tenant_id))
    if broken is None:
        session.notify(f"The chain of {tenant_id} is whole: every sealed entry fits the one before it.")
    else:
        session.notify(f"The chain of {tenant_id} is broken at entry {broken}.", ok=False)


def _verify_all(tenant_ids: Sequence[str]) -> None:
    bar = st.progress(0.0, text="Recomputing every hash…")
    broken: list[str] = []
    for index, tenant_id in enumerate(tenant_ids, 1):
        at = session.ask(partial(_broken, tenant_id=tenant_id))
        if at is not None:
            broken.append(f"{tenant_id} (entry {at})")
        bar.progress(index / len(tenant_ids), text=literal(tenant_id))
    bar.empty()
    if broken:
        session.notify(f"Broken: {', '.join(broken)}.", ok=False)
    else:
        session.notify(f"All {len(tenant_ids)} chains are whole: every sealed entry fits the one before it.")


def _table(rows: Sequence[Mapping[str, Any]]) -> None:
    long = st.column_config.TextColumn(width="medium")
    table({name: [row[name] for row in rows] for name in rows[0]}, {"Before": long, "After": long})


def _differing(before: Any, after: Any) -> tuple[str, str]:
    """Of two documents only what is not the same in both: of a policy that is a field or two of thirty."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        before, after = ({name: one[name] for name in names if name in one} for one in (before, after))
    return _short(before), _short(after)


def _short(document: Any) -> str:
    if document is None or document == {}:
        return NONE
    if not isinstance(document, Mapping):
        return json.dumps(document, ensure_ascii=False)
    return " · ".join(f"{plain(name)}: {_word(value)}" for name, value in document.items())


def _word(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ", ".join(value) or NONE
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

"""API keys of one's own tenant: issue, see, revoke. A secret is shown once."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from core.bootstrap import Platform
from core.errors import BailiwickError
from core.tenancy import Scope
from core.tenants.model import ApiKeyView
from ops_dashboard import session
from ops_dashboard.session import Viewer
from ops_dashboard.words import NONE, literal, moment

_GRANTABLE = (Scope.RUNS_WRITE, Scope.RUNS_READ, Scope.REVIEWS_READ, Scope.REVIEWS_DECIDE, Scope.SCHEDULES_READ)
_USUAL = [Scope.RUNS_WRITE, Scope.RUNS_READ]


async def _list(platform: Platform, who: Viewer) -> Sequence[ApiKeyView]:
    return await platform.tenants.list_keys(who.ctx)


def show() -> None:
    """The keys, newest first."""
    who = session.viewer()
    keys = sorted(session.ask(_list), key=lambda key: key.created_at, reverse=True)
    if st.button("New key", icon=":material/key:", key="new_key"):
        _issue()
    if not keys:
        st.info("No key yet. A program needs one to call `/api/v1`.", icon=":material/key:")
        return
    st.dataframe(
        pd.DataFrame(
            {
                "Label": [key.label for key in keys],
                "Key": [f"bw_{key.key_id}_…" for key in keys],
                "Rights": [", ".join(key.scopes) for key in keys],
                "Made": [moment(key.created_at, who.timezone) for key in keys],
                "Revoked": [moment(key.revoked_at, who.timezone) if key.revoked_at else NONE for key in keys],
            }
        ),
        hide_index=True,
    )
    alive = {key.key_id: key for key in keys if key.revoked_at is None}
    if alive:
        with st.container(horizontal=True, vertical_alignment="bottom"):
            chosen = st.selectbox(
                "Revoke", list(alive), format_func=lambda key_id: f"{alive[key_id].label} (bw_{key_id}_…)", width=420
            )
            if st.button("Revoke", icon=":material/key_off:", key="revoke_key") and chosen:
                _revoke(alive[chosen])


@st.dialog("New API key")
def _issue() -> None:
    label = st.text_input("What is it for?", key="key_label", max_chars=100)
    scopes = st.multiselect("Rights", list(_GRANTABLE), default=_USUAL, key="key_scopes")
    if not st.button("Issue", type="primary", disabled=not (label.strip() and scopes)):
        return
    try:
        key = session.ask(
            lambda platform, who: platform.tenants.issue_key(who.ctx, label, tuple(Scope(scope) for scope in scopes))
        )
    except BailiwickError as error:
        session.show_refusal(error)
        return
    st.success("Copy it now; it is never shown again.", icon=":material/content_copy:")
    st.code(key, language=None, wrap_lines=True)


@st.dialog("Revoke this key?")
def _revoke(key: ApiKeyView) -> None:
    st.write(f"Programs that use **{literal(key.label)}** are refused from now on. This cannot be undone.")
    if st.button("Revoke the key", type="primary", key="confirm_revoke"):
        session.act(lambda platform, who: platform.tenants.revoke_key(who.ctx, key.key_id), "The key is useless now.")
        st.rerun()

"""Big numbers that look alike on every screen."""

from __future__ import annotations

import streamlit as st

from ops_dashboard.words import NONE, literal


def tile(label: str, value: str, below: str, *, help_text: str | None = None, alarm: bool = False) -> None:
    """A number under its name, and in small what belongs to it; names in either are nobody's markup."""
    st.metric(
        label,
        literal(value),
        delta=literal(below or NONE),
        delta_color="red" if alarm else "off",
        delta_arrow="off",
        border=True,
        help=help_text,
    )

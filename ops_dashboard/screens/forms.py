"""Fields that several forms use."""

from __future__ import annotations

import json
from typing import Any
from zoneinfo import available_timezones

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from ops_dashboard.numbers import read


@st.cache_resource(show_spinner=False)
def _zones() -> list[str]:
    # What a machine calls its own zone is small: Postgres does not know it.
    return sorted(name for name in available_timezones() if name[0].isupper())


def zone_input(place: DeltaGenerator, chosen: str, key: str) -> str:
    """A time zone; typing narrows the list."""
    zones = _zones() if chosen in _zones() else [chosen, *_zones()]
    return place.selectbox("Time zone", zones, index=zones.index(chosen), key=key) or chosen


def whole_input(
    place: Any, label: str, value: float | None, key: str | None = None, **shape: Any
) -> int | float | None:
    """A whole number; a float when what is written is none, to be refused, and None when the field is empty.

    Without bounds: Streamlit shows what is beyond them, and goes on with what was there before.
    """
    given = None if value is None else float(value)
    return read(place.number_input(label, value=given, step=1.0, format="%g", key=key, **shape))


def json_input(label: str, document: dict[str, Any], key: str) -> dict[str, Any] | None:
    """A JSON object as text; None, with the fault shown, when what is written is none."""
    text = st.text_area(label, json.dumps(document, indent=2, ensure_ascii=False), key=key, height=160)
    try:
        value = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        st.error(f"This is no JSON: {error.msg} in line {error.lineno}.", icon=":material/error:")
        return None
    if not isinstance(value, dict):
        st.error("The input is a JSON object: {…}.", icon=":material/error:")
        return None
    return value

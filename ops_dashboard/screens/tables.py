"""Tables that look alike on every screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

ROW_PX = 33


def table(columns: Mapping[str, Any], config: Mapping[str, Any] | None = None, *, rows: int = 16) -> None:
    """A table to read, at most ``rows`` high; beyond that it scrolls."""
    frame = pd.DataFrame(dict(columns))
    st.dataframe(frame, hide_index=True, height=height_of(len(frame), rows), column_config=dict(config or {}))


def height_of(count: int, rows: int) -> int:
    """Pixels of a table with a heading and ``count`` rows, of which ``rows`` show at once."""
    return ROW_PX * (1 + max(1, min(count, rows))) + 2


def share_column(help_text: str | None = None) -> Any:
    """A bar from 0 to 100 %."""
    return st.column_config.ProgressColumn(format="percent", min_value=0.0, max_value=1.0, width=120, help=help_text)

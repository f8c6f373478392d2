"""Whole numbers as people write them. Pure.

Streamlit cuts what is written where it expects whole numbers: ``1e5`` and ``1.5`` are both 1 there. So every such field
takes numbers with a fraction, and what comes of it is read here.
"""

from __future__ import annotations

from core.errors import InvalidInput


def read(number: float | None) -> int | float | None:
    """1e5 is the whole number 100,000; what is none (1.5, or more than any number) stays what it is, to be refused."""
    return int(number) if number is not None and float(number).is_integer() else number


def whole(number: float | None, label: str) -> int | None:
    """The whole number in the field ``label``; None: it is empty. Raises ``InvalidInput`` for any other number."""
    value = read(number)
    if isinstance(value, float):
        raise InvalidInput(f"{label}: a whole number, not {value:,g}.")
    return value

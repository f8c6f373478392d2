"""Numbers and times as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from zoneinfo import ZoneInfo

NONE = "–"
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def duration(seconds: float | None) -> str:
    """Two significant units at most: ``850 ms``, ``4.2 s``, ``3 min 5 s``, ``2 h 10 min``, ``3 d 4 h``."""
    if seconds is None or seconds != seconds:  # noqa: PLR0124 - NaN is what a data frame makes of None
        return NONE
    if seconds < 1:
        return f"{round(seconds * 1000)} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for index, (size, name) in enumerate(_UNITS):
        if whole >= size:
            below_size, below_name = _UNITS[index + 1] if index + 1 < len(_UNITS) else (1, "s")
            rest = whole % size // below_size
            return f"{whole // size} {name}" + (f" {rest} {below_name}" if rest else "")
    return f"{whole} s"


def percent(share: float | None) -> str:
    """A share as a percentage; never rounds to 100 % what is less."""
    if share is None:
        return NONE
    value = share * 100
    return "99.9 %" if 99.9 <= value < 100 else f"{value:.0f} %" if value in {0, 100} else f"{value:.1f} %"


def count(number: float) -> str:
    """Thousands separated by a thin space."""
    return f"{number:,.0f}".replace(",", "\u202f")


def causes(waiting: Mapping[str, int]) -> str:
    """``review 3 · rate 12``, the most frequent first."""
    ordered = sorted(waiting.items(), key=lambda item: (-item[1], item[0]))
    return " · ".join(f"{cause.replace('_', ' ')} {number}" for cause, number in ordered if number) or NONE


def moment(at: datetime | None, timezone: str) -> str:
    """Date and time to the second in a zone."""
    return NONE if at is None else at.astimezone(ZoneInfo(timezone)).strftime("%Y-%m-%d %H:%M:%S")


def relative(at: datetime, now: datetime) -> str:
    """``in 3 min`` or ``3 min ago``."""
    seconds = (at - now).total_seconds()
    return f"in {duration(seconds)}" if seconds >= 0 else f"{duration(-seconds)} ago"

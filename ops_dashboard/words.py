"""Numbers and times as people read them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from html import escape
from typing import Any
from zoneinfo import ZoneInfo

NONE = "–"
CAUSES = """Why a run does not execute. In the queue:
- *share*: all slots are taken, and it is the turn of others
- *cap*: its tenant, or its user or workflow there, executes as many as it may at once
- *paused*: its tenant, or the run itself, until somebody resumes it
- *no worker*: none is alive
- *no code*: no live worker has its version

Parked, without a slot:
- *review*: people must decide
- *timer*, *event*, *children*: a time, a message, or the runs it started
- *rate*: the next window of a rate limit
- *endpoint*: a model or service that does not answer
- *budget*: money"""
"""For the help of whatever shows causes."""
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
    """A share as a percentage; never rounds to 100 % what is less, nor to 0 % what is more."""
    if share is None:
        return NONE
    value = share * 100
    if 0 < value < 0.1:
        return "< 0.1 %"
    return "99.9 %" if 99.9 <= value < 100 else f"{value:.0f} %" if value in {0, 100} else f"{value:.1f} %"


def count(number: float) -> str:
    """Thousands separated by a thin space."""
    return f"{number:,.0f}".replace(",", "\u202f")


def causes(waiting: Mapping[str, int]) -> str:
    """``review 3 · rate 12``, the most frequent first."""
    ordered = sorted(waiting.items(), key=lambda item: (-item[1], item[0]))
    return " · ".join(f"{plain(cause)} {count(number)}" for cause, number in ordered if number) or NONE


def shares(seconds: Mapping[str, float]) -> str:
    """``cap 80 % · share 20 %``, the largest first; what is less than a hundredth is left out."""
    whole = sum(seconds.values())
    parts = [(value / whole, cause) for cause, value in seconds.items() if whole > 0 and value >= whole / 100]
    return " · ".join(f"{plain(cause)} {share:.0%}".replace("%", " %") for share, cause in sorted(parts)[::-1]) or NONE


def moment(at: datetime | None, timezone: str) -> str:
    """Date and time to the second in a zone."""
    return NONE if at is None else at.astimezone(ZoneInfo(timezone)).strftime("%Y-%m-%d %H:%M:%S")


def relative(at: datetime, now: datetime) -> str:
    """``in 3 min`` or ``3 min ago``; seconds only in the last minute, so that it stands still."""
    seconds = (at - now).total_seconds()
    distance = abs(seconds) if abs(seconds) < 60 else abs(seconds) // 60 * 60
    return f"in {duration(distance)}" if seconds >= 0 else f"{duration(distance)} ago"


def facts(document: Any, path: str = "") -> list[tuple[str, str]]:
    """A JSON document as (name, value) lines, nested names joined: what a person reads before a decision."""
    if isinstance(document, Mapping):
        return [
            line
            for name, value in document.items()
            for line in facts(value, f"{path} › {plain(name)}" if path else plain(name))
        ]
    if isinstance(document, list) and any(isinstance(item, Mapping | list) for item in document):
        return [line for index, item in enumerate(document, 1) for line in facts(item, f"{path} {index}")]
    return [(path, _value(document))]


def plain(name: object) -> str:
    """A name of ours as people write it: ``no worker``."""
    return str(name).replace("_", " ")


def literal(text: str) -> str:
    """The same text where Markdown is read: what others wrote is nobody's markup.

    Addresses in it stay links: these say where they lead.
    """
    escaped = re.sub(r"([\\`*_{}\[\]<>()#+.!|$~:&=/-])", r"\\\1", text)
    # Streamlit looks for its own pictures in what Markdown has unescaped: a joiner that nobody sees parts them.
    return re.sub(r"\\:(?=material\\_|streamlit\\:)", "\\\\:\u2060", escaped)


def code(text: str) -> str:
    """The same text as Markdown's code: letters of one width, and nobody's markup."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def badge(text: str, color: str) -> str:
    """The same text as a badge in Markdown; ``st.badge`` escapes brackets by itself, and nothing else."""
    return f":{color}-badge[{literal(text)}]"


def drawn(text: str) -> str:
    """The same text where Plotly reads tags."""
    return escape(text, quote=False)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == []:
        return NONE
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)

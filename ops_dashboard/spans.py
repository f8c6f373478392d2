"""How far back the plots look. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ops_dashboard.data import Window


@dataclass(frozen=True, slots=True)
class Span:
    """A window a person may choose: its name, its length, the width of a bucket in its plots."""

    name: str
    seconds: int
    bucket_s: int


HOUR: Final = Span("1 h", 3_600, 30)
SPANS: Final = (Span("5 min", 300, 10), Span("15 min", 900, 10), HOUR, Span("24 h", 86_400, 900))

AUTO: Final = "Auto"
"""What stands in the place of a name while nobody has chosen: the span is the one that fits."""


def named(name: str | None) -> Span | None:
    """The span of that name; None: there is none."""
    return next((span for span in SPANS if span.name == name), None)


def fitting(hour: Window) -> Span:
    """The shortest span that holds all that executed or was queued in an hour.

    In a wider one, the first minutes of an installation, or a burst after a quiet hour, are a sliver at the edge.
    """
    used, queued = hour.service_over_time, hour.depth_over_time
    busy = (*used["bucket"][used["worker_s"] > 0], *queued["bucket"][queued["queued"] > 0])
    age_s = (hour.until - min(busy, default=hour.until)).total_seconds()
    return next(span for span in SPANS if age_s <= span.seconds)

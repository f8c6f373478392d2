"""Arithmetic of operations: fairness, shares, SLA. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from core.queue.shares import jain

JAIN_FORMULA = (
    "Jain's index J = (Σx)² / (n · Σx²), where x is a tenant's worker-seconds in the window divided by its weight "
    "and n counts the tenants with demand (something queued or running at any moment of the window). "
    "J = 1: all alike; J = 1/n: one tenant got everything."
)
CORRELATION = (
    "Does one tenant's spike move another's waits? For each pair: Spearman's rank correlation, over the moments of the "
    "window, between how many runs of the first are queued and how long runs of the second waited (p95). A spike is "
    "when at least half as many were queued as at its height, and at least 10. Near 0: the second noticed nothing. "
    "Near 1, with longer waits in the spike: they share a bottleneck, or the second wants more than its share."
)
SPIKE, POINTS = 10, 8
"""Queued runs that make a spike, and moments that make a correlation."""

CONTENDING_SHARE = 0.5
"""A tenant contends when it had runs queued for at least this share of the longest backlog of the window."""


@dataclass(frozen=True, slots=True)
class Service:
    """What one tenant got in a window: worker-seconds, its weight, and for how long it had runs queued."""

    tenant_id: str
    worker_s: float
    weight: float
    backlog_s: float

    @property
    def normalised(self) -> float:
        """Worker-seconds per unit of weight: what fairness makes equal among those who want more."""
        return self.worker_s / self.weight


@dataclass(frozen=True, slots=True)
class Fairness:
    """Jain's index of a window: over all tenants with demand, and over those that contended (None: fewer than two)."""

    overall: float | None
    tenants: int
    contending: float | None
    contenders: int


def fairness(services: Iterable[Service]) -> Fairness:
    """Both indices of a window. ``services`` holds the tenants with demand, and no others.

    A tenant that wanted little and got it pulls the first index down although nobody was treated badly; the
    second leaves it out: it compares only tenants whose backlogs lasted about as long as the longest one.
    """
    every = list(services)
    longest_s = max((s.backlog_s for s in every), default=0.0)
    contending = [s.normalised for s in every if 0 < s.backlog_s >= CONTENDING_SHARE * longest_s]
    among = jain(contending) if len(contending) > 1 else None
    return Fairness(jain(s.normalised for s in every), len(every), among, len(contending))


def ratio(part: float, whole: float) -> float | None:
    """part / whole; None when there is no whole."""
    return part / whole if whole > 0 else None


@dataclass(frozen=True, slots=True)
class Correlation:
    """How the waits of ``on`` went with the queue of ``of``: ``r`` from -1 to 1 over ``points`` moments, and the p95 of
    the waits, in seconds, while that queue was short and in its spike."""

    of: str
    on: str
    r: float
    points: int
    calm_s: float
    spike_s: float

    @property
    def moved(self) -> bool:
        """Whether somebody would say that the one's spike was felt by the other."""
        return self.r >= 0.5 and self.spike_s >= 2 * self.calm_s and self.spike_s - self.calm_s >= 1


def correlations(depth: pd.DataFrame, waits: pd.DataFrame) -> list[Correlation]:
    """Of every pair for which there are enough moments, those that moved and the highest first.

    ``depth``: tenant_id, bucket, queued. ``waits``: tenant_id, bucket, wait_p95_s.
    """
    if depth.empty or waits.empty:
        return []
    queued = depth.pivot_table(index="bucket", columns="tenant_id", values="queued", aggfunc="sum").fillna(0.0)
    # Counted at the beginnings of buckets, while waits are told of all that is in one: what counts is the longer queue.
    later = queued.shift(-1, fill_value=0.0)
    queued = queued.where(queued >= later, later)
    waited = waits.pivot_table(index="bucket", columns="tenant_id", values="wait_p95_s", aggfunc="max")
    pairs = [
        _correlation(of, on, queued[of], waited[on])
        for of in queued.columns
        for on in waited.columns
        if of != on and queued[of].max() >= SPIKE
    ]
    return sorted((pair for pair in pairs if pair is not None), key=lambda pair: (not pair.moved, -pair.r, pair.of))


def _correlation(of: str, on: str, queued: pd.Series, waited: pd.Series) -> Correlation | None:
    both = pd.DataFrame({"queued": queued, "waited": waited}).dropna()
    spike = both["queued"] >= max(SPIKE, both["queued"].max() / 2)
    if len(both) < POINTS or spike.all() or not spike.any():
        return None
    r = both["queued"].rank().corr(both["waited"].rank()) if both["waited"].nunique() > 1 else 0.0
    return Correlation(
        str(of), str(on), float(r), len(both), both["waited"][~spike].median(), both["waited"][spike].median()
    )

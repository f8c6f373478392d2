"""Arithmetic of operations: fairness, shares, SLA. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from core.queue.shares import jain

JAIN_FORMULA = (
    "Jain's index J = (Σx)² / (n · Σx²), where x is a tenant's worker-seconds in the window divided by its weight "
    "and n counts the tenants with demand (something queued or running at any moment of the window). "
    "J = 1: all alike; J = 1/n: one tenant got everything."
)
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

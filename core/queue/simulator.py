"""A day of the fair queue in seconds: ``core.queue.fairness`` driven by arrivals on a clock that jumps.

A scenario says who asks for what and when; ``simulate`` plays it against the production decisions with no database
and no waiting, and the outcome says who waited how long and who got how many worker-seconds. A start costs
nothing here: what a real machine adds (its latency, its noise) is what the benchmarks measure on the same scenarios.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from core.queue.fairness import Terms
from core.queue.model import HEADROOM


@dataclass(frozen=True, slots=True)
class Arrival:
    """One run: when it is submitted and how long it will hold a slot, in seconds."""

    at_s: float
    tenant: str
    duration_s: float
    workflow: str = "job"
    user: str = ""
    lane: int = 1


@dataclass(frozen=True, slots=True)
class Scenario:
    """Who asks for what, and with what it is served.

    ``arrivals`` are in order of time; the scenario stops at ``ends_s`` whatever is still queued. Its figures count
    from ``measured_from_s`` on. ``workers`` holds the slots of each worker.
    """

    name: str
    terms: Mapping[str, Terms]
    arrivals: tuple[Arrival, ...]
    workers: tuple[int, ...]
    ends_s: float
    measured_from_s: float = 0.0
    headroom: float = HEADROOM

    @property
    def slots(self) -> int:
        """Slots of all workers."""
        return sum(self.workers)

    def compressed(self, factor: float) -> Scenario:
        """The same scenario ``factor`` times as fast: every moment and every duration divided by it."""
        return replace(
            self,
            arrivals=tuple(
                replace(one, at_s=one.at_s / factor, duration_s=one.duration_s / factor) for one in self.arrivals
            ),
            ends_s=self.ends_s / factor,
            measured_from_s=self.measured_from_s / factor,
        )

    def without(self, *tenants: str) -> Scenario:
        """The same scenario with these tenants silent."""
        return replace(self, arrivals=tuple(one for one in self.arrivals if one.tenant not in tenants))

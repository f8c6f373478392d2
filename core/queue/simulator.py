"""A day of the fair queue in seconds: ``core.queue.fairness`` driven by arrivals on a clock that jumps.

A scenario says who asks for what and when; ``simulate`` plays it against the production decisions with no database
and no waiting, and the outcome says who waited how long and who got how many worker-seconds. A start costs
nothing here: what a real machine adds (its latency, its noise) is what the benchmarks measure on the same scenarios.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby

from core.queue.fairness import FairQueue
from core.queue.model import HEADROOM
from core.queue.rows import Run, Start, Terms
from core.queue.shares import jain


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


@dataclass(frozen=True, slots=True)
class Use:
    """A run that got a slot; moments are seconds of the scenario. ``ended_s`` None: still executing at the end."""

    arrival: Arrival
    start: Start
    started_s: float
    ended_s: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a scenario: the runs that started, in the order in which they did, and how many never did."""

    scenario: Scenario
    uses: tuple[Use, ...]
    left_queued: int

    def waits_s(self, tenants: Collection[str] | None = None) -> list[float]:
        """How long runs submitted since ``measured_from_s`` waited, of some tenants or all."""
        return [one.start.waited_s for one in self._measured(tenants)]

    def latencies_s(self, tenants: Collection[str] | None = None) -> list[float]:
        """Submission to end of the same runs; those that did not end are left out."""
        return [one.ended_s - one.arrival.at_s for one in self._measured(tenants) if one.ended_s is not None]

    def late(self, limit_s: float) -> set[str]:
        """Tenants of which a run took longer than this from submission to end, or has by the end of the scenario."""
        ends_s = {use.start.run_id: use.ended_s for use in self.uses}
        return {
            one.tenant
            for number, one in enumerate(self.scenario.arrivals)
            if (ends_s.get(str(number)) or self.scenario.ends_s) - one.at_s > limit_s
        }

    def served_s(self, from_s: float, to_s: float) -> dict[str, float]:
        """Worker-seconds of each tenant between two moments; a run counts for the part of it that lies between."""
        served = dict.fromkeys(self.scenario.terms, 0.0)
        for use in self.uses:
            ended_s = to_s if use.ended_s is None else use.ended_s
            served[use.arrival.tenant] += max(0.0, min(ended_s, to_s) - max(use.started_s, from_s))
        return served

    def busy(self) -> float:
        """The share of all slots' time, since ``measured_from_s``, in which they executed something."""
        from_s, to_s = self.scenario.measured_from_s, self.scenario.ends_s
        return sum(self.served_s(from_s, to_s).values()) / (self.scenario.slots * (to_s - from_s))

    def fairness(self, from_s: float, to_s: float) -> float | None:
        """Jain's index of worker-seconds per weight between two moments, over all tenants."""
        served = self.served_s(from_s, to_s)
        return jain(served[name] / terms.weight for name, terms in self.scenario.terms.items())

    def _measured(self, tenants: Collection[str] | None) -> Iterator[Use]:
        for use in self.uses:
            if use.arrival.at_s >= self.scenario.measured_from_s and (tenants is None or use.arrival.tenant in tenants):
                yield use


def simulate(scenario: Scenario) -> Outcome:
    """Play a scenario. A slot that becomes free and a run that is submitted are seen at once, by every worker."""
    return _Play(scenario).outcome()


def quantile(values: Collection[float], share: float) -> float:
    """The least value that at least this share of the values does not exceed; of none: 0."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


class _Play:
    """One run of a scenario: what executes now, and when each of it ends."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._queue = FairQueue()
        self._free = {f"worker-{number}": slots for number, slots in enumerate(scenario.workers)}
        self._ends: list[tuple[int, int, str]] = []
        self._uses: list[Use] = []
        self._again: float = math.inf

    def outcome(self) -> Outcome:
        """From the first arrival to the end of the scenario."""
        for worker, slots in self._free.items():
            self._queue.heartbeat(worker, slots, 0)
        for name, terms in self._scenario.terms.items():
            self._queue.policy(name, terms, 0)
        last = _micros(self._scenario.ends_s)
        groups = groupby(enumerate(self._scenario.arrivals), key=lambda one: _micros(one[1].at_s))
        for at, group in groups:
            self._run_until(min(at, last))
            if at >= last:
                break
            self._submit(list(group), at)
        self._run_until(last)
        uses = tuple(
            replace(use, ended_s=use.started_s + use.arrival.duration_s)
            if use.start.run_id not in self._queue.slots
            else use
            for use in self._uses
        )
        return Outcome(self._scenario, uses, len(self._queue.entries))

    def _submit(self, group: list[tuple[int, Arrival]], at: int) -> None:
        for tenant, runs in groupby(group, key=lambda one: one[1].tenant):
            self._queue.push(tenant, [Run(str(number), one.workflow, one.user, one.lane) for number, one in runs], at)
        self._claim(at)

    def _run_until(self, until: int) -> None:
        """Let runs end, and what they made room for start, up to a moment; and what the queue only put off."""
        while (now := min(self._ends[0][0] if self._ends else math.inf, self._again)) <= until:
            now = int(now)
            while self._ends and self._ends[0][0] == now:
                _, number, worker = heapq.heappop(self._ends)
                self._queue.release(str(number), now)
                self._free[worker] += 1
            self._claim(now)

    def _claim(self, now: int) -> None:
        self._again = math.inf
        for worker in [one for one, free in self._free.items() if free]:
            self._queue.heartbeat(worker, self._free[worker], now)
            starts = self._queue.claim(worker, self._free[worker], self._scenario.headroom, now)
            self._free[worker] -= len(starts)
            if self._queue.again_us is not None:
                self._again = min(self._again, self._queue.again_us)
            for start in starts:
                number = int(start.run_id)
                arrival = self._scenario.arrivals[number]
                self._uses.append(Use(arrival, start, now / 1e6, None))
                heapq.heappush(self._ends, (now + _micros(arrival.duration_s), number, worker))


def _micros(seconds: float) -> int:
    return round(seconds * 1e6)

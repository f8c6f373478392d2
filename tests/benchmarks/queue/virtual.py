"""The rows measured on a clock of their own: fair shares, long against short, the Monday morning, a real day.

The simulator plays each seed in full, and so does a queue that is first come, first served. Of the first seed the
SQL of production plays a part, and must start the same runs at the same moments as the simulator: so what is said of
the one holds for the other. ``play`` runs in a process of its own and returns plain numbers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.queue.simulator import Outcome, Scenario, quantile, simulate
from tests.benchmarks import scenarios
from tests.benchmarks.queue.drive import first_come, micros, through_the_queue
from tests.benchmarks.queue.trace import alone, inside_their_share, minutes_of, real_day
from tests.benchmarks.scenarios import MONDAY_SLA_S, NOISY, STEADY

Figures = dict[str, float]

START_S = 0.15
"""The wait a quiet tenant may notice (the noisy neighbour's target): below it a ratio of two waits says nothing.

Alone on the machine most tenants of the trace never wait, so that 1.5 times their wait is zero.
"""

SHARES, MINUTE = "Jain's index over the run", "Jain's index, worst minute"
LONG_WAIT, LONG_SHARE = "quiet p99 wait", "long runs' share beside its weight"
LATE, P95 = "tenants that miss the SLA", "p95 of the others, burst day / quiet day"
WORSE, WORST = "tenants worse off than alone", "worst p99 wait inside the share"


@dataclass(frozen=True, slots=True)
class Size:
    """How much of each situation is played. Times are those of the story."""

    share_minutes: int
    long_s: float
    monday_hours: float
    trace_slots: int
    trace_minutes: int


FULL = Size(share_minutes=10, long_s=1_200.0, monday_hours=2.0, trace_slots=300, trace_minutes=5)
PART = Size(share_minutes=1, long_s=90.0, monday_hours=0.6, trace_slots=40, trace_minutes=2)
"""What the SQL plays: some 40,000 runs."""


@dataclass(frozen=True, slots=True)
class Part:
    """What the SQL came to in its part, and whether the simulator did the same in it."""

    figures: Figures
    runs: int
    agrees: bool


@dataclass(frozen=True, slots=True)
class Played:
    """What one situation and seed came to, and the story of the Monday morning for its plot."""

    situation: str
    seed: int
    ours: Figures
    fifo: Figures
    sql: Part | None
    latencies: dict[str, list[tuple[float, float]]]


def play(situation: str, seed: int, full: Size, part: Size, data: Path, dsns: tuple[str, str] | None) -> Played:
    """Play a situation; a part of it in the empty migrated database at these addresses (owner, runtime role)."""
    scenario, figures = SITUATIONS[situation](seed, full, data)
    ours, fifo = simulate(scenario), first_come(scenario)
    latencies = {"ours": _latencies(ours), "FIFO": _latencies(fifo)} if situation == "monday" else {}
    sql = _part(*SITUATIONS[situation](seed, part, data), dsns) if dsns else None
    return Played(situation, seed, figures(ours), figures(fifo), sql, latencies)


def _part(scenario: Scenario, figures: Callable[[Outcome], Figures], dsns: tuple[str, str]) -> Part:
    outcome, twin = asyncio.run(through_the_queue(*dsns, scenario)), simulate(scenario)
    starts = [(int(use.start.run_id), micros(use.started_s)) for use in outcome.uses]
    agrees = starts == [(int(use.start.run_id), micros(use.started_s)) for use in twin.uses]
    return Part(figures(outcome), len(outcome.uses), agrees)


Situation = tuple[Scenario, Callable[[Outcome], Figures]]


def _shares(seed: int, size: Size, data: Path) -> Situation:
    def figures(outcome: Outcome) -> Figures:
        minutes = [outcome.fairness(60.0 * at, 60.0 * at + 60) or 0.0 for at in range(size.share_minutes)]
        return {SHARES: outcome.fairness(0, 60.0 * size.share_minutes) or 0.0, MINUTE: min(minutes)}

    return scenarios.weighted_shares(seed, slots=60, minutes=size.share_minutes), figures


def _long(seed: int, size: Size, data: Path) -> Situation:
    def figures(outcome: Outcome) -> Figures:
        # The first long runs tell how long they are: shares count from when they are known.
        served = outcome.served_s(outcome.scenario.ends_s / 5, outcome.scenario.ends_s)
        share = served[NOISY] / (served[NOISY] + served[STEADY])
        quiet = waits(outcome, {NOISY, STEADY}, others=True)
        return {LONG_WAIT: quantile(quiet, 0.99), LONG_SHARE: 100 * abs(share - 0.5)}

    return scenarios.long_against_short(seed, ends_s=size.long_s), figures


def _monday(seed: int, size: Size, data: Path) -> Situation:
    scenario = scenarios.monday_morning(seed, hours=size.monday_hours)
    others = scenario.terms.keys() - {NOISY}
    usual = quantile(first_come(scenario.without(NOISY)).latencies_s(), 0.95)

    def figures(outcome: Outcome) -> Figures:
        late = {
            use.arrival.tenant for use in outcome.uses if use.ended_s and use.ended_s - use.arrival.at_s > MONDAY_SLA_S
        }
        return {LATE: len(late - {NOISY}), P95: quantile(outcome.latencies_s(others), 0.95) / usual}

    return scenario, figures


def _trace(seed: int, size: Size, data: Path) -> Situation:
    scenario = real_day(minutes_of(data), seed, slots=size.trace_slots, minutes=size.trace_minutes)
    inside = inside_their_share(scenario)
    usual = {name: quantile(first_come(alone(scenario, name)).waits_s(), 0.99) for name in inside}

    def figures(outcome: Outcome) -> Figures:
        p99 = {name: quantile(waits(outcome, {name}), 0.99) for name in inside}
        worse = [name for name, wait_s in p99.items() if wait_s > max(1.5 * usual[name], START_S)]
        return {WORSE: len(worse), WORST: max(p99.values())}

    return scenario, figures


SITUATIONS: dict[str, Callable[[int, Size, Path], Situation]] = {
    "shares": _shares,
    "long": _long,
    "monday": _monday,
    "trace": _trace,
}


def waits(outcome: Outcome, tenants: set[str], *, others: bool = False) -> list[float]:
    """Waits of some tenants, or of all others; what never started waited until the end at least."""
    scenario = outcome.scenario
    tenants = scenario.terms.keys() - tenants if others else tenants
    started = {id(use.arrival) for use in outcome.uses}
    never = [
        scenario.ends_s - one.at_s
        for one in scenario.arrivals
        if one.tenant in tenants and id(one) not in started and one.at_s < scenario.ends_s
    ]
    return outcome.waits_s(tenants) + never


def _latencies(outcome: Outcome) -> list[tuple[float, float]]:
    """When each run of the others was submitted, and seconds to its end."""
    return [
        (use.arrival.at_s, use.ended_s - use.arrival.at_s)
        for use in outcome.uses
        if use.arrival.tenant != NOISY and use.ended_s is not None
    ]

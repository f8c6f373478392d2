"""A real day: minutes of 100 serverless functions, each a tenant (Azure Functions, 2019)."""

from __future__ import annotations

import csv
import random
from collections import defaultdict
from pathlib import Path

from core.queue.rows import Terms
from core.queue.shares import Claimant, max_min
from core.queue.simulator import Arrival, Scenario

LOAD = 1.5
"""The day's mean load, as a multiple of what all slots serve: half of it is the largest tenant's."""

_MEAN_S = 1.0


def minutes_of(path: Path) -> list[list[int]]:
    """Invocations by minute, one list for each function, the largest function first."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [
            [int(count) for name, count in row.items() if name.startswith("minute_")] for row in csv.DictReader(file)
        ]
    return sorted(rows, key=sum, reverse=True)


def real_day(counts: list[list[int]], seed: int, *, slots: int, minutes: int) -> Scenario:
    """Some minutes of the day, from a minute that the seed picks; tenants of equal weight.

    The trace counts by minute and says nothing of durations: a minute's invocations are placed at random within
    it and last 1 s in the mean, exponentially. Counts are multiplied, so that the whole day is ``LOAD`` times what
    the slots can serve. How many slots there are matters: a tenant alone on the machine has all of them for its own
    bursts, so the fewer there are, the more a burst must wait beside others.
    """
    rng = random.Random(seed)
    times = LOAD * slots * 60 / _MEAN_S * len(counts[0]) / sum(map(sum, counts))
    first = rng.randrange(len(counts[0]) - minutes)
    arrivals = []
    for function, by_minute in enumerate(counts):
        for minute, count in enumerate(by_minute[first : first + minutes]):
            for _ in range(int(count * times + rng.random())):
                at_s = 60 * (minute + rng.random())
                arrivals.append(Arrival(at_s, f"function-{function:02}", rng.expovariate(1 / _MEAN_S)))
    arrivals.sort(key=lambda one: one.at_s)
    terms = {f"function-{function:02}": Terms() for function in range(len(counts))}
    return Scenario("a real day", terms, tuple(arrivals), (slots,), 60.0 * minutes)


def inside_their_share(scenario: Scenario) -> set[str]:
    """Tenants that in no minute ask for more than their max-min fair share of the slots."""
    inside = {arrival.tenant for arrival in scenario.arrivals}
    for minute in range(round(scenario.ends_s / 60)):
        wanted: defaultdict[str, float] = defaultdict(float)
        for arrival in scenario.arrivals:
            if minute <= arrival.at_s / 60 < minute + 1:
                wanted[arrival.tenant] += arrival.duration_s / 60
        shares = max_min(scenario.slots, {name: Claimant(wants, 1.0) for name, wants in wanted.items()})
        inside -= {name for name, wants in wanted.items() if shares[name] < wants}
    return inside


def alone(scenario: Scenario, tenant: str) -> Scenario:
    """The same machine with nobody but this tenant."""
    return scenario.without(*(name for name in scenario.terms if name != tenant))

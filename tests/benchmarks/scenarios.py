"""The fair queue's situations: the same for the simulator, which plays them in seconds, and for real servers.

Each is made by a function of a seed; the same seed makes the same arrivals. Times are those of the story;
``Scenario.compressed`` makes a story faster.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from core.queue.rows import Terms
from core.queue.simulator import Arrival, Scenario

NOISY = "noisy"
"""The tenant that floods the queue."""

STEADY = "steady"
"""A tenant as backlogged as the noisy one, with short runs."""

MONDAY_SLA_S = 300.0
"""Submission to end, in the Monday morning: its runs last 45 s."""


def weighted_shares(seed: int, *, slots: int = 100, minutes: int = 5) -> Scenario:
    """50 tenants with weights 1 to 8 and mean runs of 0.05 to 5 s, all backlogged from the beginning to the end.

    Means are spread geometrically and dealt to the tenants by the seed; single durations are exponential.
    """
    rng = random.Random(seed)
    names = [f"tenant-{number:02}" for number in range(50)]
    means = [0.05 * 100 ** (number / 49) for number in range(50)]
    rng.shuffle(means)
    weights = {name: 1.0 + number % 8 for number, name in enumerate(names)}
    ends_s = 60.0 * minutes
    arrivals: list[Arrival] = []
    for name, mean_s in zip(names, means, strict=True):
        share_s = ends_s * slots * weights[name] / sum(weights.values())
        needed_s = 1.3 * share_s + 30 * mean_s
        while needed_s > 0:
            arrivals.append(Arrival(0.0, name, max(0.001, rng.expovariate(1 / mean_s))))
            needed_s -= arrivals[-1].duration_s
    terms = {name: Terms(weight=weights[name]) for name in names}
    return Scenario("weighted shares", terms, tuple(arrivals), _workers(slots), ends_s)


def noisy_neighbour(seed: int, *, queued: int = 100_000, ends_s: float = 300.0) -> Scenario:
    """20 slots and runs of 0.5 s (within a tenth): one tenant with 100,000 queued, 20 quiet ones at 4/s together."""
    rng = random.Random(seed)
    arrivals = [Arrival(0.0, NOISY, _about(rng, 0.5)) for _ in range(queued)]
    arrivals += [Arrival(at_s, _quiet(rng, 20), _about(rng, 0.5)) for at_s in _poisson(rng, 4.0, ends_s)]
    return Scenario("noisy neighbour", _alike(20, NOISY), tuple(arrivals), _workers(20), ends_s, measured_from_s=10.0)


def long_against_short(seed: int, *, ends_s: float = 1_200.0) -> Scenario:
    """100 slots: one tenant backlogged with runs of 34 s, one of the same weight with runs of 1 s, 20 quiet ones.

    The quiet ones submit one run of 1 s a second together.
    """
    rng = random.Random(seed)
    arrivals = [Arrival(0.0, NOISY, _about(rng, 34.0)) for _ in range(int(ends_s * 100 / 34))]
    arrivals += [Arrival(0.0, STEADY, _about(rng, 1.0)) for _ in range(int(ends_s * 100))]
    arrivals += [Arrival(at_s, _quiet(rng, 20), _about(rng, 1.0)) for at_s in _poisson(rng, 1.0, ends_s)]
    return Scenario("long against short", _alike(20, NOISY, STEADY), tuple(arrivals), _workers(100), ends_s)


def monday_morning(seed: int, *, hours: float = 2.0) -> Scenario:
    """200 tenants with 50 runs of 45 s in 8 hours each, on 100 slots; one of them submits 5,000 more in 30 minutes.

    The burst begins after a quarter of an hour. No cap helps the others: the noisy tenant may hold every slot.
    """
    rng = random.Random(seed)
    ends_s = hours * 3600.0
    arrivals = [
        Arrival(at_s, _quiet(rng, 199), _about(rng, 45.0)) for at_s in _poisson(rng, 199 * 50 / 28_800.0, ends_s)
    ]
    arrivals += [Arrival(rng.uniform(900.0, 2_700.0), NOISY, _about(rng, 45.0)) for _ in range(5_000)]
    arrivals.sort(key=lambda one: one.at_s)
    return Scenario("Monday morning", _alike(199, NOISY), tuple(arrivals), _workers(100), ends_s)


def _quiet(rng: random.Random, count: int) -> str:
    return f"quiet-{rng.randrange(count):03}"


def _alike(quiet: int, *others: str) -> dict[str, Terms]:
    return {name: Terms() for name in (*(f"quiet-{number:03}" for number in range(quiet)), *others)}


def _workers(slots: int) -> tuple[int, ...]:
    """Workers of 20 slots each."""
    return (20,) * (slots // 20)


def _about(rng: random.Random, mean_s: float) -> float:
    return mean_s * rng.uniform(0.9, 1.1)


def _poisson(rng: random.Random, per_s: float, ends_s: float) -> Iterator[float]:
    """Moments of independent arrivals."""
    at_s = rng.expovariate(per_s)
    while at_s < ends_s:
        yield at_s
        at_s += rng.expovariate(per_s)

"""How slots are divided when not everybody can have what they want: weighted max-min shares, Jain's index. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Claimant:
    """Somebody who wants a part: of how much, and with which weight (above 0)."""

    wants: float
    weight: float


def max_min(capacity: float, claimants: Mapping[str, Claimant]) -> dict[str, float]:
    """What each gets of ``capacity`` when nobody gets more than they want and the rest goes by weight.

    Those who want less than their weight's part get what they want; what they leave is divided among the others,
    again by weight. The parts add up to ``capacity``, or to all that is wanted when that is less.
    """
    shares: dict[str, float] = {}
    left = max(0.0, capacity)
    # From the most modest upwards: whoever is content leaves the rest to those after them.
    order = sorted(claimants, key=lambda name: (claimants[name].wants / claimants[name].weight, name))
    weights = _suffix_sums([claimants[name].weight for name in order])
    for name, weight_left in zip(order, weights, strict=True):
        one = claimants[name]
        shares[name] = min(one.wants, left * one.weight / weight_left)
        left -= shares[name]
    return shares


def jain(values: Iterable[float]) -> float | None:
    """Jain's index (Σx)²/(n·Σx²): 1 when all are alike; None when there are no values or nobody got anything."""
    xs = list(values)
    squares = sum(x * x for x in xs)
    return sum(xs) ** 2 / (len(xs) * squares) if squares > 0 else None


def _suffix_sums(values: Sequence[float]) -> list[float]:
    sums, total = [], 0.0
    for value in reversed(values):
        total += value
        sums.append(total)
    return sums[::-1]

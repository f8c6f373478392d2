"""The numbers of steps: the same in every execution of a run, however the branches of a ``gather`` overtake each other.

Branches take their numbers in turn, as cards are dealt. Of three branches that begin after step 4:

    first    5   8  11     Which step of which branch has a number does not depend on which of them is quick. Where a
    second   6   9         branch has fewer steps than others, its numbers stay free. When all have ended, it goes on
    third    7  10         behind the last turn that any of them took, here with 14.

A branch may have branches itself: these share what is its own in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial


class Numbers:
    """The numbers of the steps of a workflow, or of one branch of it. ``of``: which one the nth (from 1) has."""

    def __init__(self, of: Callable[[int], int] = int) -> None:
        self._of = of
        self.taken = 0

    def take(self) -> int:
        """The number of the next step."""
        self.taken += 1
        return self._of(self.taken)

    def deal(self, count: int) -> list[Numbers]:
        """The numbers of so many branches, from here on."""
        return [Numbers(partial(self._dealt, self.taken, count, place)) for place in range(1, count + 1)]

    def _dealt(self, before: int, count: int, place: int, nth: int) -> int:
        return self._of(before + (nth - 1) * count + place)

    def collect(self, branches: Sequence[Numbers]) -> None:
        """The branches have ended: go on behind them."""
        self.taken += len(branches) * max((branch.taken for branch in branches), default=0)

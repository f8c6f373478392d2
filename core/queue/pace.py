"""The pace of claims where runs are short, in place of slots that are kept free. Pure; part of ``core.queue.fairness``.

A slot kept free costs work, and where runs are short nobody needs it: another is about to be given back. What a quiet
tenant needs there is that slots do not come back all at once, as they do after a backlog took them all at once. So
while claims charge so little that a slot comes back every ``_SOON_S`` or oftener, the headroom is lent, and each claim
keeps the next open ones away, for ``_SPACING`` of the mean time between two ends: one into the headroom, too, so that
the slot that it took is kept free again before the backlog has its next. Claims outside the headroom may run ahead of
that by ``_CREDIT_US``. Whoever may have the headroom never waits for it, and a free slot that is put off waits for
``_LONGEST_US`` at most: what is farther away, because a clock went back, is nothing. Where the numbers are from:
core/decisions/0013.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_SOON_S = 0.035
_QUICK_S = 0.7
_SPACING = 0.9
_CREDIT_US = 100_000
_LONGEST_US = 128_000
_SMOOTHING = 0.1


@dataclass(slots=True)
class Pace:
    """The recent mean of what claims charged, in seconds, and until when they have been spaced out."""

    mean_s: float
    until_us: int = 0

    def opens_us(self, free: int, total: int, reserved: int, now: int) -> float:
        """When a free slot is anybody's: at once, or in its turn, or never, because it is kept."""
        if not self._quick(total):
            return -math.inf if free > reserved else math.inf
        return self._until_us(now) - (_CREDIT_US if free > reserved else 0)

    def claimed(self, estimate_s: float, total: int, now: int) -> None:
        """A claim was charged this much; it keeps the next open ones away."""
        self.mean_s += _SMOOTHING * (estimate_s - self.mean_s)
        self.until_us = self._until_us(now)
        if self._quick(total):
            space_us = round(1e6 * (_SPACING * self.mean_s / total))
            self.until_us = min(max(self.until_us, now) + space_us, now + _LONGEST_US)

    def _until_us(self, now: int) -> int:
        return self.until_us if self.until_us <= now + _LONGEST_US else now

    def _quick(self, total: int) -> bool:
        return self.mean_s <= min(_QUICK_S, _SOON_S * total)

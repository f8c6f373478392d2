"""How often a step is tried."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a step is tried, and how long apart: exponential back-off with full jitter, in seconds.

    After the first failure it is anything up to ``initial_s``, after each further one anything up to twice as much as
    before, at most ``max_s``: of many runs that fail together no two come back together. Between two attempts the run
    keeps its slot. Raises ``ValueError`` for fewer than one attempt.
    """

    attempts: int = 1
    initial_s: float = 0.2
    max_s: float = 10.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError("A step is tried at least once.")

    def pause_s(self, failures: int) -> float:
        """Seconds from the nth failure (from 1) to the next attempt."""
        longest_s = min(self.max_s, self.initial_s * 2.0 ** min(failures - 1, 64))
        return random.uniform(0.0, longest_s)  # noqa: S311 - no secret

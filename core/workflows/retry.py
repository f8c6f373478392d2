"""How often a step is tried."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a step is tried, and how long apart: exponential back-off with jitter, in seconds.

    Between two attempts the run keeps its slot. Raises ``ValueError`` for fewer than one attempt.
    """

    attempts: int = 1
    initial_s: float = 0.2
    max_s: float = 10.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError("A step is tried at least once.")

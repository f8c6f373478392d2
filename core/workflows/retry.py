"""How often a step is tried."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a step is tried, and how long apart: exponential back-off with jitter, in seconds."""

    attempts: int = 1
    initial_s: float = 0.2
    max_s: float = 10.0

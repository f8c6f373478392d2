"""What an attempt of a step spends."""

from __future__ import annotations


class StepMeter:
    """Adds up the spending of one attempt, in micro-USD, against the estimate reserved for it."""

    def __init__(self, estimate_microusd: int) -> None:
        self.estimate_microusd = estimate_microusd
        self.cost_microusd = 0
        self.model: str | None = None
        self._told = False

    def charge(self, amount_microusd: int, model: str | None = None) -> None:
        """Spend. Raises ``ValueError`` for a negative amount."""
        if amount_microusd < 0:
            raise ValueError("A charge cannot be negative.")
        self._told = True
        self.cost_microusd += amount_microusd
        self.model = model or self.model

    def settle_at_estimate(self) -> None:
        """The step succeeded: one that never said what it spent has spent its estimate."""
        if not self._told:
            self.cost_microusd = self.estimate_microusd

"""What an attempt of a step spends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from core.errors import BudgetExceeded
from core.usage.model import not_covered


class StepMeter:
    """Adds up the spending of one attempt, in micro-USD, against what is reserved for it.

    ``more(part, amount)`` reserves more when the estimate, which nobody has declared, turns out to be too small; None:
    the author has said what the step may cost, and it is never exceeded.
    """

    def __init__(self, estimate_microusd: int, more: Callable[[int, int], Awaitable[None]] | None = None) -> None:
        self.estimate_microusd = estimate_microusd
        self.reserved_microusd = estimate_microusd
        self.cost_microusd = 0
        self.model: str | None = None
        self.cover_more = None if more is None else partial(self._cover_more, more)
        self._parts = 0
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

    async def _cover_more(self, more: Callable[[int, int], Awaitable[None]], amount_microusd: int) -> None:
        """Reserve more. Raises ``BudgetExceeded`` that says what all of the attempt needs, because it begins anew."""
        self._parts += 1
        try:
            await more(self._parts, amount_microusd)
        except BudgetExceeded as error:
            whole = self.reserved_microusd + amount_microusd
            raise not_covered(str(error.details["account"]), int(error.details["limit_microusd"]), whole) from None
        self.reserved_microusd += amount_microusd

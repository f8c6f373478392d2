"""The meter of a step: everything the step spends is paid from its reservation."""

from __future__ import annotations

from core.models.meter import ModelCall
from core.runs.execution import Executing, RunExecution, ledger_key


class StepMeter:
    """Adds up what one attempt spends; tops the reservation up before model calls would overrun it."""

    def __init__(self, execution: RunExecution, on: Executing, step: int, attempt: int, reserved: int) -> None:
        self._execution = execution
        self._on = on
        self._key = ledger_key(on.run_id, step, attempt)
        self._estimate = reserved
        self._reserved = reserved
        self._promised = 0
        self._told = False
        self.keys: tuple[str, ...] = (self._key,) if reserved else ()
        self.cost_microusd = 0
        self.model: str | None = None

    def charge(self, amount_microusd: int) -> None:
        """Spend on something other than a model."""
        if amount_microusd < 0:
            raise ValueError("A charge cannot be negative.")
        self._told = True
        self.cost_microusd += amount_microusd

    def settle_at_estimate(self) -> None:
        """The step succeeded: one that never said what it spent has spent its estimate."""
        if not self._told:
            self.cost_microusd = self._estimate

    async def before(self, estimate_microusd: int) -> None:
        """Make sure that the reservation covers one call more. Raises ``BudgetExceeded``."""
        lacking = self.cost_microusd + self._promised + estimate_microusd - self._reserved
        if lacking > 0:
            key = f"{self._key}+{len(self.keys)}"
            await self._execution.reserve_more(self._on, key, lacking)
            self.keys += (key,)
            self._reserved += lacking
        self._promised += estimate_microusd

    async def after(self, call: ModelCall) -> None:
        """Count what the call cost."""
        self._promised = 0
        self._told = True
        self.cost_microusd += call.cost_microusd
        self.model = call.model

    async def failed(self) -> None:
        """The call cost nothing."""
        self._promised = 0

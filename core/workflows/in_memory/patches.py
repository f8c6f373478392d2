"""Patch markers in memory; see ``core.runs.patches``."""

from __future__ import annotations

from core.runs.execution import Executing
from core.workflows.in_memory.records import RecordsInMemory


class PatchesInMemory:
    """The markers that the runs of one test have come to."""

    def __init__(self, records: RecordsInMemory) -> None:
        self._records = records
        self._taken: dict[tuple[str, str], bool] = {}

    async def patched(self, on: Executing, name: str, after_step: int) -> bool:
        """Whether the run takes the new way."""
        record = self._records.of(on.run_id)
        begun = max([one.step for one in record.attempts] + list(record.waits), default=0)
        return self._taken.setdefault((on.run_id, name), on.claim == 1 or begun <= after_step)

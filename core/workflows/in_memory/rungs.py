"""The degradation ladder in memory; see ``core.runs.rungs``."""

from __future__ import annotations

from dataclasses import dataclass

from core.runs.execution import Executing
from core.runs.rungs import RAISED
from core.tenancy import TenantContext
from core.usage.ladder import AccountKind, Taken
from core.workflows.in_memory.records import RecordsInMemory


@dataclass(frozen=True, slots=True)
class Climbed:
    """A rung that a run has taken; ``what`` is the rung, or how people answered, ``raised`` or ``stopped``."""

    step: int
    what: str
    account: AccountKind


class RungsInMemory:
    """What the ladder did to runs."""

    def __init__(self, records: RecordsInMemory) -> None:
        self._records = records
        self._climbed: dict[str, list[Climbed]] = {}

    def of(self, run_id: str) -> list[Climbed]:
        """The rungs of a run, in order."""
        return list(self._climbed.get(run_id, []))

    async def taken(self, on: Executing, step: int, name: str, taken: Taken) -> None:  # noqa: ARG002 - the shape of the room
        """The step is on this rung."""
        self._note(on, Climbed(step, taken.rung.value, taken.account))

    async def skip(self, on: Executing, step: int, name: str, kind: str, taken: Taken) -> None:
        """The step is skipped, for good."""
        await self.taken(on, step, name, taken)
        self._records.skip(on, step, name, kind)

    async def answered(self, on: Executing, step: int, name: str, taken: Taken, verdict: str, by: str) -> None:  # noqa: ARG002
        """Somebody who was asked has answered."""
        self._note(on, Climbed(step, verdict, taken.account))

    async def agreed(self, ctx: TenantContext, run_id: str) -> frozenset[AccountKind]:  # noqa: ARG002
        """The accounts about which people were asked in this run, and said to go on."""
        return frozenset(one.account for one in self._climbed.get(run_id, []) if one.what == RAISED)

    def _note(self, on: Executing, climbed: Climbed) -> None:
        self._climbed.setdefault(on.run_id, []).append(climbed)

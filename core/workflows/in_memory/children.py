"""Child runs in memory; see ``core.runs.children``. ``core.workflows.testing`` executes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from core.ids import RunId
from core.runs.children import ChildEnd, check_count, check_depth
from core.runs.execution import Executing, Wait
from core.runs.model import RunRequest, RunState
from core.workflows.in_memory.money import MoneyInMemory
from core.workflows.in_memory.records import RecordsInMemory


class Kin(Protocol):
    """A run in memory, as its family sees it."""

    state: RunState
    error: dict[str, Any] | None

    @property
    def run_id(self) -> RunId:
        """Its id."""
        ...

    @property
    def workflow(self) -> str:
        """What it executes."""
        ...

    @property
    def written(self) -> Any:
        """What it returned, as JSON."""
        ...


@dataclass(frozen=True, slots=True)
class Born:
    """A run that was spawned, and by which step of which run."""

    parent: str
    step: int
    run: Kin


class ChildrenInMemory:
    """Who spawned whom. ``start`` makes a run of a request, with at most so much to spend."""

    def __init__(self, records: RecordsInMemory, money: MoneyInMemory, start: Callable[[RunRequest, int], Kin]) -> None:
        self._records = records
        self._money = money
        self._start = start
        self._born: dict[str, Born] = {}

    def of(self, run_id: str) -> list[Kin]:
        """The runs that a run spawned, in order."""
        return [born.run for born in self._born.values() if born.parent == run_id]

    async def spawn(self, on: Executing, step: int, name: str, requests: Sequence[RunRequest]) -> list[str]:
        """Make the children and record the step. Raises ``InvalidInput``."""
        check_count(len(requests))
        check_depth(len(self._money.above(on.run_id)))
        balance = await self._money.balance(on.ctx, on.run_id, run_limit_microusd=on.budget_microusd)
        attempt = await self._records.begin_step(on, step, name, "spawn")
        run_ids: list[str] = []
        for request in requests:
            child = self._start(request, balance.left_microusd)
            self._born[child.run_id] = Born(on.run_id, step, child)
            self._money.hang(child.run_id, on)
            run_ids.append(child.run_id)
        await self._records.finish_step(on, step, attempt, run_ids, reserved=False)
        return run_ids

    async def ends(self, on: Executing, wait: Wait, of_step: int, run_ids: Sequence[str]) -> list[ChildEnd] | None:
        """How they ended; None: the run must park."""
        self._records.waited(on, wait)
        if self.awaits(on.run_id, of_step):
            await self._records.arm_wait(on, wait)
            return None
        ends = await self.stand(on, run_ids)
        self._records.of(on.run_id).waits.pop(wait.step, None)
        if all(end.state is RunState.SUCCEEDED for end in ends):
            self._records.finish_wait(on, wait.step, len(ends))
        return ends

    async def stand(self, on: Executing, run_ids: Sequence[str]) -> list[ChildEnd]:  # noqa: ARG002 - one tenant
        """How they stand."""
        runs = [self._born[run_id].run for run_id in run_ids]
        return [ChildEnd(run.run_id, run.workflow, run.state, run.written, run.error) for run in runs]

    def awaits(self, run_id: str, step: int) -> bool:
        """Whether a child that a step of a run spawned has not ended."""
        return any(
            born.parent == run_id and born.step == step and not born.run.state.final for born in self._born.values()
        )

"""Child runs in memory; see ``core.runs.children``. ``core.workflows.testing`` executes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from core.ids import RunId
from core.runs.children import ChildEnd, Look, Spawning, check_count, check_depth
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
    """Who spawned whom. ``start`` makes a run of a request, with at most so much to spend.

    ``_open_at``: how many children of a step were open when its run began to wait for any of them.
    """

    def __init__(self, records: RecordsInMemory, money: MoneyInMemory, start: Callable[[RunRequest, int], Kin]) -> None:
        self._records = records
        self._money = money
        self._start = start
        self._born: dict[str, Born] = {}
        self._open_at: dict[tuple[str, int], int] = {}

    def of(self, run_id: str) -> list[Kin]:
        """The runs that a run spawned, in order."""
        return [born.run for born in self._born.values() if born.parent == run_id]

    async def look(self, on: Executing, spawning: Spawning, wait: Wait) -> Look:
        """Which children may be spawned now; when none may, the wait ends with the next child that ends."""
        born = self._born_at(on.run_id, spawning.step)
        if not born:
            return Look(range(spawning.at_once))
        self._records.waited(on, wait)
        still_open = sum(not child.run.state.final for child in born)
        failed = any(child.run.state.final and child.run.state is not RunState.SUCCEEDED for child in born)
        if failed and not still_open:
            return Look(ends=await self.stand(on, [child.run.run_id for child in born]))
        room = range(len(born), min(len(born) + spawning.at_once - still_open, spawning.of))
        if room and not failed:
            return Look(room)
        self._records.of(on.run_id).waits.pop(wait.step, None)
        await self._records.arm_wait(on, wait if failed else replace(wait, key=f"{spawning.step}/any"))
        self._open_at[on.run_id, spawning.step] = still_open
        return Look()

    async def spawn(
        self, on: Executing, spawning: Spawning, numbers: Sequence[int], requests: Sequence[RunRequest]
    ) -> list[str] | None:
        """Make children and record how far the step is; the ids of all, when these were the last.

        Raises ``InvalidInput``.
        """
        check_count(len(requests))
        check_depth(len(self._money.above(on.run_id)))
        step, newest = spawning.step, self._records.of(on.run_id).newest(spawning.step)
        balance = await self._money.balance(on.ctx, on.run_id, run_limit_microusd=on.budget_microusd)
        if newest is not None and newest.state == "started":
            attempt = newest.attempt
        else:
            attempt = await self._records.begin_step(on, step, spawning.name, "spawn")
        for request in requests:
            child = self._start(request, balance.left_microusd)
            self._born[child.run_id] = Born(on.run_id, step, child)
            self._money.hang(child.run_id, on)
        run_ids: list[str] = [child.run.run_id for child in self._born_at(on.run_id, step)]
        if numbers[-1] + 1 < spawning.of:
            self._records.part_done()
            return None
        await self._records.finish_step(on, step, attempt, run_ids, reserved=False)
        return run_ids

    async def ends(self, on: Executing, wait: Wait, run_ids: Sequence[str]) -> list[ChildEnd] | None:
        """How they ended; None: the run must park."""
        self._records.waited(on, wait)
        self._records.of(on.run_id).waits.pop(wait.step, None)
        if not self.over(on.run_id, wait):
            await self._records.arm_wait(on, wait)
            return None
        ends = await self.stand(on, run_ids)
        if all(end.state is RunState.SUCCEEDED for end in ends):
            self._records.finish_wait(on, wait.step, len(ends))
        return ends

    async def stand(self, on: Executing, run_ids: Sequence[str]) -> list[ChildEnd]:  # noqa: ARG002 - one tenant
        """How they stand."""
        runs = [self._born[run_id].run for run_id in run_ids]
        return [ChildEnd(run.run_id, run.workflow, run.state, run.written, run.error) for run in runs]

    def over(self, run_id: str, wait: Wait) -> bool:
        """Whether what a run waits for has come: all children of a step have ended, or any of them since it waits."""
        step, _, any_of_them = (wait.key or "").partition("/")
        still_open = sum(not child.run.state.final for child in self._born_at(run_id, int(step)))
        return still_open < self._open_at[run_id, int(step)] if any_of_them else still_open == 0

    def _born_at(self, run_id: str, step: int) -> list[Born]:
        return [born for born in self._born.values() if (born.parent, born.step) == (run_id, step)]

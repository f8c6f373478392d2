"""Steps and waits in memory; see ``core.runs.execution``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from core.clock import FakeClock
from core.runs.execution import NO_TRY, Cancelled, Executing, Lost, Wait, ledger_key
from core.runs.model import Said, StepView
from core.workflows.in_memory.money import MoneyInMemory


@dataclass(frozen=True, slots=True)
class Ended:
    """How a step ended."""

    name: str
    result: Any
    error: dict[str, Any] | None
    undo: bool = False


@dataclass(slots=True)
class Record:
    """Everything that is written about one run."""

    attempts: list[StepView] = field(default_factory=list)
    ended: dict[int, Ended] = field(default_factory=dict)
    waits: dict[int, Wait] = field(default_factory=dict)
    progress: dict[str, Any] | None = None
    cancel_requested: bool = False
    compensating: dict[str, Any] | None = None
    undoable: set[int] = field(default_factory=set)
    said: list[Said] = field(default_factory=list)

    def newest(self, step: int) -> StepView | None:
        """The newest attempt of a step."""
        return next((one for one in reversed(self.attempts) if one.step == step), None)

    def close(self, step: int, attempt: int, **changes: Any) -> bool:
        """End an attempt; False when it was not open."""
        for at, one in enumerate(self.attempts):
            if (one.step, one.attempt, one.state) == (step, attempt, "started"):
                self.attempts[at] = replace(one, **changes)
                return True
        return False


class RecordsInMemory:
    """What is written about runs. ``lose``: each step that ends is the last one of its execution."""

    def __init__(self, clock: FakeClock, money: MoneyInMemory, *, lose: bool) -> None:
        self.events: dict[str, Any] = {}
        self._clock = clock
        self._money = money
        self._lose = lose
        self._records: dict[str, Record] = {}

    def of(self, run_id: str) -> Record:
        """What is written about a run."""
        return self._records.setdefault(run_id, Record())

    async def recorded(self, on: Executing, step: int) -> Ended | None:
        """How the step ended in an earlier execution of the run."""
        return self.of(on.run_id).ended.get(step)

    async def compensate(self, on: Executing, end: dict[str, Any]) -> dict[int, str]:
        """Begin to undo what the run did; the steps, undone or not, by name."""
        record = self.of(on.run_id)
        to_undo = {step: one.name for step, one in record.ended.items() if one.undo}
        if to_undo and record.compensating is None:
            record.compensating = end
            record.waits.clear()
        return to_undo

    async def begin_step(
        self, on: Executing, step: int, name: str, kind: str, estimate_microusd: int = 0, *, undo: bool = False
    ) -> int:
        """Open an attempt and reserve its estimate. Raises ``Cancelled`` and ``BudgetExceeded``."""
        if step > 0 and self.of(on.run_id).cancel_requested:
            raise Cancelled
        newest = self.of(on.run_id).newest(step)
        attempt = 1 if newest is None else newest.attempt + 1
        if estimate_microusd:
            self._money.reserve(on, ledger_key(on.run_id, step, attempt), estimate_microusd, beyond=step < 0)
        self._open(on, step, attempt, name, kind)
        if undo:
            self.of(on.run_id).undoable.add(step)
        return attempt

    async def reserve_more(self, on: Executing, step: int, attempt: int, part: int, amount_microusd: int) -> None:
        """Reserve more for an open attempt. Raises ``BudgetExceeded``."""
        self._money.reserve(on, f"{ledger_key(on.run_id, step, attempt)}/{part}", amount_microusd)

    async def redone(self, on: Executing, step: int) -> int:  # noqa: ARG002 - as RunExecution has it
        """How often the step was done and set aside: nobody retries a run here."""
        return 0

    async def tries(self, on: Executing, step: int) -> int:
        """Attempts of the step that failed."""
        attempts = [one for one in self.of(on.run_id).attempts if (one.step, one.state) == (step, "failed")]
        return len([one for one in attempts if (one.error or {}).get("code") not in NO_TRY])

    async def finish_step(
        self,
        on: Executing,
        step: int,
        attempt: int,
        result: Any,
        *,
        cost_microusd: int = 0,
        model: str | None = None,
        reserved: bool = True,
    ) -> None:
        """Record the result and settle the cost."""
        self._close(on, step, attempt, "done", reserved, cost_microusd=cost_microusd, model=model)
        record = self.of(on.run_id)
        record.ended[step] = Ended(_named(record, step), result, None, step in record.undoable)
        self._lost()

    async def fail_step(
        self,
        on: Executing,
        step: int,
        attempt: int,
        error: dict[str, Any],
        *,
        cost_microusd: int = 0,
        reserved: bool = True,
    ) -> None:
        """Record a failed attempt and settle what it cost."""
        self._close(on, step, attempt, "failed", reserved, cost_microusd=cost_microusd, error=error)

    def skip(self, on: Executing, step: int, name: str, kind: str) -> None:
        """The step is not performed, and answers with None."""
        newest = self.of(on.run_id).newest(step)
        attempt = 1 if newest is None else newest.attempt + 1
        self._open(on, step, attempt, name, kind)
        self.of(on.run_id).close(step, attempt, state="skipped", finished_at=self._clock.now())
        self.of(on.run_id).ended[step] = Ended(name, None, None)
        self._lost()

    async def fail_for_good(self, on: Executing, step: int, name: str, kind: str, error: dict[str, Any]) -> None:
        """Remember that the step is not tried again."""
        record = self.of(on.run_id)
        newest = record.newest(step)
        if newest is None:
            self._open(on, step, 1, name, kind)
        record.close(
            step, 1 if newest is None else newest.attempt, state="failed", error=error, finished_at=self._clock.now()
        )
        record.ended[step] = Ended(name, None, error)
        self._lost()

    async def arm_wait(self, on: Executing, wait: Wait) -> None:
        """Write what the run parks on; a wait that is armed stays as it is."""
        self.of(on.run_id).waits.setdefault(wait.step, wait)

    async def sleep(self, on: Executing, wait: Wait) -> bool:
        """Whether the timer has run out."""
        over = self.waited(on, wait)
        if over:
            self.finish_wait(on, wait.step, None)
        return over

    async def await_event(self, on: Executing, wait: Wait, name: str, key: str) -> dict[str, Any] | None:
        """``{"payload": …}`` of the event, ``{"timed_out": true}``, or None: the run must park."""
        ended = self.of(on.run_id).ended.get(wait.step)
        if ended is not None:
            answer: dict[str, Any] = ended.result
            return answer
        over, sent = self.waited(on, wait), f"{name}/{key}" in self.events
        if not over and not sent:
            return None
        result = {"payload": self.events[f"{name}/{key}"]} if sent else {"timed_out": True}
        self.finish_wait(on, wait.step, result)
        return result

    async def tell(self, on: Executing, said: Sequence[Said], progress: dict[str, Any] | None) -> None:
        """Write what the run says, and how far it is."""
        record = self.of(on.run_id)
        record.said += said
        record.progress = progress or record.progress

    def waited(self, on: Executing, wait: Wait) -> bool:
        """Arm a wait that is a step of its own, once; whether it is over."""
        record = self.of(on.run_id)
        newest = record.newest(wait.step)
        if newest is None or newest.state == "failed":
            self._open(on, wait.step, 1 if newest is None else newest.attempt + 1, wait.name, wait.cause.value)
            record.waits[wait.step] = wait
        elif newest.kind != wait.cause.value:
            raise RuntimeError(f"Step {wait.step} was {newest.name} and is {wait.name} now: the order has changed.")
        return wait.step not in record.waits

    def finish_wait(self, on: Executing, step: int, result: Any) -> None:
        """What was waited for is there."""
        record = self.of(on.run_id)
        record.waits.pop(step, None)
        newest = record.newest(step)
        if newest is not None and record.close(step, newest.attempt, state="done", finished_at=self._clock.now()):
            record.ended[step] = Ended(newest.name, result, None)

    def _open(self, on: Executing, step: int, attempt: int, name: str, kind: str) -> None:
        view = StepView(step, attempt, name, kind, "started", 0, None, self._clock.now(), None, None)
        self.of(on.run_id).attempts.append(view)

    def _close(self, on: Executing, step: int, attempt: int, state: str, reserved: bool, **changes: Any) -> None:
        now = self._clock.now()
        record, cost = self.of(on.run_id), changes["cost_microusd"]
        if record.close(step, attempt, state=state, finished_at=now, **changes) and (reserved or cost):
            key = ledger_key(on.run_id, step, attempt)
            if not reserved:
                self._money.reserve(on, key, cost, beyond=True)
            self._money.settle(key, cost)
            if state == "done":
                self._money.learn(_named(record, step), cost)

    def part_done(self) -> None:
        """A step has come further without having ended: its execution may be lost here, too."""
        self._lost()

    def _lost(self) -> None:
        if self._lose:
            raise Lost


def _named(record: Record, step: int) -> str:
    newest = record.newest(step)
    return "" if newest is None else newest.name

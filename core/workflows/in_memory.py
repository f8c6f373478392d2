"""What a run executes with when there is no server: lists instead of tables, a clock that is moved.

Each class keeps the promises of the room it stands for (``core.workflows.tools`` names them), for one tenant and
one process. ``tests/contract/test_workflow_tools.py`` holds both to the same scenarios.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import httpx

from core.clock import FakeClock
from core.errors import BudgetExceeded, InvalidInput, QuotaExceeded, StepFailed
from core.reviews.form import check_answer, check_form
from core.reviews.model import (
    ONE_PERSON,
    Case,
    Decider,
    ReviewState,
    Terms,
    Verdict,
    Vote,
    breach,
    check_decision,
    check_terms,
    vote,
)
from core.runs.execution import Executing, Lost, Wait, ledger_key
from core.runs.model import Cause, StepView
from core.tenancy import RateLimit, TenantContext
from core.usage.model import Balance, format_usd, month_of
from core.workflows.step import Rooms

Handler = Callable[[httpx.Request], httpx.Response] | Callable[[httpx.Request], Coroutine[None, None, httpx.Response]]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a step ended."""

    name: str
    result: Any
    error: dict[str, Any] | None


@dataclass(slots=True)
class Record:
    """Everything that is written about one run."""

    attempts: list[StepView] = field(default_factory=list)
    ended: dict[int, Ended] = field(default_factory=dict)
    waits: dict[int, Wait] = field(default_factory=dict)
    progress: dict[str, Any] | None = None

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


class MoneyInMemory:
    """The accounts of the runs and of the months."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._accounts: dict[str, Balance] = {}
        self._reserved: dict[str, tuple[tuple[str, str], int]] = {}

    def reserve(self, on: Executing, key: str, amount: int) -> None:
        """Promise money, of the month and of the run. Raises ``BudgetExceeded`` and promises nothing."""
        policy = on.ctx.policy
        month = f"month:{month_of(self._clock.now(), policy.timezone)}"
        known = self._accounts.get(month, Balance(0, 0, 0))
        self._accounts[month] = replace(known, limit_microusd=policy.budget_month_microusd)
        run = f"run:{on.run_id}"
        self._accounts.setdefault(run, Balance(on.budget_microusd, 0, 0))
        for name, account, limit in (
            ("month", month, policy.budget_month_microusd),
            ("run", run, on.budget_microusd),
        ):
            if self._accounts[account].left_microusd < amount:
                raise BudgetExceeded(
                    f"The {name}'s budget of {format_usd(limit)} does not cover {format_usd(amount)} more.",
                    account=name,
                    needed_microusd=amount,
                    limit_microusd=limit,
                )
        self._reserved[key] = ((month, run), amount)
        self._add((month, run), reserved=amount)

    def settle(self, key: str, spent: int) -> None:
        """Replace the promise by what was spent."""
        accounts, amount = self._reserved.pop(key)
        self._add(accounts, reserved=-amount, spent=spent)

    def _add(self, accounts: tuple[str, str], *, reserved: int, spent: int = 0) -> None:
        for account in accounts:
            now = self._accounts[account]
            self._accounts[account] = replace(
                now,
                reserved_microusd=now.reserved_microusd + reserved,
                spent_microusd=now.spent_microusd + spent,
            )

    async def balance(self, ctx: TenantContext, run_id: str | None = None) -> Balance:
        """The account of a run, or of the current month."""
        if run_id:
            return self._accounts.get(f"run:{run_id}", Balance(ctx.policy.budget_run_microusd, 0, 0))
        month = month_of(self._clock.now(), ctx.policy.timezone)
        return self._accounts.get(f"month:{month}", Balance(ctx.policy.budget_month_microusd, 0, 0))

    async def cover(self, ctx: TenantContext, run_id: str, limit_microusd: int, amount_microusd: int) -> None:  # noqa: ARG002 - the shape of the ledger
        """The run's limit now covers this amount more."""
        now = self._accounts.setdefault(f"run:{run_id}", Balance(limit_microusd, 0, 0))
        needed = now.reserved_microusd + now.spent_microusd + amount_microusd
        self._accounts[f"run:{run_id}"] = replace(now, limit_microusd=max(now.limit_microusd, needed))


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

    async def begin_step(self, on: Executing, step: int, name: str, kind: str, estimate_microusd: int = 0) -> int:
        """Open an attempt and reserve its estimate. Raises ``QuotaExceeded`` and ``BudgetExceeded``."""
        limit = on.ctx.policy.max_steps
        if step > limit:
            raise QuotaExceeded(f"A run has at most {limit} steps.", quota="max_steps", limit=limit)
        newest = self.of(on.run_id).newest(step)
        attempt = 1 if newest is None else newest.attempt + 1
        if estimate_microusd:
            self._money.reserve(on, ledger_key(on.run_id, step, attempt), estimate_microusd)
        self._open(on, step, attempt, name, kind)
        return attempt

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
        record.ended[step] = Ended(_named(record, step), result, None)
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

    async def fail_for_good(self, on: Executing, step: int, name: str, kind: str, error: dict[str, Any]) -> None:
        """Remember that the step is not tried again."""
        record = self.of(on.run_id)
        if record.newest(step) is None:
            self._open(on, step, 1, name, kind)
            record.close(step, 1, state="failed", error=error, finished_at=self._clock.now())
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

    async def progress(self, on: Executing, progress: dict[str, Any]) -> None:
        """Say how far the run is."""
        self.of(on.run_id).progress = progress

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
        if self.of(on.run_id).close(step, attempt, state=state, finished_at=now, **changes) and reserved:
            self._money.settle(ledger_key(on.run_id, step, attempt), changes["cost_microusd"])

    def _lost(self) -> None:
        if self._lose:
            raise Lost


def _named(record: Record, step: int) -> str:
    newest = record.newest(step)
    return "" if newest is None else newest.name


@dataclass(slots=True)
class Question:
    """A review that a run asked for. ``case`` is where it stands."""

    step: int
    title: str
    evidence: dict[str, Any]
    case: Case

    @property
    def open(self) -> bool:
        """Whether more votes are needed."""
        return self.case.state is ReviewState.OPEN


class ReviewsInMemory:
    """What runs asked people."""

    def __init__(self, clock: FakeClock, records: RecordsInMemory) -> None:
        self._clock = clock
        self._records = records
        self._asked: dict[str, dict[int, Question]] = {}

    def of(self, run_id: str) -> list[Question]:
        """What a run asked, in order of its steps."""
        return [question for _, question in sorted(self._asked.get(run_id, {}).items())]

    async def request(
        self,
        on: Executing,
        step: int,
        *,
        pool: str,
        title: str,
        evidence: dict[str, Any],
        choices: list[str],
        sla_s: float,
        cause: Cause = Cause.REVIEW,
        terms: Terms = ONE_PERSON,
    ) -> Verdict | None:
        """The decision; None: it is asked for. Raises ``InvalidInput``, and ``StepFailed`` when it expired."""
        check_terms(choices, terms)
        if terms.form is not None:
            check_form(terms.form)
        wait = Wait(step, f"review: {pool}", cause)
        if cause is Cause.REVIEW:
            self._records.waited(on, wait)
        due_at = self._clock.now() + timedelta(seconds=sla_s)
        asked = self._asked.setdefault(on.run_id, {})
        case = Case(tuple(choices), terms, pool, terms.role, due_at, due_at)
        case = asked.setdefault(step, Question(step, title, evidence, case)).case
        if case.state is ReviewState.OPEN:
            await self._records.arm_wait(on, wait)
            return None
        if case.verdict is None:
            raise StepFailed(f"Nobody decided in time: {title}", step=wait.name, cause="review_expired")
        if cause is Cause.REVIEW:
            self._records.finish_wait(on, step, {"verdict": case.verdict})
        return Verdict(case.verdict, case.comment or "", case.decided_by or "", case.answer)

    def decide(self, run_id: str, question: Question, cast: Vote, who: Decider) -> None:
        """One more vote. Raises ``InvalidInput`` and ``Conflict`` as for people."""
        check_decision(question.case.choices, cast.verdict, cast.comment)
        cast = replace(cast, answer=check_answer(question.case.terms.form, cast.answer))
        question.case = vote(question.case, who, cast, self._clock.now())
        self._wake(run_id, question)

    def escalate(self, run_id: str) -> None:
        """What becomes of reviews that nobody has decided by now."""
        for question in self.of(run_id):
            question.case = breach(question.case, "scheduler:reviews", self._clock.now())
            self._wake(run_id, question)

    def _wake(self, run_id: str, question: Question) -> None:
        if not question.open:
            self._records.of(run_id).waits.pop(question.step, None)


class WindowsInMemory:
    """Rate limits: the times of the calls that were made, or promised to those who wait."""

    def __init__(self) -> None:
        self._made: dict[str, list[datetime]] = {}
        self._promised: dict[str, dict[str | None, datetime]] = {}

    async def take(
        self,
        ctx: TenantContext,  # noqa: ARG002 - there is one tenant
        name: str,
        rate: RateLimit,
        now: datetime,
        *,
        holder: str | None = None,
    ) -> float:
        """0.0: the call is to be made now, else the seconds after which to ask again."""
        made, promised = self._made.setdefault(name, []), self._promised.setdefault(name, {})
        told = promised.pop(holder, None)
        times = sorted((*made, *promised.values()))
        free = now if len(times) < rate.limit else max(now, times[-rate.limit] + timedelta(seconds=rate.window_s))
        if told is not None and told >= now:
            free = told
        if free <= now:
            made.append(now)
        elif holder is not None:
            promised[holder] = free
        return (free - now).total_seconds()


class ServicesInMemory:
    """External services, each a function from request to response."""

    def __init__(self, handlers: Mapping[str, Handler], rooms: Rooms | None) -> None:
        self._rooms = rooms
        self._clients = {
            name: httpx.AsyncClient(transport=httpx.MockTransport(handler), base_url=f"http://{name}.test")
            for name, handler in handlers.items()
        }

    @property
    def rooms(self) -> Rooms:
        """What the test gave as the platform's own rooms. Raises ``InvalidInput`` when it gave none."""
        if self._rooms is None:
            raise InvalidInput("A step uses the platform's own rooms: give them as in_memory(..., rooms=...).")
        return self._rooms

    def client(self, service: str) -> httpx.AsyncClient:
        """The client of a service. Raises ``InvalidInput`` when the test gave none of that name."""
        if service not in self._clients:
            raise InvalidInput(f"A step calls {service}: give it as in_memory(..., services={{{service!r}: ...}}).")
        return self._clients[service]

    async def close(self) -> None:
        """Close every client."""
        for client in self._clients.values():
            await client.aclose()

"""``Run``: what a workflow function works with. Every method is a step with a number, counted from 1.

A step is executed inside the durable engine and recorded in our own tables; a run that goes on after a
wait, a crash or a deploy calls its function again from the top, and every step that finished answers with
its recorded result. So a workflow must make the same calls in the same order for the same input: keep
clocks, random numbers and I/O inside steps.

A step that must wait arms the wait, ends the execution with ``Parked`` and leaves neither slot nor task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

import stamina
from pydantic import BaseModel, TypeAdapter

from core.clock import Clock
from core.engine import JSON, Engine
from core.errors import BudgetExceeded, PayloadTooLarge
from core.redis.limits import Limits
from core.reviews.model import Verdict
from core.reviews.service import ReviewService
from core.runs.execution import Executing, RunExecution, Wait
from core.runs.model import MAX_INPUT_BYTES, Cause
from core.tenancy import TenantContext
from core.workflows.faults import Cancelled, Parked, describe, retryable, step_failed, written
from core.workflows.meter import StepMeter
from core.workflows.retry import Retry
from core.workflows.step import Services, Step

if TYPE_CHECKING:
    from agents import Agent

    from core.models.gateway import ModelGateway

Arg = TypeVar("Arg")
Result = TypeVar("Result")

_ONCE = Retry()
_SHORT_WAIT_S = 0.5
_PARK: JSON = {"park": True}


@dataclass(frozen=True, slots=True)
class Tools:
    """What the worker lends to every run it executes."""

    engine: Engine
    execution: RunExecution
    reviews: ReviewService
    limits: Limits
    models: ModelGateway
    services: Services
    clock: Clock


@dataclass(slots=True)
class Run:
    """One execution of a workflow, as its author sees it."""

    on: Executing
    workflow: str
    _tools: Tools
    _number: int = 0
    _outcome: str | None = None
    _cancelled: bool = False
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    @property
    def id(self) -> str:
        """The run's id."""
        return self.on.run_id

    @property
    def tenant(self) -> TenantContext:
        """For whom the run executes."""
        return self.on.ctx

    @property
    def ended_as(self) -> str | None:
        """What ``outcome`` was last told."""
        return self._outcome

    # Steps ----------------------------------------------------------------------------------------------

    async def step(
        self,
        function: Callable[[Step, Arg], Awaitable[Result]],
        argument: Arg,
        *,
        retry: Retry = _ONCE,
        timeout_s: float = 60.0,
        estimate: int = 0,
        name: str | None = None,
    ) -> Result:
        """Execute ``function(step, argument)`` once and remember its result.

        ``estimate`` (micro-USD) is reserved first. Retried are faults that may pass: timeouts, connection
        faults, HTTP 408/425/429/5xx and our own retryable errors. Raises ``StepFailed`` when it failed for
        good.
        """
        return await self._function("step", function, argument, retry, timeout_s, estimate, name)

    async def call(
        self,
        service: str,
        function: Callable[[Step, Arg], Awaitable[Result]],
        argument: Arg,
        *,
        retry: Retry = _ONCE,
        timeout_s: float = 60.0,
        estimate: int = 0,
        name: str | None = None,
    ) -> Result:
        """Like ``step``, under the tenant's rate limit for ``service``: beyond it the run waits for free."""

        async def gate(number: int) -> bool:
            return await self._may_call(service, number)

        return await self._function("call", function, argument, retry, timeout_s, estimate, name, gate)

    async def agent(
        self,
        agent: Agent[Step],
        argument: BaseModel | str,
        *,
        estimate: int,
        retry: Retry = _ONCE,
        timeout_s: float = 120.0,
        max_turns: int = 10,
    ) -> Any:
        """Run an agent to its final output, on a model that the tenant's policy allows.

        ``estimate`` (micro-USD) is reserved first and never exceeded; the real cost is settled with the
        result. Raises ``StepFailed``.
        """
        from core.workflows.agent_step import run_agent  # the SDK takes half a second to import

        text = argument if isinstance(argument, str) else argument.model_dump_json()
        output: TypeAdapter[Any] = TypeAdapter(_output_type(agent))

        async def action(step: Step) -> Any:
            models = self._tools.models.for_tenant(
                self.on.ctx, f"workflow:{self.workflow}", run_id=self.on.run_id, covered_microusd=estimate
            )
            try:
                return output.dump_python(await run_agent(agent, text, step, models, max_turns), mode="json")
            finally:
                step.meter.charge(models.spent_microusd, models.model_name())

        value = await self._perform("agent", agent.name, action, retry, timeout_s, estimate)
        return output.validate_python(value)

    # Waits ----------------------------------------------------------------------------------------------

    async def review(
        self,
        pool: str,
        *,
        title: str,
        evidence: BaseModel,
        choices: Sequence[str] = ("approve", "decline"),
        sla: float | None = None,
    ) -> Verdict:
        """Ask people. The run waits, for free, until one of ``choices`` is decided; ``sla`` in seconds."""
        number = self._next()
        sla_s = float(self.tenant.policy.review_sla_s) if sla is None else sla

        async def ask() -> JSON:
            verdict = await written(
                lambda: self._tools.reviews.request(
                    self.on,
                    number,
                    pool=pool,
                    title=title,
                    evidence=evidence.model_dump(mode="json"),
                    choices=list(choices),
                    sla_s=sla_s,
                )
            )
            return _PARK if verdict is None else {"value": TypeAdapter(Verdict).dump_python(verdict)}

        return TypeAdapter(Verdict).validate_python(await self._checkpoint(number, f"review: {pool}", ask))

    async def sleep(self, seconds: float) -> None:
        """Wait, for free."""
        number = self._next()
        wake_at = self._tools.clock.now() + timedelta(seconds=seconds)
        wait = Wait(number, f"sleep {seconds:g} s", Cause.TIMER, wake_at=wake_at)

        async def ask() -> JSON:
            over = await written(lambda: self._tools.execution.sleep(self.on, wait))
            return {"value": None} if over else _PARK

        await self._checkpoint(number, wait.name, ask)

    async def event(self, name: str, key: str, *, timeout_s: float) -> Any:
        """Wait, for free, for an event sent to this tenant; its payload. Raises ``TimeoutError``."""
        number = self._next()
        wake_at = self._tools.clock.now() + timedelta(seconds=timeout_s)
        wait = Wait(number, f"event: {name}", Cause.EVENT, key=f"{name}/{key}", wake_at=wake_at)

        async def ask() -> JSON:
            found = await written(lambda: self._tools.execution.await_event(self.on, wait, name, key))
            return _PARK if found is None else {"value": found}

        found = await self._checkpoint(number, wait.name, ask)
        if "payload" not in found:
            raise TimeoutError(f"No event {name}/{key} came within {timeout_s:g} s.")
        return found["payload"]

    # The rest -------------------------------------------------------------------------------------------

    async def gather(self, *steps: Coroutine[Any, Any, Any]) -> list[Any]:
        """Execute several steps at once; their results in order. Waits for all of them, then parks or fails."""
        results = await asyncio.gather(*steps, return_exceptions=True)
        faults = [result for result in results if isinstance(result, BaseException)]
        parked = [fault for fault in faults if isinstance(fault, Parked)]
        others = [fault for fault in faults if not isinstance(fault, Parked)]
        if others:
            raise others[0]
        if parked:
            raise min(parked, key=lambda fault: fault.step)
        return list(results)

    async def progress(self, done: int, total: int, note: str = "") -> None:
        """Tell the user interfaces how far the run is. Not a step: repeated when the run is."""
        await self._tools.execution.progress(self.on, {"done": done, "total": total, "note": note[:200]})

    def outcome(self, word: str) -> None:
        """Name how the run ends, e.g. ``declined``: lists and summaries go by it."""
        self._outcome = word

    def cancel(self) -> None:
        """Stop at once: what the current step awaits is cancelled, upstream calls are closed."""
        self._cancelled = True
        for task in self._tasks:
            task.cancel()

    # Inside ---------------------------------------------------------------------------------------------

    def _next(self) -> int:
        if self._cancelled:
            raise Cancelled
        self._number += 1
        return self._number

    async def _function(
        self,
        kind: str,
        function: Callable[[Step, Arg], Awaitable[Result]],
        argument: Arg,
        retry: Retry,
        timeout_s: float,
        estimate: int,
        name: str | None,
        gate: Callable[[int], Awaitable[bool]] | None = None,
    ) -> Result:
        result: TypeAdapter[Result] = TypeAdapter(get_type_hints(function).get("return", Any))

        async def action(step: Step) -> Any:
            return result.dump_python(await function(step, argument), mode="json")

        title = name or str(getattr(function, "__name__", kind))
        return result.validate_python(await self._perform(kind, title, action, retry, timeout_s, estimate, gate))

    async def _perform(
        self,
        kind: str,
        name: str,
        action: Callable[[Step], Awaitable[Any]],
        retry: Retry,
        timeout_s: float,
        estimate: int,
        gate: Callable[[int], Awaitable[bool]] | None = None,
    ) -> Any:
        number = self._next()

        async def attempts() -> JSON:
            try:
                if gate is not None and not await gate(number):
                    return _PARK
                async for attempt in stamina.retry_context(
                    on=retryable,
                    attempts=retry.attempts,
                    timeout=None,
                    wait_initial=retry.initial_s,
                    wait_max=retry.max_s,
                    wait_jitter=retry.initial_s,
                ):
                    with attempt:
                        return {"value": await self._attempt(number, kind, name, action, timeout_s, estimate)}
            except BudgetExceeded as error:
                return await self._short_of_money(number, error)
            except Cancelled:
                return {"cancelled": True}
            except Exception as error:
                return {"error": describe(error)}
            raise AssertionError("stamina makes at least one attempt")

        return await self._checkpoint(number, name, attempts)

    async def _attempt(
        self,
        number: int,
        kind: str,
        name: str,
        action: Callable[[Step], Awaitable[Any]],
        timeout_s: float,
        estimate: int,
    ) -> Any:
        execution = self._tools.execution
        start = await written(lambda: execution.begin_step(self.on, number, name, kind, estimate))
        if start.recorded:
            return start.result
        meter = StepMeter(estimate)
        step = Step(self.on.run_id, number, start.attempt, self.on.ctx, self._tools.services, meter)
        try:
            async with asyncio.timeout(timeout_s):
                value = await self._interruptible(action(step))
            _check_size(name, value)
            meter.settle_at_estimate()
        except (Exception, Cancelled) as error:
            what = describe(error) if isinstance(error, Exception) else {"code": "cancelled", "message": "Cancelled."}
            await written(
                lambda: execution.fail_step(self.on, number, start.attempt, what, cost_microusd=meter.cost_microusd)
            )
            raise
        await written(
            lambda: execution.finish_step(
                self.on, number, start.attempt, value, cost_microusd=meter.cost_microusd, model=meter.model
            )
        )
        return value

    async def _interruptible(self, action: Awaitable[Result]) -> Result:
        task = asyncio.ensure_future(action)
        self._tasks.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            if self._cancelled and task.cancelled():
                raise Cancelled from None
            task.cancel()
            raise
        finally:
            self._tasks.discard(task)

    async def _checkpoint(self, number: int, name: str, action: Callable[[], Awaitable[JSON]]) -> Any:
        envelope = await self._tools.engine.step(name, action)
        if "value" in envelope:
            return envelope["value"]
        if "park" in envelope:
            raise Parked(number)
        if "cancelled" in envelope:
            raise Cancelled
        raise step_failed(name, envelope["error"])

    async def _may_call(self, service: str, number: int) -> bool:
        rate = self.tenant.policy.rate_limits.get(service)
        if rate is None:
            return True
        while True:
            now = self._tools.clock.now()
            wait_s = await self._tools.limits.take(self.tenant, service, rate, now, holder=f"{self.on.run_id}/{number}")
            if wait_s <= 0:
                return True
            if wait_s > _SHORT_WAIT_S:
                arm = partial(self._tools.execution.arm_wait, self.on, number, Cause.RATE, key=service)
                await written(partial(arm, wake_at=now + timedelta(seconds=wait_s)))
                return False
            await asyncio.sleep(wait_s)

    async def _short_of_money(self, number: int, error: BudgetExceeded) -> JSON:
        account = str(error.details.get("account"))
        await written(lambda: self._tools.execution.arm_wait(self.on, number, Cause.BUDGET, key=account))
        return _PARK


def _output_type(agent: Agent[Step]) -> Any:
    return agent.output_type or str


def _check_size(name: str, value: Any) -> None:
    size = len(TypeAdapter(Any).dump_json(value))
    if size > MAX_INPUT_BYTES:
        raise PayloadTooLarge(f"Step {name} returned {size} bytes; at most {MAX_INPUT_BYTES} are kept.")

"""How one step is performed: wait for its turn, reserve, attempt, record.

    answered      its result, recorded now or in an earlier execution of the run
    StepFailed    it failed for good, now or in an earlier execution
    None          it is optional and the budget runs low: recorded as skipped
    Parked        something must be waited for: a rate window, money, a service; the wait is armed
    Cancelled     somebody cancelled the run
    HandedOver    this worker is to stop; another one performs the step
    Lost          another worker has the run

An attempt that a crash cut off leaves a started attempt and a reservation; the next one begins anew, under
the same idempotency key, and gives that reservation back.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any, NoReturn, TypeVar

import stamina
from pydantic import TypeAdapter

from core.errors import BudgetExceeded, EndpointDown, QuotaExceeded, Unavailable
from core.runs.execution import Cancelled, Executing, Wait
from core.runs.model import Began, Cause
from core.usage.ladder import Rung
from core.workflows.budgeting import Budgeting, Priced
from core.workflows.faults import HandedOver, Parked, describe, retryable, step_failed, written
from core.workflows.meter import StepMeter
from core.workflows.retry import Retry
from core.workflows.sizes import check_name, check_value
from core.workflows.step import Step
from core.workflows.telling import Teller
from core.workflows.tools import Ended, Tools

Result = TypeVar("Result")

_SHORT_WAIT_S = 0.5
_WITHOUT_REDIS_S = 5.0
_LOOK_AGAIN_S = 1.0
_CANCELLED = {"code": "cancelled", "message": "Cancelled."}
_CUT_OFF = {"code": "cut_off", "message": "The worker had to stop before it was done."}


async def _nothing(step: Step) -> None:  # noqa: ARG001 - the shape of an action
    return None


@dataclass(frozen=True, slots=True)
class Work:
    """What a step does. ``service``: the name of the rate limit it is under; ``estimate`` in micro-USD, None: learned.

    ``optional``: skipped when the budget runs low. ``cheaper``: a cheaper model may do it then; ``degraded``: it does.
    ``undo``: of its result, what undoes it.
    """

    kind: str
    name: str
    retry: Retry
    timeout_s: float
    estimate: int | None
    service: str | None = None
    action: Callable[[Step], Awaitable[Any]] = _nothing
    optional: bool = False
    cheaper: bool = False
    degraded: bool = False
    undo: Callable[[Any], Work] | None = None

    def read(self, result: TypeAdapter[Result], value: Any) -> Result | None:
        """A recorded result; an optional step that was skipped has none."""
        return None if self.optional and value is None else result.validate_python(value)


class Performer:
    """Performs the steps of one run.

    ``expired``: it was stopped because it had lasted too long; ``settled``: the end that was decided before this
    execution, if it was; ``undos``: what undoes the done steps that can be undone, by their numbers; ``undoing``: from
    now on undos are performed, whatever they cost and whoever wants the run to stop.
    """

    def __init__(self, tools: Tools, on: Executing, workflow: str) -> None:
        self.tools = tools
        self.workflow = workflow
        self.cancelled = False
        self.expired = False
        self.settled: dict[str, Any] | None = None
        self.undos: dict[int, Work] = {}
        self.undoing = False
        self.teller = Teller(tools.execution, on)
        self.on = on
        self._budgeting = Budgeting(tools, on)
        self._leaving = self._cut = False
        self._tasks: set[asyncio.Future[Any]] = set()
        self._pauses: set[asyncio.Future[Any]] = set()
        self._counted = 0
        self._beyond: set[int] = set()

    def count(self, number: int) -> int:
        """Count a step of the workflow, by whatever number; beyond the policy's ``max_steps`` it will fail."""
        self._counted += 1
        if self._counted > self.on.ctx.policy.max_steps:
            self._beyond.add(number)
        return number

    def cancel(self) -> None:
        """Stop what is awaited now, and perform nothing more, but for undos."""
        if not self.undoing:
            self.cancelled = True
            self._stop()

    def expire(self) -> None:
        """Stop likewise: the run has lasted too long."""
        self.expired = True
        self.cancel()

    def resume(self, began: Began, overlong: dict[str, Any] | None) -> None:
        """Be told of earlier executions, before this one begins.

        When they left an end to come, or the run has lasted too long, this one only finds the done steps again, and
        the run ends so whatever the function does.
        """
        self.settled = began.compensating or overlong
        if self.settled is not None or began.cancel_requested:
            self.cancel()

    async def unless_stopped(self, number: int) -> None:
        """Raise ``Cancelled`` when the run is to stop; steps that have ended answer all the same."""
        if self.cancelled and await self._recorded(number) is None:
            raise Cancelled

    async def _recorded(self, number: int) -> Ended | None:
        if self.on.claim == 1:
            return None
        return await written(lambda: self.tools.execution.recorded(self.on, number))

    def leave(self) -> None:
        """Begin no attempt any more, and end the pauses between two; what is awaited else may end."""
        self._leaving = True
        for task in self._pauses:
            task.cancel()

    def cut_off(self) -> None:
        """Stop what is awaited now, and begin no attempt any more."""
        self._leaving = self._cut = True
        self._stop()

    def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def perform(self, number: int, work: Work) -> Any:
        """The result of a step; the module says what it raises."""
        check_name("The name of a step", work.name)
        ended = await self.recorded(number, work.name)
        if ended is not None:
            if ended.undo:
                self._can_undo(number, work, ended.result)
            return ended.result
        return await self.or_for_good(number, work.name, work.kind, self._performed(number, work))

    async def recorded(self, number: int, name: str) -> Ended | None:
        """What an earlier execution recorded of the step.

        Raises ``StepFailed``, ``RuntimeError`` if it was another one, ``Cancelled`` if there is nothing and the run is
        to stop.
        """
        ended = await self._recorded(number)
        if ended is None and self.cancelled and not self.undoing:
            raise Cancelled
        if ended is not None and ended.name != name:
            raise RuntimeError(f"Step {number} was {ended.name} and is {name} now: the order has changed.")
        if ended is not None and ended.error is not None:
            raise step_failed(name, ended.error)
        return ended

    async def or_for_good(self, number: int, name: str, kind: str, attempts: Coroutine[Any, Any, Result]) -> Result:
        """What comes of the attempts; an error of theirs is recorded as the step's end and raised as ``StepFailed``.

        So is that there is one step too many: nothing is attempted then.
        """
        try:
            if number in self._beyond:
                attempts.close()
                limit = self.on.ctx.policy.max_steps
                raise QuotaExceeded(f"A run has at most {limit} steps.", quota="max_steps", limit=limit)
            return await attempts
        except Exception as error:
            what = describe(error)
            await written(lambda: self.tools.execution.fail_for_good(self.on, number, name, kind, what))
            raise step_failed(name, what) from error

    def _can_undo(self, number: int, work: Work, value: Any) -> None:
        if work.undo is not None:
            self.undos[number] = work.undo(value)

    async def _performed(self, number: int, work: Work) -> Any:
        estimate = work.estimate
        if estimate is None:
            estimate = await written(lambda: self.tools.usage.estimate(self.on.ctx, self.workflow, work.name))
        step = Priced(number, work.name, work.kind, estimate, work.optional, work.cheaper)
        taken = None if self.undoing else await self._budgeting.before(step)
        if taken is not None and taken.rung is Rung.SKIP:
            return None
        try:
            return await self._attempts(step, replace(work, degraded=taken is not None))
        except EndpointDown as error:
            await self._wait_for_service(number, error)
        except BudgetExceeded as error:
            if self.undoing:
                raise
            refusal = error
        await self._budgeting.refused(step, refusal)
        return await self._performed(number, work)

    async def _attempts(self, step: Priced, work: Work) -> Any:
        retry = work.retry
        left = retry.attempts
        if left > 1 and self.on.claim > 1:
            # A wait or a crash between two attempts gives no more of them.
            left = max(1, left - await written(lambda: self.tools.execution.tries(self.on, step.number)))
        if left == 1:
            return await self._attempt(step, work)
        failures = itertools.count(1)

        def pause_s(error: Exception) -> float | bool:
            return retryable(error) and retry.pause_s(next(failures))

        attempts = aiter(stamina.retry_context(on=pause_s, attempts=left, timeout=None))
        while True:
            with await self._interruptible(partial(anext, attempts), pause=True):
                return await self._attempt(step, work)

    async def _attempt(self, priced: Priced, work: Work) -> Any:
        if self._leaving:
            raise HandedOver
        number, estimate = priced.number, priced.estimate
        if work.service is not None:
            self._unless_down(work.service)
            await self._wait_for_turn(work.service, number)
        execution, on = self.tools.execution, self.on
        reserved, undo = estimate > 0, work.undo is not None
        attempt = await written(lambda: execution.begin_step(on, number, work.name, work.kind, estimate, undo=undo))
        meter = StepMeter(estimate, partial(self._more, number, attempt) if work.estimate is None else None)
        redone = await written(lambda: execution.redone(on, number)) if attempt > 1 else 0
        say = self.teller.emit
        step = Step(on.run_id, number, attempt, on.ctx, self.tools.services, meter, say, work.degraded, redone)
        try:
            async with asyncio.timeout(work.timeout_s):
                value = await self._interruptible(partial(work.action, step))
            check_value(f"Step {work.name} returned", value)
            meter.settle_at_estimate()
        except (Exception, Cancelled, HandedOver) as error:
            what = _why(error)
            await self.teller.write()
            await written(
                lambda: execution.fail_step(
                    on, number, attempt, what, cost_microusd=meter.cost_microusd, reserved=reserved
                )
            )
            raise
        await self.teller.write()
        await written(
            lambda: execution.finish_step(
                on, number, attempt, value, cost_microusd=meter.cost_microusd, model=meter.model, reserved=reserved
            )
        )
        self._can_undo(number, work, value)
        return value

    async def _more(self, number: int, attempt: int, part: int, amount_microusd: int) -> None:
        await written(lambda: self.tools.execution.reserve_more(self.on, number, attempt, part, amount_microusd))

    async def _interruptible(self, action: Callable[[], Awaitable[Result]], *, pause: bool = False) -> Result:
        """What comes of an action, or of a pause between two attempts; ``cancel`` and ``cut_off`` end it.

        ``leave`` ends a pause, too: nothing is under way, and another worker may try at once.
        """
        self._unless_gone(pause)
        task = asyncio.ensure_future(action())
        self._tasks.add(task)
        if pause:
            self._pauses.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            if task.cancelled():
                self._unless_gone(pause)
                if self.cancelled and not self.undoing:
                    raise Cancelled from None
            task.cancel()
            raise
        finally:
            self._tasks.discard(task)
            self._pauses.discard(task)

    def _unless_gone(self, pause: bool) -> None:
        if self._cut or (pause and self._leaving):
            raise HandedOver

    def _unless_down(self, service: str) -> None:
        """Raises ``EndpointDown`` before an attempt is begun, and a turn is taken, in vain."""
        if (after_s := self.tools.services.opens_in_s(service, self.on.ctx.tenant_id)) > 0:
            raise EndpointDown(f"The service {service} does not answer.", retry_after_s=after_s, service=service)

    async def _wait_for_service(self, number: int, error: EndpointDown) -> NoReturn:
        after_s = error.retry_after_s or _LOOK_AGAIN_S
        # Not all at the moment at which one of them may try.
        after_s += random.uniform(0, after_s / 2)  # noqa: S311
        service = str(error.details.get("service"))
        wake_at = self.tools.clock.now() + timedelta(seconds=after_s)
        await self.park(Wait(number, service, Cause.ENDPOINT, key=service, wake_at=wake_at))

    async def _wait_for_turn(self, service: str, number: int) -> None:
        rate = self.on.ctx.policy.rate_limits.get(service)
        while rate is not None:
            now = self.tools.clock.now()
            holder = f"{self.on.run_id}/{number}"
            try:
                wait_s = await self.tools.limits.take(self.on.ctx, service, rate, now, holder=holder)
            except Unavailable:
                wait_s = _WITHOUT_REDIS_S  # nobody counts: nothing may be called
            if wait_s <= 0:
                return
            if wait_s > _SHORT_WAIT_S:
                await self.park(Wait(number, service, Cause.RATE, key=service, wake_at=now + timedelta(seconds=wait_s)))
            await self.tools.pause(wait_s)

    async def park(self, wait: Wait) -> NoReturn:
        """Arm a wait that is no step of its own, and leave."""
        await written(partial(self.tools.execution.arm_wait, self.on, wait))
        raise Parked


def _why(stopped: BaseException) -> dict[str, Any]:
    if isinstance(stopped, Exception):
        return describe(stopped)
    return _CUT_OFF if isinstance(stopped, HandedOver) else _CANCELLED

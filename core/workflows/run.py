"""``Run``: what a workflow function works with. Every method is a step with a number, counted from 1.

A step is recorded when it ends; a run that goes on after a wait, a crash or a deploy calls its function again
from the top, and every step that finished answers with its recorded result. So a workflow must make the same calls
in the same order for the same input: keep clocks, random numbers and I/O inside steps.

A step that must wait arms the wait, ends the execution with ``Parked`` and leaves neither slot nor task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_type_hints, overload

from pydantic import BaseModel, TypeAdapter

from core.reviews.model import ONE_PERSON, Terms, Verdict
from core.runs.execution import Executing, Wait
from core.runs.model import Cause, Lane
from core.tenancy import ModelTier, TenantContext
from core.workflows.children import Child, Spawnable, brood, mapped, result_of, spawned_one
from core.workflows.faults import Parked, written
from core.workflows.performing import Performer, Work
from core.workflows.retry import Retry
from core.workflows.step import Step
from core.workflows.tools import Tools
from core.workflows.undoing import How, undo_of

if TYPE_CHECKING:
    from agents import Agent


Arg = TypeVar("Arg")
Result = TypeVar("Result")
Input = TypeVar("Input", bound=BaseModel)

_ONCE = Retry()


@dataclass(slots=True)
class Run:
    """One execution of a workflow, as its author sees it."""

    on: Executing
    workflow: str
    performer: Performer
    _number: int = 0
    _outcome: str | None = None

    @property
    def id(self) -> str:
        """The run's id."""
        return self.on.run_id

    @property
    def tenant(self) -> TenantContext:
        """For whom the run executes."""
        return self.on.ctx

    @property
    def _tools(self) -> Tools:
        return self.performer.tools

    @property
    def ended_as(self) -> str | None:
        """What ``outcome`` was last told."""
        return self._outcome

    # Steps ----------------------------------------------------------------------------------------------

    @overload
    async def step(
        self,
        function: Callable[[Step, Arg], Awaitable[Result]],
        argument: Arg,
        *,
        retry: Retry = ...,
        timeout_s: float = ...,
        estimate: int | None = ...,
        name: str | None = ...,
        undo: How[Arg, Result] | None = ...,
        optional: Literal[False] = ...,
    ) -> Result: ...

    @overload
    async def step(
        self,
        function: Callable[[Step, Arg], Awaitable[Result]],
        argument: Arg,
        *,
        retry: Retry = ...,
        timeout_s: float = ...,
        estimate: int | None = ...,
        name: str | None = ...,
        undo: How[Arg, Result] | None = ...,
        optional: Literal[True],
    ) -> Result | None: ...

    async def step(
        self,
        function: Callable[[Step, Arg], Awaitable[Result]],
        argument: Arg,
        *,
        retry: Retry = _ONCE,
        timeout_s: float = 60.0,
        estimate: int | None = 0,
        name: str | None = None,
        undo: How[Arg, Result] | None = None,
        optional: bool = False,
    ) -> Result | None:
        """Execute ``function(step, argument)`` once and remember its result.

        ``estimate`` (micro-USD; None: learned from what the step has cost) is reserved first. Retried are faults that
        may pass: timeouts, connection faults, HTTP 408/425/429/5xx and our own retryable errors. ``optional``: None,
        and nothing done, when the budget runs low (the policy's ``budget_skip_at``). ``undo``: called as
        ``undo(step, argument, result)`` when the run fails, is cancelled or lasts too long later. Raises
        ``StepFailed`` when it failed for good.
        """
        work = Work("step", name or "", retry, timeout_s, estimate, optional=optional)
        return await self._function(function, argument, work, undo)

    @overload
    async def call(
        self,
        service: str,
        function: Callable[[Step, Arg], Awaitable[Result]],
        argument: Arg,
        *,
        retry: Retry = ...,
        timeout_s: float = ...,
        estimate: int | None = ...,
        name: str | None = ...,
        undo: How[Arg, Result] | None = ...,
        optional: Literal[False] = ...,
    ) -> Result: ...

    @overload
    async def call(
        self,
        service: str,
        function: Callable[[Step, Arg], Awaitable[Result]],
        argument: Arg,
        *,
        retry: Retry = ...,
        timeout_s: float = ...,
        estimate: int | None = ...,
        name: str | None = ...,
        undo: How[Arg, Result] | None = ...,
        optional: Literal[True],
    ) -> Result | None: ...

    async def call(
        self,
        service: str,
        function: Callable[[Step, Arg], Awaitable[Result]],
        argument: Arg,
        *,
        retry: Retry = _ONCE,
        timeout_s: float = 60.0,
        estimate: int | None = 0,
        name: str | None = None,
        undo: How[Arg, Result] | None = None,
        optional: bool = False,
    ) -> Result | None:
        """Like ``step``, under the tenant's rate limit for ``service``: beyond it the run waits for free."""
        work = Work("call", name or "", retry, timeout_s, estimate, service=service, optional=optional)
        return await self._function(function, argument, work, undo)

    async def agent(
        self,
        agent: Agent[Step],
        argument: BaseModel | str,
        *,
        estimate: int | None = None,
        retry: Retry = _ONCE,
        timeout_s: float = 120.0,
        max_turns: int = 10,
        optional: bool = False,
        cheaper: bool = True,
    ) -> Any:
        """Run an agent to its final output, on a model that the tenant's policy allows.

        ``estimate`` (micro-USD) is reserved first and never exceeded; the real cost is settled with the result. None:
        what such a step costs is learned, and more is reserved when that turns out to be too little. ``optional``:
        None, and nothing done, when the budget runs low; before that, and unless ``cheaper`` is False, the cheapest
        model that the policy allows answers. Raises ``StepFailed``.
        """
        from core.workflows.agent_step import run_agent  # the SDK takes half a second to import

        text = argument if isinstance(argument, str) else argument.model_dump_json()
        output: TypeAdapter[Any] = TypeAdapter(_output_type(agent))

        async def action(step: Step) -> Any:
            models = self._tools.models.for_tenant(
                self.on.ctx,
                f"workflow:{self.workflow}",
                run_id=self.on.run_id,
                step=(step.number, step.attempt),
                covered_microusd=step.meter.estimate_microusd,
                cheapest=step.degraded,
                cover_more=step.meter.cover_more,
            )
            try:
                return output.dump_python(await run_agent(agent, text, step, models, max_turns), mode="json")
            finally:
                step.meter.charge(models.spent_microusd, models.model_name())

        choice = cheaper and self.tenant.policy.model_tier is ModelTier.LARGE and agent.model != ModelTier.SMALL
        work = Work("agent", agent.name, retry, timeout_s, estimate, action=action, optional=optional, cheaper=choice)
        return _read(output, await self._perform(work), work)

    # Waits ----------------------------------------------------------------------------------------------

    async def review(
        self,
        pool: str,
        *,
        title: str,
        evidence: BaseModel,
        choices: Sequence[str] = ("approve", "decline"),
        sla: float | None = None,
        terms: Terms = ONE_PERSON,
    ) -> Verdict:
        """Ask people. The run waits, for free, until one of ``choices`` is decided; ``sla`` in seconds.

        ``terms``: several voices, escalation, what happens when nobody decides, a form to fill in. Raises
        ``InvalidInput`` for terms that nobody could fulfil, ``StepFailed`` when they say that no decision is a failure.
        """
        number = await self._turn()
        sla_s = float(self.tenant.policy.review_sla_s) if sla is None else sla

        self.performer.asked = True
        verdict = await written(
            lambda: self._tools.reviews.request(
                self.on,
                number,
                pool=pool,
                title=title,
                evidence=evidence.model_dump(mode="json"),
                choices=list(choices),
                sla_s=sla_s,
                terms=terms,
            )
        )
        if verdict is None:
            raise Parked
        return verdict

    async def sleep(self, seconds: float) -> None:
        """Wait, for free."""
        number = await self._turn()
        wake_at = self._tools.clock.now() + timedelta(seconds=seconds)
        wait = Wait(number, f"sleep {seconds:g} s", Cause.TIMER, wake_at=wake_at)
        if not await written(lambda: self._tools.execution.sleep(self.on, wait)):
            raise Parked

    async def event(self, name: str, key: str, *, timeout_s: float) -> Any:
        """Wait, for free, for an event sent to this tenant; its payload. Raises ``TimeoutError``."""
        number = await self._turn()
        wake_at = self._tools.clock.now() + timedelta(seconds=timeout_s)
        wait = Wait(number, f"event: {name}", Cause.EVENT, key=f"{name}/{key}", wake_at=wake_at)
        found = await written(lambda: self._tools.execution.await_event(self.on, wait, name, key))
        if found is None:
            raise Parked
        if "payload" not in found:
            raise TimeoutError(f"No event {name}/{key} came within {timeout_s:g} s.")
        return found["payload"]

    # Child runs -----------------------------------------------------------------------------------------

    @overload
    async def spawn(
        self,
        workflow: Spawnable[Input, Result],
        argument: Input,
        *,
        lane: Lane | None = None,
        name: str | None = None,
    ) -> Child[Result]: ...

    @overload
    async def spawn(
        self, workflow: str, argument: BaseModel, *, lane: Lane | None = None, name: str | None = None
    ) -> Child[Any]: ...

    async def spawn(
        self,
        workflow: Spawnable[Any, Any] | str,
        argument: BaseModel,
        *,
        lane: Lane | None = None,
        name: str | None = None,
    ) -> Child[Any]:
        """Start another run, exactly once, and go on; ``result`` waits for it.

        It is a run of its own: in its own place in the queue, for the same tenant, user and thread. What it spends
        counts against this run's budget, too. It is cancelled when this run ends other than succeeded. ``workflow``:
        a definition, or the name of one that is installed with the workers. Raises ``StepFailed``.
        """
        return await spawned_one(self.performer, self.on, self._next(), brood(workflow, [argument], lane), name)

    async def result(self, child: Child[Result]) -> Result:
        """What a child returned; waits, for free, until it has ended. Raises ``ChildFailed`` if it did not succeed."""
        return await result_of(self.performer, self.on, self._next(), child)

    async def map(
        self,
        workflow: Spawnable[Input, Result],
        arguments: Sequence[Input],
        *,
        at_once: int | None = None,
        lane: Lane | None = None,
    ) -> list[Result]:
        """Start a run for each argument, wait for all of them, for free; what they returned, in order.

        ``at_once``: so many are open together, and when one ends the next begins; at most 1,000, which is also the most
        without it. Raises ``ChildFailed`` for the first that failed, after all that were started have ended;
        ``StepFailed``.
        """
        return await mapped(self.performer, self.on, self._next, brood(workflow, arguments, lane), at_once)

    # The rest -------------------------------------------------------------------------------------------

    async def gather(self, *steps: Coroutine[Any, Any, Any]) -> list[Any]:
        """Execute several steps at once; their results in order. Waits for all of them, then parks or fails."""
        results = await asyncio.gather(*steps, return_exceptions=True)
        faults = [result for result in results if isinstance(result, BaseException)]
        if faults:
            raise min(faults, key=_urgency)
        return list(results)

    async def progress(self, done: int, total: int, note: str = "") -> None:
        """Tell whoever looks on how far the run is; of several in 50 ms the last one counts.

        Not a step: repeated when the run is.
        """
        self.performer.teller.progress({"done": done, "total": total, "note": note[:200]})

    async def patched(self, name: str) -> bool:
        """Whether to go the new way at a change of this workflow (WRITING.md, "Change it safely"). Not a step."""
        return await written(lambda: self._tools.patches.patched(self.on, name, self._number))

    def outcome(self, word: str) -> None:
        """Name how the run ends, e.g. ``declined``: lists and summaries go by it."""
        self._outcome = word

    # Inside ---------------------------------------------------------------------------------------------

    def _next(self) -> int:
        self._number += 1
        return self._number

    async def _turn(self) -> int:
        number = self._next()
        await self.performer.unless_stopped(number)
        return number

    async def _function(
        self,
        function: Callable[[Step, Arg], Awaitable[Result]],
        argument: Arg,
        work: Work,
        undo: How[Arg, Result] | None,
    ) -> Result | None:
        result: TypeAdapter[Result] = _returned_by(function)

        async def action(step: Step) -> Any:
            return result.dump_python(await function(step, argument), mode="json")

        title = work.name or str(getattr(function, "__name__", work.kind))
        undone = None if undo is None else undo_of(undo, argument, result, title, work.service)
        return _read(result, await self._perform(replace(work, name=title, action=action, undo=undone)), work)

    async def _perform(self, work: Work) -> Any:
        return await self.performer.perform(self._next(), work)


def _read(result: TypeAdapter[Result], value: Any, work: Work) -> Result | None:
    """A recorded result; an optional step that was skipped has none."""
    return None if work.optional and value is None else result.validate_python(value)


def _urgency(fault: BaseException) -> int:
    """Of several, the one that counts: the execution is over, a step has failed, the run must park."""
    if isinstance(fault, Parked):
        return 2
    return 1 if isinstance(fault, Exception) else 0


@lru_cache(1_000)
def _returned_by(function: Callable[..., Any]) -> TypeAdapter[Any]:
    return TypeAdapter(get_type_hints(function).get("return", Any))


def _output_type(agent: Agent[Step]) -> Any:
    return agent.output_type or str

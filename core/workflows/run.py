"""``Run``: what a workflow function works with. Every method is a step with a number, counted from 1.

A step is recorded when it ends; a run that goes on after a wait, a crash or a deploy calls its function again
from the top, and every step that finished answers with its recorded result. So a workflow must make the same calls
in the same order for the same input: keep clocks, random numbers and I/O inside steps.

A step that must wait arms the wait, ends the execution with ``Parked`` and leaves neither slot nor task.

Here is what authors call; how it is done is in ``function_step``, ``agent_step``, ``waits`` and ``children``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import ContextVar
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from pydantic import BaseModel

from core.reviews.model import ONE_PERSON, Terms, Verdict
from core.runs.model import Lane
from core.tenancy import TenantContext
from core.workflows.children import Child, Spawnable, brood, mapped, result_of, spawned_one
from core.workflows.faults import Parked, written
from core.workflows.function_step import returned
from core.workflows.numbering import Numbers
from core.workflows.performing import Performer, Work
from core.workflows.retry import Retry
from core.workflows.sizes import check_words
from core.workflows.step import Step
from core.workflows.undoing import How
from core.workflows.waits import decided, payload_of, slept

if TYPE_CHECKING:
    from agents import Agent


Arg = TypeVar("Arg")
Result = TypeVar("Result")
Input = TypeVar("Input", bound=BaseModel)

_ONCE = Retry()
_BRANCH: ContextVar[tuple[Run | None, Numbers]] = ContextVar("branch", default=(None, Numbers()))


class Run:
    """One execution of a workflow, as its author sees it."""

    def __init__(self, performer: Performer) -> None:
        self.performer = performer
        self.ended_as: str | None = None
        self._numbers = Numbers()

    @property
    def id(self) -> str:
        """The run's id."""
        return self.performer.on.run_id

    @property
    def tenant(self) -> TenantContext:
        """For whom the run executes."""
        return self.performer.on.ctx

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
        """Execute ``function(step, argument)`` once and remember its result. ``timeout_s``: of each attempt.

        ``estimate`` (micro-USD; None: learned from what the step has cost) is reserved first. Retried are faults that
        may pass: timeouts, connection faults, HTTP 408/425/429/5xx and our own retryable errors. ``optional``: None,
        and nothing done, when the budget runs low (the policy's ``budget_skip_at``). ``undo``: called as
        ``undo(step, argument, result)`` when the run fails, is cancelled or lasts too long later. Raises
        ``StepFailed`` when it failed for good.
        """
        work = Work("step", name or "", retry, timeout_s, estimate, optional=optional)
        return await returned(self.performer, self._next(), function, argument, work, undo)

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
        """Like ``step``, under the tenant's rate limit for ``service``: beyond it the run waits for free.

        Each attempt takes a turn, and so does each of ``undo``.
        """
        work = Work("call", name or "", retry, timeout_s, estimate, service=service, optional=optional)
        return await returned(self.performer, self._next(), function, argument, work, undo)

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
        model that the policy allows answers. ``timeout_s``: of each attempt; ``max_turns``: calls of the model in one.
        Raises ``StepFailed``.
        """
        from core.workflows.agent_step import concluded  # the SDK takes half a second to import

        work = Work("agent", agent.name, retry, timeout_s, estimate, optional=optional, cheaper=cheaper)
        return await concluded(self.performer, self._next(), agent, argument, work, max_turns)

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
        """Ask people. The run waits, for free, until one of ``choices`` is decided; ``sla`` in seconds (None: the
        policy's).

        ``terms``: several voices, escalation, what happens when nobody decides, a form to fill in. Raises
        ``InvalidInput`` for terms that nobody could fulfil, ``PayloadTooLarge`` for evidence of more than 256 KiB,
        ``StepFailed`` when the terms say that no decision is a failure.
        """
        return await decided(
            self.performer,
            self._next(),
            pool=pool,
            title=title,
            evidence=evidence,
            choices=choices,
            sla_s=float(self.tenant.policy.review_sla_s) if sla is None else sla,
            terms=terms,
        )

    async def sleep(self, seconds: float) -> None:
        """Wait, for free."""
        await slept(self.performer, self._next(), seconds)

    async def event(self, name: str, key: str, *, timeout_s: float) -> Any:
        """Wait, for free, for an event sent to this tenant; its payload. Raises ``TimeoutError``."""
        return await payload_of(self.performer, self._next(), name, key, timeout_s)

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
        return await spawned_one(self.performer, self._next(), brood(workflow, [argument], lane), name)

    async def result(self, child: Child[Result]) -> Result:
        """What a child returned; waits, for free, until it has ended. Raises ``ChildFailed`` if it did not succeed."""
        return await result_of(self.performer, self._next(), child)

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
        return await mapped(self.performer, self._next, brood(workflow, arguments, lane), at_once)

    # The rest -------------------------------------------------------------------------------------------

    async def gather(self, *steps: Coroutine[Any, Any, Any]) -> list[Any]:
        """Execute several steps at once; their results in order. Waits for all of them, then parks or fails.

        Each may also be a coroutine of yours, with several steps one after the other. When one fails, the run does not
        stay parked for steps beside it; but such a coroutine comes to its end first.
        """
        numbers = self._own()
        branches = numbers.deal(len(steps))
        begun = [self._branch(own, step) for own, step in zip(branches, steps, strict=True)]
        results = await asyncio.gather(*begun, return_exceptions=True)
        numbers.collect(branches)
        faults = [
            (_urgency(result, step), result)
            for result, step in zip(results, steps, strict=True)
            if isinstance(result, BaseException)
        ]
        if faults:
            raise min(faults, key=itemgetter(0))[1]
        return list(results)

    async def progress(self, done: int, total: int, note: str = "") -> None:
        """Tell whoever looks on how far the run is; of several in 50 ms the last one counts.

        Not a step: repeated when the run is.
        """
        self.performer.teller.progress({"done": done, "total": total, "note": note[:200]})

    async def patched(self, name: str) -> bool:
        """Whether to go the new way at a change of this workflow (WRITING.md, "Changing it safely"). Not a step.

        Raises ``RuntimeError`` in a branch of ``gather``, where nothing says what came before.
        """
        if self._own() is not self._numbers:
            raise RuntimeError("Ask run.patched before run.gather, not in a branch of it.")
        tools, on = self.performer.tools, self.performer.on
        return await written(lambda: tools.patches.patched(on, name, self._numbers.taken))

    def outcome(self, word: str) -> None:
        """Name how the run ends, e.g. ``declined``: lists and summaries go by it.

        Raises ``InvalidInput`` for more than 1,000 characters.
        """
        check_words("An outcome", word)
        self.ended_as = word

    # Inside ---------------------------------------------------------------------------------------------

    def _next(self) -> int:
        return self.performer.count(self._own().take())

    def _own(self) -> Numbers:
        """The numbers of the branch in which this is called."""
        run, numbers = _BRANCH.get()
        return numbers if run is self else self._numbers

    async def _branch(self, numbers: Numbers, step: Coroutine[Any, Any, Any]) -> Any:
        _BRANCH.set((self, numbers))  # in the task that gather makes of this: nobody else sees it
        return await step


_ONE_STEP = frozenset(
    vars(Run)[name].__code__ for name in ("step", "call", "agent", "review", "sleep", "event", "spawn", "result", "map")
)


def _urgency(fault: BaseException, step: Coroutine[Any, Any, Any]) -> int:
    """Of several, the one that counts: the execution is over, others' steps are still to come (their numbers must be
    known before any that follow), a step has failed, the run must park."""
    if isinstance(fault, Parked):
        return 3 if getattr(step, "cr_code", None) in _ONE_STEP else 1
    return 2 if isinstance(fault, Exception) else 0

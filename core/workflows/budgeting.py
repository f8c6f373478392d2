"""What a step does about money before it is performed, and when its reservation is refused.

``before`` asks the ladder (``core.usage.ladder``); ``refused`` is told that an account does not cover the step:

    None          perform the step as it was written
    Taken         on this rung: with a cheaper model, or not at all (``skip``: it is recorded as skipped)
    Parked        people are asked, or the next month is waited for
    BudgetExceeded   people said to stop

An answer is used once: what costs more than was agreed is asked about again, and so is a run that is retried after
somebody stopped it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NoReturn, assert_never

from core.errors import BudgetExceeded
from core.runs.execution import Executing, Wait
from core.runs.model import Cause
from core.runs.rungs import RAISED, STOPPED
from core.usage.ladder import AccountKind, Accounts, Rung, Taken, rung_of, share_with
from core.usage.model import PARENT, Balance, format_usd, next_month, not_covered
from core.workflows.faults import Parked, written

if TYPE_CHECKING:
    from core.reviews.model import Verdict
    from core.workflows.tools import Tools

RAISE, STOP = "raise", "stop"


@dataclass(frozen=True, slots=True)
class Priced:
    """A step and what it may cost. ``optional``: it may be skipped; ``cheaper``: a cheaper model may do it."""

    number: int
    name: str
    kind: str
    estimate: int
    optional: bool
    cheaper: bool


class Budgeting:
    """The money of one run."""

    def __init__(self, tools: Tools, on: Executing) -> None:
        self._tools = tools
        self._on = on
        self._told: set[tuple[int, Rung]] = set()

    async def before(self, step: Priced) -> Taken | None:
        """What the ladder says of a step; the module says what it raises."""
        if step.estimate <= 0:
            return None
        accounts = await self._accounts()
        choose = partial(
            rung_of, self._on.ctx.policy, accounts, step.estimate, optional=step.optional, cheaper=step.cheaper
        )
        taken = choose()
        if taken is not None and taken.rung is Rung.ASK and taken.threshold < 1:
            agreed = await written(lambda: self._tools.rungs.agreed(self._on.ctx, self._on.run_id))
            taken = choose(agreed=agreed)
        if taken is None:
            return None
        match taken.rung:
            case Rung.SKIP:
                await self._skip(step, taken)
            case Rung.CHEAPER_MODEL:
                await self._tell(step, taken)
            case Rung.PARK:
                await self._wait_for_month(step, taken)
            case Rung.ASK:
                await self._ask(step, taken, accounts.of(taken.account), step.estimate)
                return await self.before(step)
            case _:
                assert_never(taken.rung)
        return taken

    async def refused(self, step: Priced, error: BudgetExceeded) -> None:
        """An account did not cover the step. Returns when it does now."""
        told, needed = error.details.get("account"), int(error.details.get("needed_microusd", 0))
        if told not in (*AccountKind, PARENT):
            raise error
        account = AccountKind.RUN if told == PARENT else AccountKind(str(told))
        balance = (await self._accounts()).of(account)
        rung = Rung.ASK if account is AccountKind.RUN else Rung.PARK
        taken = Taken(rung, account, share_with(balance, needed), 1.0)
        if rung is Rung.PARK:
            await self._wait_for_month(step, taken)
        await self._ask(step, taken, balance, needed)

    async def _accounts(self) -> Accounts:
        on, usage = self._on, self._tools.usage
        return await written(lambda: usage.accounts(on.ctx, on.run_id, on.budget_microusd))

    async def _skip(self, step: Priced, taken: Taken) -> None:
        await written(lambda: self._tools.rungs.skip(self._on, step.number, step.name, step.kind, taken))

    async def _tell(self, step: Priced, taken: Taken) -> None:
        """Once an execution, however often the step is tried in it."""
        if (step.number, taken.rung) not in self._told:
            self._told.add((step.number, taken.rung))
            await written(lambda: self._tools.rungs.taken(self._on, step.number, step.name, taken))

    async def _wait_for_month(self, step: Priced, taken: Taken) -> NoReturn:
        await self._tell(step, taken)
        wake_at = next_month(self._tools.clock.now(), self._on.ctx.policy.timezone)
        wait = Wait(step.number, step.name, Cause.BUDGET, key="month", wake_at=wake_at)
        await written(lambda: self._tools.execution.arm_wait(self._on, wait))
        raise Parked

    async def _ask(self, step: Priced, taken: Taken, balance: Balance, needed: int) -> None:
        """Returns when people said to go on, and the run's account covers the step."""
        on, tools = self._on, self._tools
        verdict = await written(partial(self._request, step, taken, balance, needed))
        if verdict is None:
            await self._tell(step, taken)
            raise Parked
        raised = verdict.verdict == RAISE
        await written(lambda: tools.reviews.used(on, step.number))
        answer = RAISED if raised else STOPPED
        await written(lambda: tools.rungs.answered(on, step.number, step.name, taken, answer, verdict.decided_by))
        if not raised:
            raise not_covered(taken.account, balance.limit_microusd, needed)
        if taken.account is AccountKind.RUN:
            await written(lambda: tools.usage.cover(on.ctx, on.run_id, on.budget_microusd, needed))

    async def _request(self, step: Priced, taken: Taken, balance: Balance, needed: int) -> Verdict | None:
        amount = format_usd(needed)
        title = f"{step.name} needs {amount} more than the {taken.account}'s budget"
        if taken.share <= 1:
            title = f"{step.name} needs {amount}: {taken.why}"
        return await self._tools.reviews.request(
            self._on,
            step.number,
            pool="budget",
            title=title,
            evidence={
                "step": step.name,
                "needed": amount,
                "spent": format_usd(balance.spent_microusd),
                "budget": format_usd(balance.limit_microusd),
            },
            choices=[RAISE, STOP],
            sla_s=self._on.ctx.policy.review_sla_s,
            cause=Cause.BUDGET,
        )

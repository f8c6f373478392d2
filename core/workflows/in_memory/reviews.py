"""Reviews in memory; see ``core.reviews.service``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from core.clock import FakeClock
from core.errors import StepFailed
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
from core.runs.execution import Executing, Wait
from core.runs.model import Cause
from core.workflows.in_memory.records import RecordsInMemory


@dataclass(slots=True)
class Question:
    """A review that a run asked for. ``case`` is where it stands; ``used``: its decision was acted on."""

    step: int
    title: str
    evidence: dict[str, Any]
    case: Case
    used: bool = False

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
        if step in asked and asked[step].used:
            del asked[step]
        case = asked.setdefault(step, Question(step, title, evidence, case)).case
        if case.state is ReviewState.OPEN:
            await self._records.arm_wait(on, wait)
            return None
        if case.verdict is None:
            raise StepFailed(f"Nobody decided in time: {title}", step=wait.name, cause="review_expired")
        if cause is Cause.REVIEW:
            self._records.finish_wait(on, step, {"verdict": case.verdict})
        return Verdict(case.verdict, case.comment or "", case.decided_by or "", case.answer)

    async def used(self, on: Executing, step: int) -> None:
        """The decision was acted on: the next request at this step asks anew."""
        self._asked[on.run_id][step].used = True

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

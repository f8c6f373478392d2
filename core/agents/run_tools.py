"""Tools about runs: start one per application in a file, look, explain refusals."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from core.agents.model import BatchCard, RunCard, Turn
from core.agents.toolkit import Arguments, Tool
from core.agents.words import cause_in_words, counts_of, merged, shortest, waits_in_words
from core.conversations.model import Batch
from core.conversations.service import ConversationService
from core.errors import InvalidInput, NotFound
from core.runs.model import BatchProgress, Cause, RunRequest, RunView
from core.runs.service import MAX_BATCH, RunService
from core.tenancy import Scope, TenantContext
from core.workflows.loan_intake import read_applications

LOAN_WORKFLOW = "loan-approval"
MAX_REPORTED_PROBLEMS = 20
_OUTCOMES = {"approved": "approved", "declined": "declined"}


class StartLoanRuns(Arguments):
    """Which file, and how much of it."""

    attachment: str = Field(min_length=1, max_length=200, description="Name of the attached CSV file.")
    limit: int | None = Field(None, ge=1, le=MAX_BATCH, description="Only the first so many rows; null: all.")


class Nothing(Arguments):
    """No arguments."""


class ListRuns(Arguments):
    """Which runs."""

    status: (
        Literal["queued", "running", "waiting", "succeeded", "failed", "cancelled", "dead", "approved", "declined"]
        | None
    ) = Field(None, description="Only runs in this state or with this outcome; null: any.")
    limit: int = Field(20, ge=1, le=50, description="At most so many, newest first.")


class OneRun(Arguments):
    """Which run."""

    run_id: str = Field(min_length=1, max_length=100, description="Id of the run, run_…")


@dataclass(frozen=True, slots=True)
class RunTools:
    """What the tools about runs stand on."""

    runs: RunService
    conversations: ConversationService

    def tools(self) -> tuple[Tool[Any], ...]:
        """All of them."""
        return (
            Tool(
                "start_loan_runs",
                Scope.RUNS_WRITE,
                "Start one loan-approval run for each application (row) of an attached CSV file. Asking again for "
                "the same file starts nothing twice.",
                StartLoanRuns,
                self.start,
                timeout_s=120.0,
            ),
            Tool(
                "runs_progress",
                Scope.RUNS_READ,
                "How far the runs started in this conversation are, and what the others wait for.",
                Nothing,
                self.progress,
            ),
            Tool(
                "list_runs", Scope.RUNS_READ, "List runs of the organisation, newest first.", ListRuns, self.list_runs
            ),
            Tool("get_run", Scope.RUNS_READ, "One run with its steps, result and cost.", OneRun, self.get),
            Tool(
                "summarise_declined",
                Scope.RUNS_READ,
                "What was declined and why: the reasons with how often each was given.",
                Nothing,
                self.declined,
            ),
        )

    async def start(self, turn: Turn, asked: StartLoanRuns) -> dict[str, Any]:
        """Read the file and submit a run per application, all or none of the readable ones."""
        content = await self.conversations.attachment(turn.ctx, turn.thread_id, asked.attachment)
        intake = read_applications(content.data, limit=asked.limit)
        problems = [f"line {problem.line}: {problem.message}" for problem in intake.problems]
        if len(intake.applications) > MAX_BATCH:
            raise InvalidInput(
                f"The file has {len(intake.applications):,} applications; at most {MAX_BATCH:,} are started at "
                "once. Name a limit, or split the file."
            )
        if not intake.applications:
            found = "; ".join(problems[:3])
            raise InvalidInput(f"No row of {asked.attachment} is an application. {found}".strip())
        batch_id = f"bat_{content.digest[:32]}"
        before = await self._total(turn.ctx, batch_id)
        await self.conversations.add_batch(turn.ctx, turn.thread_id, batch_id, content.name)
        # The digest of the file and the number of the application make the key: asking twice, in any thread
        # of the tenant, finds the runs of the first time.
        views = await self.runs.submit_many(
            turn.ctx,
            [
                RunRequest(
                    LOAN_WORKFLOW,
                    application.model_dump(mode="json"),
                    idempotency_key=f"{content.digest}:{application.application_id}",
                    batch_id=batch_id,
                    thread_id=turn.thread_id,
                    source="chat",
                )
                for application in intake.applications
            ],
        )
        started = await self._total(turn.ctx, batch_id) - before
        turn.show(BatchCard(batch_id, content.name))
        answer = {
            "started": started,
            "already_started_before": len(views) - started,
            "batch_id": batch_id,
            "refused": f"{len(problems)} of {len(problems) + len(views)} rows" if problems else "",
            "errors": problems[:MAX_REPORTED_PROBLEMS],
            "message": _more(problems),
        }
        return {"started": started, **shortest(answer)}

    async def progress(self, turn: Turn, _: Nothing) -> dict[str, Any]:
        """Counts of this conversation's batches, else of the user's newest."""
        batches = await self._batches(turn)
        if not batches:
            return {"total": 0, "message": "No runs were started from your conversations yet."}
        parts = await self._progress(turn.ctx, batches)
        whole = merged("all", parts)
        for batch in batches[:3]:
            turn.show(BatchCard(batch.batch_id, batch.label))
        return {
            **counts_of(whole),
            "files": ", ".join(dict.fromkeys(batch.label for batch in batches)),
            "waits": waits_in_words(whole, turn.ctx.policy),
        }

    async def list_runs(self, turn: Turn, asked: ListRuns) -> dict[str, Any]:
        """Runs that pass the filter."""
        outcome = _OUTCOMES.get(asked.status or "")
        views, more = await self.runs.list(
            turn.ctx, state=None if outcome else asked.status, outcome=outcome, limit=asked.limit
        )
        rows = [summary(view) for view in views]
        return {"runs": rows, "message": "There are more; these are the newest."} if more else {"runs": rows}

    async def get(self, turn: Turn, asked: OneRun) -> dict[str, Any]:
        """One run in full."""
        view = await self.runs.get(turn.ctx, asked.run_id)
        turn.show(RunCard(view.run_id))
        steps = await self.runs.steps(turn.ctx, asked.run_id)
        budget = [
            f"{event.kind.removeprefix('budget_').replace('_', ' ')}: {event.data['name']}, {event.data['cause']}"
            for event in await self.runs.events(turn.ctx, asked.run_id)
            if event.kind.startswith("budget_")
        ]
        return {
            **summary(view),
            **shortest({"budget": budget}),
            "result": view.output,
            "steps": [
                shortest({"name": step.name, "state": step.state, "attempt": step.attempt, "error": step.error})
                for step in steps
            ],
        }

    async def declined(self, turn: Turn, _: Nothing) -> dict[str, Any]:
        """Reasons of refusals in this conversation's batches, else in the whole organisation."""
        batches = await self.conversations.batches(turn.ctx, turn.thread_id)
        reasons: Counter[str] = Counter()
        if not batches:
            views, more = await self.runs.list(turn.ctx, outcome="declined", limit=1_000)
            for reason in await self.runs.declined_summary(turn.ctx):
                reasons[reason.reason] += reason.count
            answer: dict[str, Any] = {"declined": len(views), "scope": "all runs of your organisation"}
            if more:
                answer["message"] = "More than 1,000 were declined; the reasons count all of them."
        else:
            whole = merged("all", await self._progress(turn.ctx, batches))
            for batch in batches:
                for reason in await self.runs.declined_summary(turn.ctx, batch.batch_id):
                    reasons[reason.reason] += reason.count
            answer = {"declined": whole.by_outcome.get("declined", 0), "decided": whole.finished}
            answer["still_open"] = whole.total - whole.finished
        return {**answer, "reasons": [{"reason": text, "count": count} for text, count in reasons.most_common(30)]}

    async def _batches(self, turn: Turn) -> list[Batch]:
        here = await self.conversations.batches(turn.ctx, turn.thread_id)
        return here or await self.conversations.batches(turn.ctx, limit=1)

    async def _progress(self, ctx: TenantContext, batches: list[Batch]) -> list[BatchProgress]:
        found = []
        for batch in batches:
            try:
                found.append(await self.runs.batch_progress(ctx, batch.batch_id))
            except NotFound:  # remembered, but its submission was refused
                continue
        return found

    async def _total(self, ctx: TenantContext, batch_id: str) -> int:
        try:
            return (await self.runs.batch_progress(ctx, batch_id)).total
        except NotFound:
            return 0


def summary(view: RunView) -> dict[str, Any]:
    """A run in a line."""
    reasons = view.output.get("reasons") if isinstance(view.output, dict) else None
    paused = view.cause is Cause.PAUSED and view.held
    return shortest(
        {
            "run_id": view.run_id,
            "application": view.input.get("application_id"),
            "workflow": view.workflow,
            "status": view.outcome or view.state.value,
            "waits_for": "somebody to resume it" if paused else cause_in_words(view.cause),
            "reasons": list(reasons)[:3] if reasons else None,
            "error": (view.error or {}).get("message"),
            "cost_usd": round(view.cost_microusd / 1_000_000, 6) or None,
            "submitted": view.submitted_at.isoformat(timespec="seconds"),
        }
    )


def _more(problems: list[str]) -> str:
    more = len(problems) - MAX_REPORTED_PROBLEMS
    return f"{more} more rows have errors." if more > 0 else ""

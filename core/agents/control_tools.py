"""Tools about what is done to runs: pause, resume, cancel and retry one, or many after the user has agreed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from core.agents.model import Turn
from core.agents.run_tools import OneRun, summary
from core.agents.toolkit import Arguments, Tool
from core.agents.words import shortest
from core.conversations.service import ConversationService
from core.runs.acts import Act
from core.runs.bulk import Bulk, BulkControl, Choice
from core.runs.control import RunControl
from core.runs.model import RunState
from core.tenancy import Scope

_FOR_S = 5.0


class ChooseRuns(Arguments):
    """What is to be done to which runs."""

    act: Literal["cancel", "retry", "pause", "resume"] = Field(description="What the user wants to be done.")
    status: Literal["queued", "running", "waiting", "failed", "cancelled", "dead"] | None = Field(
        None, description="Only runs in this state; null: all that the act fits."
    )
    everywhere: bool = Field(
        False,
        description="False: the newest file of this conversation. True: the whole organisation, if the user said so.",
    )


class Chosen(Arguments):
    """What was chosen, and the user agreed to."""

    bulk_id: str = Field(min_length=1, max_length=100, description="As choose_runs named it, blk_…")


@dataclass(frozen=True, slots=True)
class ControlTools:
    """What the tools stand on."""

    control: RunControl
    bulk: BulkControl
    conversations: ConversationService

    def tools(self) -> tuple[Tool[Any], ...]:
        """All of them."""
        write = Scope.RUNS_WRITE
        return (
            Tool("cancel_run", write, "Cancel one run that has not ended, or is dead.", OneRun, self.cancel),
            Tool("pause_run", write, "Hold one run until it is resumed.", OneRun, self.pause),
            Tool("resume_run", write, "Let one paused run go on.", OneRun, self.resume),
            Tool("retry_run", write, "Queue one run again that did not succeed.", OneRun, self.retry),
            Tool(
                "choose_runs",
                write,
                "Choose many runs to cancel, retry, pause or resume. Nothing is done yet: tell the user how many they "
                "are and ask whether to go on.",
                ChooseRuns,
                self.choose,
            ),
            Tool(
                "act_on_chosen_runs",
                write,
                "Do it to the runs that were chosen. Only after the user has seen how many they are, and agreed.",
                Chosen,
                self.act,
                timeout_s=60.0,
            ),
        )

    async def cancel(self, turn: Turn, asked: OneRun) -> dict[str, Any]:
        """Cancel, at once or at the next step."""
        return summary(await self.control.cancel(turn.ctx, asked.run_id))

    async def pause(self, turn: Turn, asked: OneRun) -> dict[str, Any]:
        """Hold, at once or at the next step."""
        return summary(await self.control.pause(turn.ctx, asked.run_id))

    async def resume(self, turn: Turn, asked: OneRun) -> dict[str, Any]:
        """Let it go on."""
        return summary(await self.control.resume(turn.ctx, asked.run_id))

    async def retry(self, turn: Turn, asked: OneRun) -> dict[str, Any]:
        """Queue it again."""
        return summary(await self.control.retry(turn.ctx, asked.run_id))

    async def choose(self, turn: Turn, asked: ChooseRuns) -> dict[str, Any]:
        """Fix the runs, and say how many they are."""
        batches = [] if asked.everywhere else await self.conversations.batches(turn.ctx, turn.thread_id)
        batch = batches[0] if batches else None
        if batch is None and not asked.everywhere:
            return {
                "runs": 0,
                "message": "No runs were started from this conversation. Ask for the whole organisation.",
            }
        choice = Choice(
            state=None if asked.status is None else RunState(asked.status),
            batch_id=None if batch is None else batch.batch_id,
        )
        bulk = await self.bulk.preview(turn.ctx, Act(asked.act), choice)
        where = "the whole organisation" if batch is None else batch.label
        ask = f"Ask the user whether to {bulk.act} them, and only then use act_on_chosen_runs." if bulk.runs else ""
        return shortest({"bulk_id": bulk.bulk_id, "where": where, "by_state": bulk.by_state, "message": ask}) | {
            "act": bulk.act,
            "runs": bulk.runs,
        }

    async def act(self, turn: Turn, asked: Chosen) -> dict[str, Any]:
        """Do it, and say how far it is."""
        return _so_far(await self.bulk.apply(turn.ctx, asked.bulk_id, for_s=_FOR_S))


def _so_far(bulk: Bulk) -> dict[str, Any]:
    told = shortest({"left_alone": bulk.reasons, "still_to_do": bulk.left or None})
    return {"act": bulk.act, "done": bulk.done, "of": bulk.runs, **told}

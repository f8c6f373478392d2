"""What the cards of a conversation show, read from rows for one person. Nothing is remembered between two readings."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Any, Protocol

from chat_app.rendering import review_card
from chat_app.run_cards import LISTED_RUNS, RUNS_CARD, Seen, run_card, runs_card
from core.queue.estimate import StartsIn
from core.reviews.service import ReviewService
from core.runs.model import BatchProgress, RunState, RunView
from core.runs.service import RunService
from core.tenancy import Scope, TenantContext
from core.tenants.service import TenantService

Element = dict[str, Any]
"""A card as Chainlit's browser side knows it; ``props`` are ours."""


class Sources(Protocol):
    """What cards are painted from."""

    @property
    def runs(self) -> RunService:
        """Batches and runs."""

    @property
    def reviews(self) -> ReviewService:
        """Cases and decisions."""

    @property
    def tenants(self) -> TenantService:
        """What people are called."""


@dataclass(frozen=True, slots=True)
class Painter:
    """Paints cards for one person. ``opened``: the runs whose steps they want to see."""

    sources: Sources
    ctx: TenantContext
    opened: Set[str]

    @property
    def may_decide(self) -> bool:
        """Whether this person decides reviews."""
        return Scope.REVIEWS_DECIDE in self.ctx.scopes

    async def props(self, element: Element, notice: str = "", faults: dict[str, str] | None = None) -> dict[str, Any]:
        """What a card shows now. Raises ``NotFound``."""
        props = element["props"]
        if element["name"] == RUNS_CARD and props.get("run_id"):
            return await self.run_props(str(props["run_id"]))
        if element["name"] == RUNS_CARD:
            return await self.runs_props(str(props["batch_id"]), str(props["title"]))
        return await self.review_props(str(props["review_id"]), notice, faults)

    async def runs_props(self, batch_id: str, label: str) -> dict[str, Any]:
        """A batch as its card shows it. Raises ``NotFound``."""
        progress = await self.sources.runs.batch_progress(self.ctx, batch_id)
        recent = await self._interesting(progress)
        seen = await self._seen(run for run in recent if run.run_id in self.opened)
        return runs_card(label, progress, recent, self.ctx.policy, await self._last_start(progress), seen)

    async def run_props(self, run_id: str) -> dict[str, Any]:
        """One run as its card shows it. Raises ``NotFound``."""
        run = await self.sources.runs.get(self.ctx, run_id)
        return run_card(run, self.ctx.policy, await self._seen([run]))

    async def _seen(self, opened: Iterable[RunView]) -> Seen:
        steps = {run.run_id: await self.sources.runs.steps(self.ctx, run.run_id) for run in opened}
        return Seen(Scope.RUNS_WRITE in self.ctx.scopes, steps)

    async def review_props(
        self, review_id: str, notice: str = "", faults: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """A review as its card shows it. Raises ``NotFound``."""
        review = await self.sources.reviews.get(self.ctx, review_id)
        decider = ""
        if review.decided_by:
            kind, _, user_id = review.decided_by.partition(":")
            names = await self.sources.tenants.names(self.ctx, [user_id]) if kind == "user" else {}
            decider = "you" if user_id == self.ctx.user_id else next(iter(names.values()), "")
        return review_card(
            review, self.ctx.policy, may_decide=self.may_decide, decider=decider, notice=notice, faults=faults
        )

    async def _interesting(self, progress: BatchProgress) -> list[RunView]:
        """A few runs of the batch: those that somebody opened, then those in trouble or at work.

        Read state by state: a run that moved on in between is found twice, and is as it was found last.
        """
        wanted = (
            (RunState.FAILED, progress.failed, 3),
            (RunState.DEAD, progress.dead, 3),
            (RunState.RUNNING, progress.running, 4),
            (RunState.WAITING, progress.waiting, 4),
            (RunState.CANCELLED, progress.cancelled, 2),
            (RunState.SUCCEEDED, progress.succeeded, LISTED_RUNS),
        )
        opened = await self.sources.runs.some(self.ctx, list(self.opened)) if self.opened else ()
        mine = [run for run in opened if run.batch_id == progress.batch_id][:LISTED_RUNS]
        found = {run.run_id: run for run in mine}
        for state, count, share in wanted:
            room = min(share, LISTED_RUNS - len(found))
            if count and room > 0:
                page, _ = await self.sources.runs.list(self.ctx, state=state, batch_id=progress.batch_id, limit=room)
                found |= {run.run_id: run for run in page}
        return list(found.values())

    async def _last_start(self, progress: BatchProgress) -> StartsIn | None:
        """When the newest queued run of the batch should start."""
        if not progress.queued:
            return None
        newest, _ = await self.sources.runs.list(self.ctx, state=RunState.QUEUED, batch_id=progress.batch_id, limit=1)
        return (await self.sources.runs.standing(self.ctx, newest[0])).starts_in if newest else None

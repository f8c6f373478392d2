"""Reviews: decisions that runs ask people for."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from chat_app.api import Caller, Id, Services, api_router, needs
from core.errors import Conflict, NotFound
from core.tenancy import Scope

router = api_router("Reviews")


class ReviewOut(BaseModel):
    """A review."""

    model_config = ConfigDict(from_attributes=True)

    review_id: str
    run_id: str
    pool: str
    title: str
    evidence: dict[str, Any] = Field(description="What the run gives for deciding.")
    choices: list[str]
    state: str = Field(description="open, decided or cancelled.")
    verdict: str | None
    comment: str | None
    decided_by: str | None
    created_at: datetime
    due_at: datetime
    decided_at: datetime | None
    thread_id: str | None = Field(description="The conversation its run was started from.")


class ReviewsOut(BaseModel):
    """Reviews."""

    reviews: list[ReviewOut]


class DecisionIn(BaseModel):
    """A decision."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"verdict": "approve", "comment": "Income confirmed by telephone."}]},
    )

    verdict: str = Field(min_length=1, max_length=200, description="One of the review's choices.")
    comment: str = Field("", max_length=4_000)


@router.get("/reviews", **needs(Scope.REVIEWS_READ))
async def list_reviews(
    caller: Caller,
    services: Services,
    state: Annotated[
        Literal["open", "all"], Query(description="open: the most urgent first; all: the newest first.")
    ] = "open",
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> ReviewsOut:
    """Reviews of the tenant."""
    reviews = services.platform.reviews
    views = await (reviews.open(caller, limit) if state == "open" else reviews.recent(caller, limit))
    return ReviewsOut(reviews=[ReviewOut.model_validate(view) for view in views])


@router.get("/reviews/{review_id}", **needs(Scope.REVIEWS_READ, NotFound))
async def get_review(review_id: Id, caller: Caller, services: Services) -> ReviewOut:
    """One review."""
    return ReviewOut.model_validate(await services.platform.reviews.get(caller, review_id))


@router.post("/reviews/{review_id}/decision", **needs(Scope.REVIEWS_DECIDE, NotFound, Conflict, body=True))
async def decide_review(review_id: Id, body: DecisionIn, caller: Caller, services: Services) -> ReviewOut:
    """Decide; the run goes on. 409: it was decided before. 403 also for one's own run."""
    view = await services.platform.reviews.decide(caller, review_id, body.verdict, body.comment)
    return ReviewOut.model_validate(view)

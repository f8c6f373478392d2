"""Reviews: decisions that runs ask people for."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field, field_serializer

from chat_app.api import Caller, Id, Services, api_router, needs
from core.errors import Conflict, NotFound
from core.reviews.model import MAX_COMMENT, Priority, ReviewState, ReviewView
from core.reviews.service import MAX_BULK
from core.tenancy import Scope

router = api_router("Reviews")


class ClaimOut(BaseModel):
    """Somebody works on a review."""

    model_config = ConfigDict(from_attributes=True)

    by: str = Field(description="The person, as `user:usr_…`.")
    until: datetime = Field(description="When the claim ends by itself.")
    given_by: str | None = Field(description="Who delegated it to them.")


class VoteOut(BaseModel):
    """What one person decided."""

    model_config = ConfigDict(from_attributes=True)

    by: str
    verdict: str
    comment: str
    answer: dict[str, Any] | None
    at: datetime


class ReviewOut(BaseModel):
    """A review."""

    model_config = ConfigDict(from_attributes=True)

    review_id: str
    run_id: str
    tenant_name: str | None = Field(description="Whose it is; told to reviewers of shared pools.")
    pool: str = Field(description="Who is asked; changes when the review escalates.")
    role: str | None = Field(description="The role that deciders need besides the right to decide.")
    shared: bool = Field(description="Whether it was asked of shared reviewers or of the tenant's own.")
    priority: Priority = Field(description="Class among shared reviews: 0 enterprise, 1 standard, 2 free; less first.")
    title: str
    evidence: dict[str, Any] = Field(description="What the run gives for deciding.")
    choices: list[str]
    form: dict[str, Any] | None = Field(description="JSON schema of what a decision fills in as `answer`.")
    needed: int = Field(description="Votes that a verdict needs, of `of`.")
    of: int
    state: ReviewState = Field(description="expired: nobody decided in time, and the run's step failed.")
    level: int = Field(description="How often it has escalated.")
    claims: list[ClaimOut] = Field(description="Who works on it now.")
    votes: list[VoteOut]
    verdict: str | None
    comment: str | None
    answer: dict[str, Any] | None
    decided_by: str | None
    created_at: datetime
    due_at: datetime = Field(description="When its SLA ends.")
    next_at: datetime | None = Field(description="When it escalates or expires next.")
    decided_at: datetime | None
    thread_id: str | None = Field(description="The conversation its run was started from.")

    @field_serializer("priority")
    def _number(self, priority: Priority) -> int:
        return int(priority)


class ReviewsOut(BaseModel):
    """Reviews."""

    reviews: list[ReviewOut]


Verdict = Annotated[str, Field(min_length=1, max_length=200, description="One of the review's choices.")]
Comment = Annotated[str, Field(max_length=MAX_COMMENT)]
Answer = Annotated[dict[str, Any] | None, Field(description="The review's form, filled in.")]


class DecisionIn(BaseModel):
    """A decision, or one vote of several."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"verdict": "approve", "comment": "Income confirmed by telephone."}]},
    )

    verdict: Verdict
    comment: Comment = ""
    answer: Answer = None


class BulkDecisionIn(BaseModel):
    """One decision for many reviews."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"review_ids": ["rev_06g2kq8v3m4n5p6r7s8t9v0w1"], "verdict": "approve"}]},
    )

    review_ids: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(min_length=1, max_length=MAX_BULK)
    verdict: Verdict
    comment: Comment = ""
    answer: Answer = None


class BulkResultOut(BaseModel):
    """What became of one review."""

    model_config = ConfigDict(from_attributes=True)

    review_id: str
    outcome: str = Field(description="decided; voted: more votes are needed; or the code of a problem.")
    message: str = Field(description="The problem in words.")


class BulkOut(BaseModel):
    """What became of each, in the order in which they were named; each id counts once."""

    results: list[BulkResultOut]


class DelegationIn(BaseModel):
    """To whom."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"user_id": "usr_06g2kq8v3m4n5p6r7s8t9v0w1"}]}
    )

    user_id: str = Field(min_length=1, max_length=200, description="A colleague who decides reviews.")


def _out(view: ReviewView) -> ReviewOut:
    return ReviewOut.model_validate(view)


@router.get("/reviews", **needs(Scope.REVIEWS_READ))
async def list_reviews(
    caller: Caller,
    services: Services,
    state: Annotated[
        Literal["open", "mine", "decided", "cancelled", "expired", "all"],
        Query(
            description="open: the most urgent first; mine: open ones as the caller should look at them, their own "
            "claims first, without what colleagues work on; all: the newest first."
        ),
    ] = "open",
    pool: Annotated[str | None, Query(max_length=200)] = None,
    run_id: Annotated[str | None, Query(max_length=200)] = None,
    overdue: Annotated[bool, Query(description="Only those past their SLA.")] = False,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> ReviewsOut:
    """Reviews of the tenant that fit every filter."""
    reviews = services.platform.desk
    if state == "all" and not (pool or run_id or overdue):
        views = await reviews.recent(caller, limit)
    elif state == "mine":
        now = services.platform.clock.now()
        views = [
            view
            for view in await reviews.mine(caller, 1_000)
            if pool in (None, view.pool) and run_id in (None, view.run_id) and (not overdue or view.due_at <= now)
        ][:limit]
    else:
        wanted = None if state == "all" else ReviewState(state)
        views = await reviews.find(caller, state=wanted, pool=pool, of_run=run_id, overdue=overdue, limit=limit)
    return ReviewsOut(reviews=[_out(view) for view in views])


@router.post("/reviews/decisions", **needs(Scope.REVIEWS_DECIDE, body=True))
async def decide_reviews(body: BulkDecisionIn, caller: Caller, services: Services) -> BulkOut:
    """One verdict for many reviews, each by itself and exactly once; what became of each."""
    reviews = services.platform.desk
    results = await reviews.decide_many(caller, body.review_ids, body.verdict, body.comment, body.answer)
    return BulkOut(results=[BulkResultOut.model_validate(result) for result in results])


@router.get("/reviews/{review_id}", **needs(Scope.REVIEWS_READ, NotFound))
async def get_review(review_id: Id, caller: Caller, services: Services) -> ReviewOut:
    """One review."""
    return _out(await services.platform.desk.get(caller, review_id))


@router.post("/reviews/{review_id}/claim", **needs(Scope.REVIEWS_DECIDE, NotFound, Conflict))
async def claim_review(review_id: Id, caller: Caller, services: Services) -> ReviewOut:
    """Say that one works on it, for half an hour; again: for longer. 409: colleagues do, or it is closed."""
    return _out(await services.platform.desk.claim(caller, review_id))


@router.delete("/reviews/{review_id}/claim", **needs(Scope.REVIEWS_DECIDE, NotFound, Conflict))
async def release_review(review_id: Id, caller: Caller, services: Services) -> ReviewOut:
    """Give one's claim back; who administers the tenant ends everybody's. 409: it is closed."""
    return _out(await services.platform.desk.release(caller, review_id))


@router.post("/reviews/{review_id}/delegation", **needs(Scope.REVIEWS_DECIDE, NotFound, Conflict, body=True))
async def delegate_review(review_id: Id, body: DelegationIn, caller: Caller, services: Services) -> ReviewOut:
    """Give it to a colleague until it is due. 409: colleagues work on it, or it is closed."""
    return _out(await services.platform.desk.delegate(caller, review_id, body.user_id))


@router.post("/reviews/{review_id}/decision", **needs(Scope.REVIEWS_DECIDE, NotFound, Conflict, body=True))
async def decide_review(review_id: Id, body: DecisionIn, caller: Caller, services: Services) -> ReviewOut:
    """Decide, or vote when it takes several; with the last vote needed the run goes on.

    409: it was decided before, one has voted before, or colleagues have claimed it. 403 also for one's own run, in
    whatever way it was submitted. 422 names every fault of the form.
    """
    reviews = services.platform.desk
    return _out(await reviews.decide(caller, review_id, body.verdict, body.comment, body.answer))

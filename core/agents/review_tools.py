"""Tools about reviews: what waits for a person, and the decision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import Field

from core.agents.model import ReviewCard, Turn
from core.agents.toolkit import Arguments, Tool
from core.reviews.model import MAX_COMMENT, ReviewView
from core.reviews.service import ReviewService
from core.tenancy import Scope

MAX_CARDS = 10
MAX_LISTED = 30


class ListReviews(Arguments):
    """No arguments."""


class DecideReview(Arguments):
    """Which review, and how it is decided."""

    review_id: str = Field(min_length=1, max_length=100, description="Id of the review, rev_…")
    verdict: str = Field(min_length=1, max_length=50, description="approve or decline, or another choice it offers.")
    comment: str = Field("", max_length=MAX_COMMENT, description="The user's reason; empty when they gave none.")


@dataclass(frozen=True, slots=True)
class ReviewTools:
    """What the tools about reviews stand on."""

    reviews: ReviewService

    def tools(self) -> tuple[Tool[Any], ...]:
        """All of them."""
        return (
            Tool(
                "list_reviews",
                Scope.REVIEWS_READ,
                "Cases that wait for a reviewer's decision, the most urgent first.",
                ListReviews,
                self.list_reviews,
            ),
            Tool(
                "decide_review",
                Scope.REVIEWS_DECIDE,
                "Decide one review in the user's name. Only when the user clearly said how to decide it.",
                DecideReview,
                self.decide,
            ),
        )

    async def list_reviews(self, turn: Turn, _: ListReviews) -> dict[str, Any]:
        """Open reviews; reviewers get cards for the first of them."""
        found = await self.reviews.open(turn.ctx, limit=1_000)
        decides = Scope.REVIEWS_DECIDE in turn.ctx.scopes
        if decides:
            for review in found[:MAX_CARDS]:
                turn.show(ReviewCard(review.review_id))
        zone = turn.ctx.policy.timezone
        answer: dict[str, Any] = {
            "reviews": [brief(review, zone) for review in found[:MAX_LISTED]],
            "total": len(found),
        }
        if found and not decides:
            answer["message"] = "Reviewers of your organisation decide these."
        elif len(found) > MAX_CARDS:
            answer["message"] = f"Cards are shown for the {MAX_CARDS} most urgent; ask again after deciding them."
        return answer

    async def decide(self, turn: Turn, asked: DecideReview) -> dict[str, Any]:
        """Decide, and let the run go on."""
        decided = await self.reviews.decide(turn.ctx, asked.review_id, asked.verdict.lower(), asked.comment)
        return {
            "review_id": decided.review_id,
            "run_id": decided.run_id,
            "verdict": decided.verdict,
            "comment": decided.comment,
        }


def brief(review: ReviewView, timezone: str) -> dict[str, Any]:
    """A review in a line."""
    return {
        "case": review.title.rstrip("."),
        "review_id": review.review_id,
        "due": review.due_at.astimezone(ZoneInfo(timezone)).strftime("%a %Y-%m-%d %H:%M"),
    }

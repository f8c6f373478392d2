"""Reviews: a human decision that a run asks for. ``open`` → ``decided`` | ``cancelled``; final once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.errors import InvalidInput
from core.ids import ReviewId, RunId

MAX_COMMENT = 4_000


@dataclass(frozen=True, slots=True)
class ReviewView:
    """A review as its reviewers see it."""

    review_id: ReviewId
    run_id: RunId
    pool: str
    title: str
    evidence: dict[str, Any]
    choices: list[str]
    state: str
    verdict: str | None
    comment: str | None
    decided_by: str | None
    created_at: datetime
    due_at: datetime
    decided_at: datetime | None
    thread_id: str | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision, as the run receives it."""

    verdict: str
    comment: str
    decided_by: str


def check_decision(choices: list[str], verdict: str, comment: str) -> None:
    """Raise ``InvalidInput`` for a verdict that was not offered or an over-long comment."""
    if verdict not in choices:
        raise InvalidInput(f"Choose one of: {', '.join(choices)}.", choices=choices)
    if len(comment) > MAX_COMMENT:
        raise InvalidInput(f"A comment has at most {MAX_COMMENT} characters.")

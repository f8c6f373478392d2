"""Rows of reviews."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.db.pool import Row, Transaction
from core.db.queries import load_queries
from core.ids import ReviewId
from core.reviews.model import ReviewView, Verdict

SQL = load_queries(__file__)


@dataclass(frozen=True, slots=True)
class Asking:
    """The run behind a review."""

    submitted_by: str | None
    step: int
    run_state: str


async def request(
    tx: Transaction,
    review_id: ReviewId,
    run_id: str,
    step: int,
    pool: str,
    title: str,
    evidence: dict[str, Any],
    choices: list[str],
    now: datetime,
    due_at: datetime,
) -> ReviewId | None:
    """The review that is open now; None when the run has asked at this step before."""
    opened = await tx.fetchval(SQL["request"], review_id, run_id, step, pool, title, evidence, choices, now, due_at)
    return None if opened is None else ReviewId(opened)


async def verdict(tx: Transaction, run_id: str, step: int) -> Verdict | None:
    """The decision, if there is one; the review is locked, so none can slip in before the wait is armed."""
    row = await tx.fetchrow(SQL["by_step"], run_id, step)
    if row is None or row["verdict"] is None:
        return None
    return Verdict(row["verdict"], row["comment"] or "", row["decided_by"])


def _view(row: Row) -> ReviewView:
    return ReviewView(**row)


async def open_reviews(tx: Transaction, limit: int) -> list[ReviewView]:
    """Open ones, the most urgent first."""
    return [_view(row) for row in await tx.fetch(SQL["open"], limit)]


async def recent(tx: Transaction, limit: int) -> list[ReviewView]:
    """Any state, newest first."""
    return [_view(row) for row in await tx.fetch(SQL["recent"], limit)]


async def by_id(tx: Transaction, review_id: str) -> ReviewView | None:
    """One review of the tenant."""
    row = await tx.fetchrow(SQL["by_id"], review_id)
    return None if row is None else _view(row)


async def asking(tx: Transaction, review_id: str) -> Asking | None:
    """The run behind a review."""
    row = await tx.fetchrow(SQL["submitter"], review_id)
    return None if row is None else Asking(row["user_id"], row["step"], row["run_state"])


async def decide(tx: Transaction, review_id: str, verdict: str, comment: str, decided_by: str, now: datetime) -> bool:
    """False when it is not open any more."""
    return await tx.execute(SQL["decide"], review_id, verdict, comment, decided_by, now) == 1


async def cancel_of_run(tx: Transaction, run_id: str, now: datetime) -> int:
    """Close what a run that ended had asked."""
    return await tx.execute(SQL["cancel_of_run"], run_id, now)

"""Workflows that something else starts: a schedule re-checks what is pending, a poller tells what a feed says, a
trigger tells what happened.

``loan-recheck`` decides nothing. It counts what has not ended and why, and reminds reviewers of what is past
its SLA. ``feed-changed`` keeps a short summary of the new entries as its output, ``event-received`` one of the event.
"""

from __future__ import annotations

import json
from collections import Counter

from pydantic import BaseModel, ConfigDict, Field

from core.runs.model import RunState
from core.schedules.model import FeedChange
from core.triggers.model import TriggerEvent
from core.workflows import Lane, Retry, Run, Step, workflow

PAGE = 1_000
MAX_PENDING = 20_000
MAX_REMINDERS = 50
MAX_HEADLINES = 20
MAX_TEXT = 280


class RecheckRequest(BaseModel):
    """Which applications to look at."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    workflow: str = Field("loan-approval", min_length=1, max_length=100, description="The workflow that decides.")


class Reminder(BaseModel):
    """A review past its SLA."""

    review_id: str
    run_id: str
    title: str
    due_at: str


class RecheckReport(BaseModel):
    """What is pending now. ``complete`` is false when there was more than 20,000."""

    pending: int
    queued: int
    running: int
    waiting_by_cause: dict[str, int]
    overdue: int
    reminders: list[Reminder]
    complete: bool


@workflow("loan-recheck", version="1", lane=Lane.BACKGROUND)
async def loan_recheck(run: Run, request: RecheckRequest) -> RecheckReport:
    """Look at every application that has not ended."""
    report = await run.step(look_at_pending, request, retry=Retry(attempts=3), timeout_s=120)
    reminders = await run.step(remind_reviewers, request, retry=Retry(attempts=3), timeout_s=60)
    run.outcome("overdue" if reminders else "checked")
    return report.model_copy(update={"overdue": len(reminders), "reminders": reminders[:MAX_REMINDERS]})


async def look_at_pending(step: Step, request: RecheckRequest) -> RecheckReport:
    """Count what has not ended, by state and cause."""
    seen = 0
    counts: Counter[RunState] = Counter()
    causes: Counter[str] = Counter()
    complete = True
    for state in (RunState.QUEUED, RunState.RUNNING, RunState.WAITING):
        cursor: str | None = None
        while True:
            page, cursor = await step.rooms.runs.list(
                step.tenant, state=state, workflow=request.workflow, cursor=cursor, limit=PAGE
            )
            seen += len(page)
            counts[state] += len(page)
            if state is RunState.WAITING:
                causes.update(str(view.cause) for view in page)
            if cursor is None or seen >= MAX_PENDING:
                complete &= cursor is None
                break
    return RecheckReport(
        pending=seen,
        queued=counts[RunState.QUEUED],
        running=counts[RunState.RUNNING],
        waiting_by_cause=dict(causes),
        overdue=0,
        reminders=[],
        complete=complete,
    )


async def remind_reviewers(step: Step, _: RecheckRequest) -> list[Reminder]:
    """Remind of what is overdue. Reminding twice after a crash does no harm."""
    return [
        Reminder(review_id=one.review_id, run_id=one.run_id, title=one.title, due_at=one.due_at.isoformat())
        for one in await step.rooms.reviews.remind_overdue(step.tenant)
    ]


class FeedChanged(BaseModel):
    """What the poller saw."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    change: FeedChange


class FeedSummary(BaseModel):
    """The new entries in short: their titles, or the beginning of a text that is no feed."""

    url: str
    new_entries: int
    headlines: list[str]
    complete: bool


@workflow("feed-changed", version="1", lane=Lane.BACKGROUND)
async def feed_changed(run: Run, changed: FeedChanged) -> FeedSummary:
    """Keep what is new."""
    summary = await run.step(summarise, changed)
    run.outcome("new entries" if summary.new_entries else "changed")
    return summary


async def summarise(_: Step, changed: FeedChanged) -> FeedSummary:
    """Titles of the entries; of a plain page, how it begins."""
    change = changed.change
    headlines = [_short(entry.title or entry.content or entry.id) for entry in change.entries]
    if not headlines and change.content:
        headlines = [_short(change.content)]
    return FeedSummary(
        url=change.url,
        new_entries=len(change.entries),
        headlines=headlines[:MAX_HEADLINES],
        complete=not change.truncated and len(headlines) <= MAX_HEADLINES,
    )


class EventReceived(BaseModel):
    """What started the run."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    event: TriggerEvent


class EventSummary(BaseModel):
    """The event in short: its name and key, and the beginning of what was sent with it."""

    event: str
    key: str
    payload: str


@workflow("event-received", version="1", lane=Lane.BACKGROUND)
async def event_received(run: Run, received: EventReceived) -> EventSummary:
    """Keep what happened."""
    summary = await run.step(keep, received)
    run.outcome("received")
    return summary


async def keep(_: Step, received: EventReceived) -> EventSummary:
    """The payload as JSON, cut to a line."""
    event = received.event
    return EventSummary(event=event.event, key=event.key, payload=_short(json.dumps(event.payload, ensure_ascii=False)))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 1] + "…"

"""Runs as JSON. Money in micro-USD (1 USD = 1,000,000), times in UTC."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from core.runs.history import Relatives
from core.runs.model import BatchProgress, Cause, Lane, RunEvent, RunRequest, RunState, RunView, StepView
from core.runs.waiting import Standing

LaneName = Literal["urgent", "normal", "background"]
BATCH_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"

APPLICATION: dict[str, Any] = {
    "workflow": "loan-approval",
    "input": {
        "application_id": "1",
        "reports": 0,
        "age": 37.67,
        "income": 4.52,
        "share": 0.033,
        "expenditure": 124.98,
        "owner": True,
        "selfemp": False,
        "dependents": 3,
        "months": 54,
        "majorcards": 1,
        "active": 12,
    },
}


class RunIn(BaseModel):
    """What is asked for."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [APPLICATION]})

    workflow: str = Field(min_length=1, max_length=200, description="Name of a registered workflow.")
    input: dict[str, Any] = Field(default_factory=dict, description="The workflow's input, at most 256 KiB.")
    version: str | None = Field(None, min_length=1, max_length=50, description="Default: the newest.")
    lane: LaneName | None = Field(None, description="Priority inside the tenant. Default: the workflow's.")
    batch_id: str | None = Field(None, pattern=BATCH_NAME, description="Counts the run to this batch.")

    def request(self, **given: Any) -> RunRequest:
        """For the runs room."""
        lane = None if self.lane is None else Lane[self.lane.upper()]
        wanted = {"workflow": self.workflow, "input": self.input, "version": self.version, "lane": lane}
        return RunRequest(**{**wanted, "batch_id": self.batch_id, **given})


class BatchItemIn(BaseModel):
    """One run of a batch."""

    model_config = ConfigDict(extra="forbid")

    workflow: str = Field(min_length=1, max_length=200, description="Name of a registered workflow.")
    input: dict[str, Any] = Field(default_factory=dict, description="The workflow's input, at most 256 KiB.")
    version: str | None = Field(None, min_length=1, max_length=50, description="Default: the newest.")
    lane: LaneName | None = Field(None, description="Priority inside the tenant. Default: the workflow's.")
    idempotency_key: str | None = Field(
        None, min_length=1, max_length=200, description="As the header Idempotency-Key of a single run."
    )


class BatchIn(BaseModel):
    """Up to 1,000 runs: all are submitted or none."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"runs": [APPLICATION, APPLICATION]}]})

    runs: list[BatchItemIn] = Field(min_length=1, max_length=1_000)
    batch_id: str | None = Field(None, pattern=BATCH_NAME, description="Default: one is made.")


class RunOut(BaseModel):
    """A run."""

    run_id: str
    workflow: str
    version: str
    lane: LaneName
    state: RunState = Field(description="queued, running, waiting; succeeded, failed, cancelled and dead are final.")
    cause: Cause | None = Field(description="Why it is queued or waits.")
    source: str = Field(description="What started it: api, chat, dashboard, cli, schedule, poller, trigger or run.")
    batch_id: str | None
    thread_id: str | None = Field(description="The conversation it was started from.")
    input: dict[str, Any]
    output: Any
    outcome: str | None = Field(description="The workflow's own word for how it ended, e.g. `declined`.")
    error: dict[str, Any] | None
    progress: dict[str, Any] | None
    attempt: int
    cost_microusd: int
    budget_microusd: int
    worker_seconds: float
    submitted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    held: bool = Field(description="Somebody paused it; while it executes, it goes on until its next step.")
    forked_from: str | None = Field(description="The run whose first steps it was given.")
    parent_run_id: str | None = Field(description="The run that spawned it.")
    undoing: bool = Field(description="It undoes what it did, on its way to its end, and cannot be paused.")

    @classmethod
    def of(cls, view: RunView) -> Self:
        """As the API shows it."""
        shown = {name: getattr(view, name) for name in cls.model_fields if name != "lane"}
        return cls(lane=lane_name(view.lane), **shown)


class StartsInOut(BaseModel):
    """Seconds until a queued run starts, if nobody comes or goes. An estimate, no promise."""

    model_config = ConfigDict(from_attributes=True)

    soonest_s: float = Field(description="If no other organisation wanted slots.")
    latest_s: float = Field(description="With the share of the slots that the organisation gets now.")


class RunDetailOut(RunOut):
    """A run, what it has waited for, and when it should start."""

    waited_s: dict[Cause, float] = Field(
        description="Seconds of waiting by cause, in the queue and parked; together all of its waiting so far."
    )
    starts_in: StartsInOut | None = Field(description="While it is queued; null: it is not, or nobody can know.")
    children: dict[RunState, int] = Field(description="How many runs that it spawned are in which state.")

    @classmethod
    def detailed(cls, view: RunView, standing: Standing, relatives: Relatives) -> Self:
        """As the API shows it."""
        found = standing.starts_in
        return cls(
            **dict(RunOut.of(view)),
            waited_s={cause: round(seconds, 3) for cause, seconds in standing.waited_s.items()},
            starts_in=None if found is None else StartsInOut.model_validate(found),
            children=relatives.counts,
        )


class RunsOut(BaseModel):
    """One page of runs."""

    runs: list[RunOut]
    next_cursor: str | None = Field(description="For the next page; null: this is the last.")


class SubmittedOut(BaseModel):
    """A submitted run of a batch."""

    run_id: str
    state: RunState


class BatchSubmittedOut(BaseModel):
    """The runs of a batch, in the order of the request."""

    batch_id: str
    runs: list[SubmittedOut]


class StepOut(BaseModel):
    """One attempt of one step."""

    model_config = ConfigDict(from_attributes=True)

    step: int
    attempt: int
    name: str
    kind: str
    state: str
    cost_microusd: int
    model: str | None = Field(description="The model that was called, if one was.")
    started_at: datetime
    finished_at: datetime | None
    error: dict[str, Any] | None


class StepsOut(BaseModel):
    """What a run did so far."""

    steps: list[StepOut]

    @classmethod
    def of(cls, steps: list[StepView]) -> Self:
        """As the API shows them."""
        return cls(steps=[StepOut.model_validate(step) for step in steps])


class EventOut(BaseModel):
    """Something that happened to a run."""

    model_config = ConfigDict(from_attributes=True)

    seq: int = Field(description="Counts from 1 without gaps.")
    at: datetime
    kind: str
    data: dict[str, Any]

    @classmethod
    def of(cls, event: RunEvent) -> Self:
        """As the API shows it."""
        return cls.model_validate(event)


class ChangeOut(BaseModel):
    """A run of the tenant has changed its state; what is unknown or does not apply is left out."""

    run_id: str
    state: str
    cause: str | None = Field(None, description="Why it waits.")
    batch_id: str | None = None
    thread_id: str | None = None


class SentEventIn(BaseModel):
    """An event for the runs that wait, or will wait, for this name and key."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"name": "document-signed", "key": "contract-17", "payload": {"by": "mia"}}]},
    )

    name: str = Field(min_length=1, max_length=200)
    key: str = Field(min_length=1, max_length=200)
    payload: dict[str, Any] = Field(default_factory=dict)


class SentEventOut(BaseModel):
    """Whether the event is new."""

    new: bool = Field(description="False: this name and key were sent before; the first payload counts.")


class EventsOut(BaseModel):
    """Up to 1,000 events of a run."""

    events: list[EventOut]


class BatchOut(BaseModel):
    """How far the runs of a batch are."""

    model_config = ConfigDict(from_attributes=True)

    batch_id: str
    total: int
    queued: int
    queued_by_cause: dict[str, int]
    running: int
    waiting: int
    waiting_by_cause: dict[str, int]
    succeeded: int
    failed: int
    cancelled: int
    dead: int
    finished: int
    by_outcome: dict[str, int] = Field(description="The workflows' own words for how they ended.")
    cost_microusd: int

    @classmethod
    def of(cls, progress: BatchProgress) -> Self:
        """As the API shows it."""
        return cls.model_validate(progress)


class ReasonOut(BaseModel):
    """How often a reason was given."""

    model_config = ConfigDict(from_attributes=True)

    reason: str
    count: int


class ReasonsOut(BaseModel):
    """Why applications were declined, the most frequent reason first."""

    reasons: list[ReasonOut]


def lane_name(lane: Lane) -> LaneName:
    """The lane's word."""
    names: dict[Lane, LaneName] = {Lane.URGENT: "urgent", Lane.NORMAL: "normal", Lane.BACKGROUND: "background"}
    return names[lane]

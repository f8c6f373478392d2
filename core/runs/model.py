"""Runs: their states, what is asked for, what is seen of them.

States and the verbs between them are drawn in ``core/db/migrations/0002_runs_queue.sql``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any

from core.errors import InvalidInput, PayloadTooLarge
from core.ids import RunId
from core.queue.model import code_of

MAX_INPUT_BYTES = 256 * 1024
MAX_KEY_LENGTH = 200


class RunState(StrEnum):
    """Where a run stands. The last four are final."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD = "dead"

    @property
    def final(self) -> bool:
        """Whether nothing happens any more."""
        return self in (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED, RunState.DEAD)


class Lane(IntEnum):
    """Priority inside a tenant; it means nothing to other tenants."""

    URGENT = 0
    NORMAL = 1
    BACKGROUND = 2


class Cause(StrEnum):
    """Why a run does not execute right now.

    Queued: cap, share, no_worker, no_code, paused (the tenant). Waiting: the others, and paused (the run).
    """

    CAP = "cap"
    SHARE = "share"
    NO_WORKER = "no_worker"
    NO_CODE = "no_code"
    PAUSED = "paused"
    REVIEW = "review"
    TIMER = "timer"
    EVENT = "event"
    RATE = "rate"
    ENDPOINT = "endpoint"
    BUDGET = "budget"
    CHILDREN = "children"


@dataclass(frozen=True, slots=True)
class Standstill:
    """Why the queued runs of a tenant have not started yet: ``cause``, unless no worker that lives has their code.

    ``codes``: the code that workers have; None: one of them executes whatever there is. ``full``: workflows that are at
    a cap of their own in the tenant.
    """

    cause: Cause
    codes: frozenset[str] | None = None
    full: frozenset[str] = frozenset()

    def of(self, workflow: str, version: str) -> Cause:
        """Why a run of this version has not started."""
        if self.codes is None or code_of(workflow, version) in self.codes:
            return Cause.CAP if self.cause is Cause.SHARE and workflow in self.full else self.cause
        return self.cause if self.cause in (Cause.PAUSED, Cause.NO_WORKER) else Cause.NO_CODE


@dataclass(frozen=True, slots=True)
class Fork:
    """The run whose records of the steps before ``from_step`` (counted from 1) a new one is given."""

    run_id: RunId
    from_step: int


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a submission asks for. ``input`` is JSON; ``lane`` and ``version`` default to the workflow's."""

    workflow: str
    input: Mapping[str, Any]
    version: str | None = None
    lane: Lane | None = None
    idempotency_key: str | None = None
    batch_id: str | None = None
    thread_id: str | None = None
    parent_run_id: str | None = None
    parent_step: int | None = None
    source: str = "api"
    fork: Fork | None = None

    def digest(self) -> bytes:
        """What must agree when an idempotency key comes again: workflow, version, lane, batch, input, parent, fork."""
        body: list[Any] = [self.workflow, self.version, self.lane, self.batch_id, self.input]
        if self.parent_run_id is not None:
            body += [self.parent_run_id, self.parent_step]
        if self.fork is not None:
            body += [self.fork.run_id, self.fork.from_step]
        return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode()).digest()


@dataclass(frozen=True, slots=True)
class RunView:
    """A run as its tenant sees it. Money in micro-USD, times in UTC.

    ``held``: somebody paused it; while it executes it goes on until its next step. ``forked_from``: the run whose first
    steps it was given. ``undoing``: it is on its way to a bad end and undoes what it did; nobody can pause it.
    """

    run_id: RunId
    workflow: str
    version: str
    lane: Lane
    state: RunState
    cause: Cause | None
    source: str
    batch_id: str | None
    thread_id: str | None
    user_id: str | None
    input: dict[str, Any]
    output: Any
    outcome: str | None
    error: dict[str, Any] | None
    progress: dict[str, Any] | None
    attempt: int
    cost_microusd: int
    budget_microusd: int
    worker_seconds: float
    submitted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    held: bool
    forked_from: RunId | None
    parent_run_id: str | None = None
    undoing: bool = False


@dataclass(frozen=True, slots=True)
class StepView:
    """One attempt of one step."""

    step: int
    attempt: int
    name: str
    kind: str
    state: str
    cost_microusd: int
    model: str | None
    started_at: datetime
    finished_at: datetime | None
    error: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Began:
    """A run's executions so far: since when, and what they were told. ``compensating``: the end it is undoing for."""

    started_at: datetime | None
    cancel_requested: bool
    compensating: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class RunEvent:
    """Something that happened to a run; ``seq`` counts from 1 without gaps."""

    seq: int
    at: datetime
    kind: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """Something a run says while it executes: the kind of the event, and its content."""

    kind: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ReasonCount:
    """How often a reason was given."""

    reason: str
    count: int


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How far the runs of one batch are."""

    batch_id: str
    total: int
    queued: int
    running: int
    waiting_by_cause: dict[str, int]
    succeeded: int
    failed: int
    cancelled: int
    by_outcome: dict[str, int]
    cost_microusd: int
    queued_by_cause: dict[str, int] = field(default_factory=dict)
    dead: int = 0

    @property
    def waiting(self) -> int:
        """Parked, whatever the cause."""
        return sum(self.waiting_by_cause.values())

    @property
    def finished(self) -> int:
        """In a final state."""
        return self.succeeded + self.failed + self.cancelled + self.dead


def progress_of(batch_id: str, rows: Sequence[Mapping[str, Any]], standstill: Standstill) -> BatchProgress:
    """Add up rows of state, cause, outcome, workflow, version, runs and cost; ``standstill``: why queued ones wait."""
    states = dict.fromkeys(RunState, 0)
    waiting: dict[str, int] = {}
    queued: dict[str, int] = {}
    outcomes: dict[str, int] = {}
    for row in rows:
        states[RunState(row["state"])] += row["runs"]
        if row["state"] == RunState.WAITING:
            waiting[row["cause"]] = waiting.get(row["cause"], 0) + row["runs"]
        if row["state"] == RunState.QUEUED:
            cause = standstill.of(row["workflow"], row["version"])
            queued[cause] = queued.get(cause, 0) + row["runs"]
        if row["outcome"]:
            outcomes[row["outcome"]] = outcomes.get(row["outcome"], 0) + row["runs"]
    return BatchProgress(
        batch_id=batch_id,
        total=sum(states.values()),
        queued=states[RunState.QUEUED],
        running=states[RunState.RUNNING],
        waiting_by_cause=waiting,
        succeeded=states[RunState.SUCCEEDED],
        failed=states[RunState.FAILED],
        cancelled=states[RunState.CANCELLED],
        by_outcome=outcomes,
        cost_microusd=sum(row["cost_microusd"] for row in rows),
        queued_by_cause=queued,
        dead=states[RunState.DEAD],
    )


def check_request(request: RunRequest) -> None:
    """Raise ``InvalidInput`` or ``PayloadTooLarge`` for what can never be admitted."""
    check_payload("input", request.input)
    key = request.idempotency_key
    if key is not None and not 1 <= len(key) <= MAX_KEY_LENGTH:
        raise InvalidInput(f"An idempotency key has 1 to {MAX_KEY_LENGTH} characters.")


def check_payload(name: str, payload: Any) -> None:
    """Raise ``InvalidInput`` for what is no JSON and ``PayloadTooLarge`` beyond 256 KiB. ``name``: "input"."""
    try:
        size = len(json.dumps(payload, ensure_ascii=False, allow_nan=False).encode())
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"The {name} is not JSON.") from error
    if size > MAX_INPUT_BYTES:
        raise PayloadTooLarge(
            f"The {name} has {size} bytes; at most {MAX_INPUT_BYTES} are taken.", limit=MAX_INPUT_BYTES
        )


def queued_cause(paused: bool, running: int, cap: int, live_slots: int, *, blocked: bool) -> Cause:
    """Why a queued run of a tenant has not started yet: the first of these that is true.

    ``blocked``: all that the tenant has queued is at a cap of its user or workflow.
    """
    if paused:
        return Cause.PAUSED
    if live_slots == 0:
        return Cause.NO_WORKER
    if running >= cap or blocked:
        return Cause.CAP
    return Cause.SHARE

"""What the fair queue hands out: claims, and runs that were woken or recovered."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from core.ids import RunId, TenantId, UserId

HEADROOM = 0.05
"""Share of all slots, at least one, kept for quiet tenants, unless ``queue_headroom`` is set; who is one is told in
core/db/migrations/0003_queue.sql."""


HEARTBEAT_S = 2.0
"""How often a worker that holds runs says that it lives."""

DEAD_AFTER_S = 8.0
"""Silence after which a worker's runs are taken over by others."""

IDLE_LOOK_S = 900.0
"""How often a process with nothing to do looks for what it may have missed.

Longer than the five minutes without a question after which a serverless Postgres (Neon) goes to sleep: a
shorter look would keep it awake for ever. Wake-ups come by signal; a look is for one that was never sent,
because its sender died after its commit.
"""

ALIVE = timedelta(minutes=1)
"""A worker that holds runs is held to live for so long after it was heard of."""

ALIVE_IDLE = timedelta(seconds=IDLE_LOOK_S) + ALIVE
"""The same of one that holds nothing, and speaks at its idle looks only."""

_SHORTEST_LOOK_S = 60.0


@dataclass(frozen=True, slots=True)
class Held:
    """A run as one claim of it, counted from 1: once it was given or taken back, or claimed again, nothing matches."""

    run_id: RunId
    claim: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that this worker now holds a slot for.

    ``attempt`` counts claims, from 1. ``burst``: the slot is one over the tenant's cap, lent while nobody else
    could use it.
    """

    run_id: RunId
    tenant_id: TenantId
    user_id: UserId | None
    workflow: str
    version: str
    input: dict[str, Any]
    attempt: int
    thread_id: str | None
    batch_id: str | None
    budget_microusd: int
    submitted_at: datetime
    burst: bool

    @property
    def held(self) -> Held:
        """The run under this claim."""
        return Held(self.run_id, self.attempt)


class Claims(list[Claim]):
    """The runs of one claim. ``again_at``: when to claim again though nothing changes, because what is queued may have
    a free slot from then on; None: it is no use before something changes."""

    def __init__(self, runs: Iterable[Claim] = (), again_at: datetime | None = None) -> None:
        super().__init__(runs)
        self.again_at = again_at


@dataclass(frozen=True, slots=True)
class Requeued:
    """A run that goes on: its wait was over, or its worker is gone. ``state``: where it stands from then on.

    ``closed``: how many questions to people are over with it.
    """

    tenant_id: TenantId
    run_id: RunId
    reason: str
    state: str = "queued"
    closed: int = 0

    @property
    def dead(self) -> bool:
        """Too many of its executions have died or broken: it does not go on."""
        return self.state == "dead"


@dataclass(frozen=True, slots=True)
class Stopped:
    """What a cancellation found and left: the states of the run before and after it, and how many questions it closed.

    ``queued`` after: it did what can be undone, and executes once more.
    """

    was: str
    state: str
    closed: int


@dataclass(frozen=True, slots=True)
class Live:
    """The workers that live: their slots, and the code they have; None: one of them executes whatever there is."""

    slots: int
    codes: frozenset[str] | None


class Topic:
    """Names of the wake-up signals."""

    WORKERS = "workers"
    SCHEDULER = "scheduler"
    CANCEL = "cancel"


def code_of(workflow: str, version: str) -> str:
    """What a worker must have to execute a run of this version; the database writes it alike."""
    return f"{workflow}@{version}"


def idle_look_s(now: datetime) -> float:
    """Seconds until the next idle look: at the next quarter of an hour that is a minute away or more.

    All processes look at the same moments, so together they wake a sleeping database once and not each.
    """
    left_s = IDLE_LOOK_S - now.timestamp() % IDLE_LOOK_S
    return left_s if left_s >= _SHORTEST_LOOK_S else left_s + IDLE_LOOK_S


def reserved_slots(slots: int, headroom: float) -> int:
    """Of so many slots, those that are kept for quiet tenants; the claim counts alike."""
    return max(1, math.ceil(slots * headroom)) if slots >= 2 else 0

"""A run's life as a list: its times in the queue, in a slot and parked, the attempts of its steps, its end. Pure.

    queued ──► slot ──► queued ──► …        each with its beginning, its end (None: it goes on), and
                 └────► waiting ──► queued   the causes of what was waited for

Who held a slot when is forgotten after a week. Of what lies before the passages that are still known, a wait is told
from the run's own events: from the parking to whatever happened next, so its time in the queue afterwards is in it.

Nothing here is content: no input, output, evidence or message, only names, times, causes, money and error codes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import zip_longest

from core.runs.model import Cause, RunState
from core.runs.waiting import ENDS_A_SLOT, SHORTEST_S, Parking, Passage, parked, queued_for
from core.usage.ladder import Rung


class Phase(StrEnum):
    """What an entry of a timeline tells of."""

    QUEUED = "queued"
    SLOT = "slot"
    STEP = "step"
    WAITING = "waiting"
    TOLD = "told"
    END = "end"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of one step, without its result. Money in micro-USD."""

    step: int
    attempt: int
    name: str
    kind: str
    state: str
    cost_microusd: int
    model: str | None
    started_at: datetime
    finished_at: datetime | None
    error_code: str | None


@dataclass(frozen=True, slots=True)
class Transition:
    """Something that happened to a run; cause (of a review: the act), step and attempt where it has them."""

    seq: int
    at: datetime
    kind: str
    cause: str | None
    step: int | None = None
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a timeline.

    ``name``: of the step, the cause of a wait, the kind of what was told, the final state. ``ended`` None: it goes on.
    ``waited``: seconds by cause, of a time in the queue or parked. ``attempt``: of a step. ``why``: of what was told.
    """

    phase: Phase
    name: str
    began: datetime
    ended: datetime | None
    waited: dict[Cause, float] = field(default_factory=dict)
    attempt: Attempt | None = None
    burst: bool = False
    why: str = ""

    def lasted_s(self, now: datetime) -> float:
        """Seconds from its beginning to its end, or until now."""
        return max(0.0, ((self.ended or now) - self.began).total_seconds())


_TOLD = frozenset(
    {"cancel_requested", "compensating", "handed_back", "overrun", "pause_requested"}
    | {"recovered", "resumed", "retried"}
    | {f"budget_{rung}" for rung in Rung if rung is not Rung.PARK}
    | {"budget_raised", "budget_set", "budget_stopped"}
)
_ORDER = tuple(Phase)


def parkings_of(transitions: Sequence[Transition]) -> list[Parking]:
    """When a run was parked, what for, and when it ended; oldest first."""
    return [
        Parking(each.at, Cause(each.cause) if each.kind == RunState.WAITING and each.cause else None)
        for each in transitions
        if each.kind in ENDS_A_SLOT
    ]


def timeline(
    passages: Sequence[Passage], attempts: Sequence[Attempt], transitions: Sequence[Transition], now: datetime
) -> list[Entry]:
    """Everything that is known of a run, in the order in which it began."""
    parkings = parkings_of(transitions)
    entries = [
        *_remembered(transitions, passages[0].queued_at if passages else None, now),
        *_passed(passages, parkings, now),
        *(Entry(Phase.STEP, each.name, each.started_at, each.finished_at, attempt=each) for each in attempts),
        *(
            Entry(Phase.TOLD, each.kind, each.at, each.at, why=each.cause or "")
            for each in transitions
            if each.kind in _TOLD
        ),
        *(
            Entry(Phase.END, each.kind, each.at, each.at)
            for each in transitions
            if each.kind in ENDS_A_SLOT and each.kind != RunState.WAITING
        ),
    ]
    return sorted(entries, key=lambda entry: (entry.began, _ORDER.index(entry.phase)))


def waited_in(entries: Sequence[Entry]) -> dict[Cause, float]:
    """Seconds waited in all of a timeline, by cause."""
    waited: dict[Cause, float] = {}
    for entry in entries:
        for cause, seconds in entry.waited.items():
            waited[cause] = waited.get(cause, 0.0) + seconds
    return waited


def _remembered(transitions: Sequence[Transition], before: datetime | None, now: datetime) -> Iterator[Entry]:
    """Waits from before the first passage that is known."""
    for each, following in zip_longest(transitions, transitions[1:]):
        if each.kind != RunState.WAITING or each.cause is None or (before is not None and each.at >= before):
            continue
        moments = [moment for moment in (before, following.at if following else None) if moment is not None]
        ended = min(moments, default=None)
        waited = {Cause(each.cause): ((ended or now) - each.at).total_seconds()}
        yield Entry(Phase.WAITING, each.cause, each.at, ended, waited)


def _passed(passages: Sequence[Passage], parkings: Sequence[Parking], now: datetime) -> Iterator[Entry]:
    released: datetime | None = None
    for passage in passages:
        if released is not None:
            yield from _parked(released, passage.queued_at, parkings, now)
        waited = {cause: s for cause, s in queued_for(passage, now).items() if s >= SHORTEST_S}
        yield Entry(Phase.QUEUED, Phase.QUEUED.value, passage.queued_at, passage.claimed_at, waited)
        if passage.claimed_at is not None and passage.claimed_at != passage.released_at:  # else it left without one
            yield Entry(
                Phase.SLOT, Phase.SLOT.value, passage.claimed_at, passage.released_at, burst=bool(passage.burst)
            )
        released = passage.released_at
    if released is not None:
        yield from _parked(released, None, parkings, now)


def _parked(released: datetime, until: datetime | None, parkings: Sequence[Parking], now: datetime) -> Iterator[Entry]:
    for cause, began, ended in parked(released, until, parkings):
        seconds = max(0.0, ((ended or now) - began).total_seconds())
        if seconds >= SHORTEST_S:
            yield Entry(Phase.WAITING, cause.value, began, ended, {cause: seconds})

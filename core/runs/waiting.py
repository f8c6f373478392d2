"""What a run waited for: all of its waiting, divided by cause. Pure.

From its submission on a run is, at every moment, in the queue, in a slot, parked, or ended. Its times in the queue are
divided by the queue's clocks (cap, paused, no worker, none with its code; the rest was the share of others); a time
between two entries into the queue is the wait that the run named when it gave back its slot. So the seconds add up to
the whole, and nothing is left to guess. Somebody who pauses or resumes a parked run changes its cause from then on.
What lies between a failure and a retry is no wait.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest

from core.queue.estimate import StartsIn
from core.runs.model import Cause, RunState

SHORTEST_S = 0.001
"""Below it lies what clocks lose when they are written down."""


ENDS_A_SLOT = (RunState.WAITING, RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED, RunState.DEAD)
"""Events after which a run holds no slot, and waits for nothing else than they say."""


@dataclass(frozen=True, slots=True)
class Passage:
    """One time in the queue and in a slot. ``capped_s`` and the others divide its time in the queue."""

    queued_at: datetime
    claimed_at: datetime | None
    released_at: datetime | None
    burst: bool | None
    capped_s: float
    paused_s: float
    no_worker_s: float
    no_code_s: float


@dataclass(frozen=True, slots=True)
class Parking:
    """From then on a run was parked for a cause, or (None) had ended."""

    at: datetime
    cause: Cause | None


@dataclass(frozen=True, slots=True)
class Standing:
    """What a run has waited for, in seconds by cause, and, while it is queued, when it will probably start."""

    waited_s: dict[Cause, float]
    starts_in: StartsIn | None


def by_cause(passages: Sequence[Passage], parkings: Sequence[Parking], until: datetime) -> dict[Cause, float]:
    """Seconds a run has waited until now (or its end), by cause; what took less than a millisecond is left out."""
    waited: dict[Cause, float] = {}
    released: datetime | None = None
    for passage in passages:
        if released is not None:
            _park(waited, released, passage.queued_at, parkings)
        _queue(waited, passage, until)
        released = passage.released_at
    if released is not None:
        _park(waited, released, until, parkings)
    return {cause: seconds for cause, seconds in waited.items() if seconds >= SHORTEST_S}


def queued_for(passage: Passage, until: datetime) -> dict[Cause, float]:
    """Seconds of one passage's time in the queue, until now if it is still there, by cause; the rest is the share."""
    left_s = max(0.0, ((passage.claimed_at or until) - passage.queued_at).total_seconds())
    parts: dict[Cause, float] = {}
    for cause, seconds in (
        (Cause.PAUSED, passage.paused_s),
        (Cause.CAP, passage.capped_s),
        (Cause.NO_WORKER, passage.no_worker_s),
        (Cause.NO_CODE, passage.no_code_s),
    ):
        parts[cause] = min(max(0.0, seconds), left_s)  # clocks of several machines may differ by a little
        left_s -= parts[cause]
    return parts | {Cause.SHARE: left_s}


def parked(
    released: datetime, until: datetime | None, parkings: Sequence[Parking]
) -> Iterator[tuple[Cause, datetime, datetime | None]]:
    """What a run was parked for after it had given a slot back, from when to when; None: it still is.

    Nothing after its end, which a retry may follow. ``parkings``: oldest first.
    """
    known = [parking for parking in parkings if parking.at <= released][-1:]
    known += [parking for parking in parkings if parking.at > released and (until is None or parking.at < until)]
    for parking, following in zip_longest(known, known[1:]):
        if parking.cause is not None:
            yield parking.cause, max(released, parking.at), following.at if following else until


def _queue(waited: dict[Cause, float], passage: Passage, until: datetime) -> None:
    for cause, seconds in queued_for(passage, until).items():
        waited[cause] = waited.get(cause, 0.0) + seconds


def _park(waited: dict[Cause, float], released: datetime, until: datetime, parkings: Sequence[Parking]) -> None:
    for cause, began, ended in parked(released, until, parkings):
        waited[cause] = waited.get(cause, 0.0) + max(0.0, ((ended or until) - began).total_seconds())

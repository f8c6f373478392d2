"""May these runs enter the queue? The tenant's quotas, what its operator wants, the load of the platform. Pure.

The first reason that holds refuses, and every refusal says what to do next:

    draining      the operator lets the tenant run dry              503, look again in a minute
    daily runs    counted by the tenant's local day, exactly        429, until its midnight
    open runs     queued, executing or parked at once, exactly      429, until enough of them have ended
    queue depth   runs the tenant may have queued                   429, until enough of them have started
    overload      runs queued on the whole platform, by lane        503, until enough of them have started

**Load is shed from the lowest lane up**: background runs are refused when the platform's queues are 70 % full,
normal ones at 85 %, urgent ones when they are full. A tenant with hardly anything queued did not fill them: what it
submits in the lanes normal and urgent is taken until they are full.

``Retry-After`` is the time in which as many runs start (or end) as are too many, at the rate of the last minute; at
least a second and at most a quarter of an hour, which is also said when nothing has left lately. More runs at once than
a quota ever lets in are refused for good (422): no time to wait would be true.

How many runs execute at once is no reason to refuse: beyond its cap a tenant's runs queue inside the tenant. The steps
of a run and its duration are limited while it executes (``core.workflows.performing``, ``core.runs.duration``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import assert_never
from zoneinfo import ZoneInfo

from core.errors import BailiwickError, Draining, Overloaded, QuotaExceeded, TooManyRuns
from core.runs.model import Lane
from core.tenancy import Policy

SHED_AT = {Lane.URGENT: 1.0, Lane.NORMAL: 0.85, Lane.BACKGROUND: 0.7}
"""Share of the platform's limit at which a lane is refused."""

FEW_QUEUED = 100
"""A tenant with no more than this many queued runs, the new ones included, is not who fills the queues."""

SHORTEST_RETRY_S, LONGEST_RETRY_S, DRAINING_RETRY_S = 1.0, 900.0, 60.0


class Limit(StrEnum):
    """What a refusal is about; ``quota`` in its details."""

    DRAINING = "draining"
    DAILY_RUNS = "daily_runs"
    OPEN_RUNS = "open_runs"
    QUEUE_DEPTH = "queue_depth"
    PLATFORM = "platform_queue"


@dataclass(frozen=True, slots=True)
class Load:
    """What admission looks at: the tenant's runs admitted today (these included), queue depths and the limit of the
    platform's, whether the tenant is drained, and its open runs (counted up to its limit of them, if it has one)."""

    admitted_today: int
    tenant_queued: int
    platform_queued: int
    platform_limit: int
    draining: bool = False
    open_runs: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why runs may not enter, and how many runs are too many."""

    limit: Limit
    excess: int = 0

    @property
    def of_platform(self) -> bool:
        """Whether the whole platform's queue must become shorter, not only the tenant's."""
        return self.limit is Limit.PLATFORM

    @property
    def by_rate(self) -> bool:
        """Whether the time to wait follows from the rate at which runs start or end."""
        return self.limit in (Limit.OPEN_RUNS, Limit.QUEUE_DEPTH, Limit.PLATFORM)


def judge(policy: Policy, lane: Lane, count: int, load: Load) -> Refusal | None:
    """Whether ``count`` more runs, the lowest of them in ``lane``, may enter; None: they may."""
    if load.draining:
        return Refusal(Limit.DRAINING)
    if load.admitted_today > policy.daily_runs:
        return Refusal(Limit.DAILY_RUNS, load.admitted_today - policy.daily_runs)
    if policy.open_runs is not None and load.open_runs + count > policy.open_runs:
        return Refusal(Limit.OPEN_RUNS, load.open_runs + count - policy.open_runs)
    queued = load.tenant_queued + count
    if queued > policy.queue_depth:
        return Refusal(Limit.QUEUE_DEPTH, queued - policy.queue_depth)
    innocent = lane is not Lane.BACKGROUND and queued <= FEW_QUEUED
    threshold = math.floor(load.platform_limit * (1.0 if innocent else SHED_AT[lane]))
    excess = load.platform_queued + count - threshold
    return Refusal(Limit.PLATFORM, excess) if excess > 0 else None


def retry_after_s(excess: int, left_per_s: float) -> float:
    """Seconds until ``excess`` runs have left when ``left_per_s`` do; from 1 s to 15 minutes."""
    if left_per_s <= 0:
        return LONGEST_RETRY_S
    return min(max(excess / left_per_s, SHORTEST_RETRY_S), LONGEST_RETRY_S)


def refused(
    refusal: Refusal, policy: Policy, lane: Lane, count: int, load: Load, now: datetime, left_per_s: float
) -> BailiwickError:
    """The error to raise. ``left_per_s``: runs that left what is full per second, lately."""
    wait_s = retry_after_s(refusal.excess, left_per_s)
    match refusal.limit:
        case Limit.DRAINING:
            return Draining(
                "The operator drains this organisation: what is queued goes on, nothing new is taken. "
                "Submit again when the operator has ended it.",
                retry_after_s=DRAINING_RETRY_S,
            )
        case Limit.DAILY_RUNS:
            return _exceeded(
                refusal,
                count,
                policy.daily_runs,
                f"today. The quota of {policy.daily_runs} runs a day begins anew at midnight ({policy.timezone}).",
                seconds_to_midnight(now, policy.timezone),
            )
        case Limit.OPEN_RUNS:
            limit = policy.open_runs or 0
            return _exceeded(
                refusal,
                count,
                limit,
                f"now. At most {limit} runs may be open: queued, executing or parked. "
                "Submit again when some have ended.",
                wait_s,
            )
        case Limit.QUEUE_DEPTH:
            return _exceeded(
                refusal,
                count,
                policy.queue_depth,
                f"now. At most {policy.queue_depth} runs may be queued; {load.tenant_queued} are. "
                "Submit again when some have started.",
                wait_s,
                queued=load.tenant_queued,
            )
        case Limit.PLATFORM:
            return Overloaded(
                f"The platform is overloaded and takes no runs in lane {lane.name.lower()} at the moment. "
                "Submit again later" + (", or in a higher lane what cannot wait." if lane is not Lane.URGENT else "."),
                retry_after_s=wait_s,
                quota=refusal.limit.value,
                lane=lane.name.lower(),
            )
        case _:
            assert_never(refusal.limit)


def _exceeded(refusal: Refusal, count: int, most: int, when: str, wait_s: float, **details: int) -> QuotaExceeded:
    """How many of the runs would be taken, and when more; or that so many never are, however long one waits."""
    details |= {"limit": most}
    if count > most > 0:
        return TooManyRuns(
            f"{count} runs at once are more than can ever be taken; submit at most {most}.",
            quota=refusal.limit.value,
            **details,
        )
    room = max(0, count - refusal.excess)
    return QuotaExceeded(
        f"There is room for {room} more {'run' if room == 1 else 'runs'} {when}",
        retry_after_s=wait_s,
        quota=refusal.limit.value,
        **details,
    )


def seconds_to_midnight(now: datetime, timezone: str) -> float:
    """Seconds until the next local midnight; correct across clock changes."""
    zone = ZoneInfo(timezone)
    local = now.astimezone(zone)
    midnight = datetime.combine(local.date() + timedelta(days=1), datetime.min.time(), zone)
    return (midnight - now).total_seconds()

"""What a burst did to whom: waits, missed deadlines, fairness, slots in use. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

from core.queue.shares import Claimant, jain, max_min


@dataclass(frozen=True, slots=True)
class Passage:
    """One run as the API shows it: when it came, got a slot and ended."""

    run_id: str
    state: str
    submitted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, run: Mapping[str, Any]) -> Self:
        """From the API's JSON."""
        return cls(
            run["run_id"],
            run["state"],
            datetime.fromisoformat(run["submitted_at"]),
            _moment(run["started_at"]),
            _moment(run["finished_at"]),
        )

    @property
    def wait_s(self) -> float | None:
        """Seconds from submission to the slot; None while it has none."""
        return None if self.started_at is None else max(0.0, (self.started_at - self.submitted_at).total_seconds())

    def served_s(self, began: datetime, ended: datetime) -> float:
        """Seconds of a slot used between two moments."""
        if self.started_at is None:
            return 0.0
        until = ended if self.finished_at is None else min(self.finished_at, ended)
        return max(0.0, (until - max(self.started_at, began)).total_seconds())


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


@dataclass(frozen=True, slots=True)
class Part:
    """What one tenant submitted, and what the API knows of it. ``cap`` in slots."""

    name: str
    weight: float
    cap: int
    submitted: Collection[str]
    passages: Sequence[Passage]

    @property
    def waits(self) -> list[float]:
        """Of those that got a slot, in seconds."""
        return [passage.wait_s for passage in self.passages if passage.wait_s is not None]

    def count(self, *states: str) -> int:
        """How many are in these states."""
        return sum(passage.state in states for passage in self.passages)

    @property
    def lost(self) -> int:
        """Submitted, and unknown to the API."""
        return len(set(self.submitted) - {passage.run_id for passage in self.passages})

    def late(self, sla: timedelta) -> int:
        """Runs that did not end within the SLA, counted from their submission."""
        return sum(
            passage.finished_at is None or passage.finished_at - passage.submitted_at > sla for passage in self.passages
        )


def percentile(values: Sequence[float], share: float) -> float | None:
    """The least value that ``share`` of all values do not exceed; None when there are none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def backlog(part: Part) -> tuple[datetime, datetime] | None:
    """From the first submission of the burst to the last start of one of its runs; None when none has started."""
    starts = [passage.started_at for passage in part.passages if passage.started_at is not None]
    return (min(passage.submitted_at for passage in part.passages), max(starts)) if starts else None


def fairness(parts: Sequence[Part], began: datetime, ended: datetime, work_s: float) -> float | None:
    """Jain's index of worker-seconds served between two moments, each divided by the tenant's max-min share.

    The share divides what all got by weight among those who wanted it; nobody's is more than what they had submitted
    (``work_s`` a run), or their cap. 1: everybody got their share. That is the index as its authors define it; the
    plain one, over seconds per weight, blames a queue for tenants that asked for little.
    """
    window_s = (ended - began).total_seconds()
    served = {part.name: sum(one.served_s(began, ended) for one in part.passages) for part in parts}
    wanted = {part.name: min(part.cap * window_s, _wanted_s(part, began, ended, work_s)) for part in parts}
    claimants = {part.name: Claimant(max(wanted[part.name], served[part.name]), part.weight) for part in parts}
    shares = max_min(sum(served.values()), claimants)
    return jain(served[name] / share for name, share in shares.items() if share > 0)


def _wanted_s(part: Part, began: datetime, ended: datetime, work_s: float) -> float:
    """Seconds that would have been used between two moments, had every run started when it came."""
    spans = ((one.submitted_at, one.submitted_at + timedelta(seconds=work_s)) for one in part.passages)
    return sum(max(0.0, (min(until, ended) - max(since, began)).total_seconds()) for since, until in spans)


def report(
    parts: Sequence[Part], noisy: str, *, slots: int, work_s: float, sla_s: float, wall_s: float
) -> dict[str, Any]:
    """The one JSON object at the end. ``noisy`` names the tenant of the burst."""
    burst = next(part for part in parts if part.name == noisy)
    window = backlog(burst)
    busy = index = None
    if window is not None and window[1] > window[0]:
        began, ended = window
        served_s = sum(passage.served_s(began, ended) for part in parts for passage in part.passages)
        busy = round(served_s / (slots * (ended - began).total_seconds()), 4)
        index = _rounded(fairness(parts, began, ended, work_s))
    return {
        "burst_of": noisy,
        "tenants": {part.name: _of(part, None if part is burst else window, sla_s) for part in parts},
        "sla_s": sla_s,
        "jain": index,
        "slots": slots,
        "slots_busy": busy,
        "lost": sum(part.lost for part in parts),
        "wall_s": round(wall_s, 3),
    }


def _of(part: Part, window: tuple[datetime, datetime] | None, sla_s: float) -> dict[str, Any]:
    found: dict[str, Any] = {
        "submitted": len(part.submitted),
        "succeeded": part.count("succeeded"),
        "failed": part.count("failed", "cancelled", "dead"),
        "unfinished": part.count("queued", "running", "waiting"),
        "lost": part.lost,
        "wait_p50_s": _rounded(percentile(part.waits, 0.5)),
        "wait_p95_s": _rounded(percentile(part.waits, 0.95)),
        "sla_missed": part.late(timedelta(seconds=sla_s)),
    }
    if window is not None:
        calm = [one.wait_s for one in part.passages if one.submitted_at < window[0] and one.wait_s is not None]
        found["calm_wait_p95_s"] = _rounded(percentile(calm, 0.95))
    return found


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)

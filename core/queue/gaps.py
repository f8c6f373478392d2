"""When there was no worker, and when none had the code of a version: the table ``code_gaps`` as plain values. Pure.

    never had ──a worker with it comes──► there ──the last one goes or drains──► gone ──one comes──► there

What is never had is gone since before all time. Moments are whole microseconds, durations seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from core.queue.rows import Worker

ANY = "*"
"""The code of workers that execute whatever there is."""


@dataclass(slots=True)
class Gaps:
    """The seconds without any worker that takes runs, until ``alive_until_us`` when not None; the gaps of each code."""

    no_worker_s: float = 0.0
    alive_until_us: int | None = 0
    spans: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def follow(self, workers: Iterable[Worker], gone_us: int, now: int) -> None:
        """Workers came, went (and were there at ``gone_us``) or drain: begin and end gaps."""
        taking = [worker for worker in workers if not worker.draining]
        if taking:
            self.no_worker_s, self.alive_until_us = self.clock_s(now), None
        elif self.alive_until_us is None:
            self.alive_until_us = gone_us
        had = {code for worker in taking for code in ({ANY} if worker.codes is None else worker.codes)}
        for code in had:
            spans = self.spans.setdefault(code, [(-math.inf, math.inf)])
            if spans[-1][1] == math.inf:
                began, _ = spans.pop()
                if began < now:
                    spans.append((began, now))
        for code in self.spans.keys() - had:
            spans = self.spans[code]
            if spans[-1][1] < math.inf:
                spans.append((max(gone_us, spans[-1][1]), math.inf))

    def clock_s(self, now: int) -> float:
        """Seconds without any worker, ever, as of now."""
        return self.no_worker_s + (max(0, now - self.alive_until_us) / 1e6 if self.alive_until_us is not None else 0.0)

    def of_wait(self, code: str, queued_us: int, queued_clock_s: float, now: int, left_s: float) -> tuple[float, float]:
        """Of a wait's last ``left_s`` seconds, those without any worker, and those without one that has the code."""
        without_s = self.clock_s(now) - queued_clock_s
        no_worker_s = max(0.0, min(without_s, left_s))
        gone_s = self._gone_s(code, queued_us, now) - without_s
        return no_worker_s, max(0.0, min(gone_s, left_s - no_worker_s))

    def _gone_s(self, code: str, from_us: int, to_us: int) -> float:
        own, of_any = (self._between(one, from_us, to_us) for one in (code, ANY))
        overlaps = (min(one[1], other[1]) - max(one[0], other[0]) for one in own for other in of_any)
        return sum(max(0.0, overlap) for overlap in overlaps) / 1e6

    def _between(self, code: str, from_us: int, to_us: int) -> list[tuple[float, float]]:
        spans = self.spans.get(code, [(-math.inf, math.inf)])
        return [(max(began, from_us), min(ended, to_us)) for began, ended in spans if ended > from_us]

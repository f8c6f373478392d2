"""A circuit breaker: stops asking an endpoint that does not answer, and tries it again after a while.

    closed --N failures in a row--> open --after the pause--> half-open --success--> closed
                                      ^                            |
                                      +--------- failure ----------+  (the pause doubles, up to its limit)

One per endpoint and process; a half-open breaker lets one call through at a time. It keeps no clock: ``now_s``
is any steadily growing number of seconds.
"""

from __future__ import annotations

from enum import StrEnum


class BreakerState(StrEnum):
    """See the diagram above."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """State of one endpoint."""

    def __init__(self, *, failures: int = 5, pause_s: float = 5.0, longest_pause_s: float = 60.0) -> None:
        self._limit = failures
        self._first_pause_s = pause_s
        self._longest_pause_s = longest_pause_s
        self._failures = 0
        self._pause_s = pause_s
        self._opened_at_s: float | None = None
        self._probing = False

    def state(self, now_s: float) -> BreakerState:
        """Where it stands at ``now_s``."""
        if self._opened_at_s is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self.opens_in_s(now_s) > 0 else BreakerState.HALF_OPEN

    def opens_in_s(self, now_s: float) -> float:
        """Seconds until a call is tried again; 0 when one may be tried now."""
        if self._opened_at_s is None:
            return 0.0
        return max(0.0, self._opened_at_s + self._pause_s - now_s)

    def admit(self, now_s: float) -> bool:
        """May a call go out? Each admitted call must be followed by ``succeeded``, ``failed`` or ``abandoned``."""
        match self.state(now_s):
            case BreakerState.CLOSED:
                return True
            case BreakerState.OPEN:
                return False
            case BreakerState.HALF_OPEN:
                if self._probing:
                    return False
                self._probing = True
                return True

    def succeeded(self) -> None:
        """The endpoint answered."""
        self._failures = 0
        self._pause_s = self._first_pause_s
        self._opened_at_s = None
        self._probing = False

    def failed(self, now_s: float) -> None:
        """The endpoint did not answer."""
        self._failures += 1
        if self._opened_at_s is not None and self._probing:
            self._pause_s = min(self._pause_s * 2, self._longest_pause_s)
            self._opened_at_s = now_s
        elif self._opened_at_s is None and self._failures >= self._limit:
            self._opened_at_s = now_s
        self._probing = False

    def abandoned(self) -> None:
        """The caller gave up before the endpoint could answer; says nothing about the endpoint."""
        self._probing = False

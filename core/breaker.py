"""A circuit breaker: stops asking an endpoint that does not answer, and tries it again after a while.

    closed --N failures in a row--> open --after the pause--> half-open --success--> closed
                                      ^                            |
                                      +--------- failure ----------+  (the pause doubles, up to its limit)

A half-open breaker lets one call through at a time. It keeps no clock: ``now_s`` is any steadily growing number of
seconds.

``EndpointBreaker`` keeps one for each tenant that an endpoint fails, and one for the endpoint. A tenant's own opens on
its own failures: its account there, or what it sends, may be at fault. The endpoint's opens when breakers of two
tenants have opened since anybody was answered last; then whoever comes first when the pause is over tries for all, and
one answer closes it for all. So one tenant's failing integration keeps no other from calling, and a dead endpoint is
not called by each tenant in turn.

Only faults of the endpoint are to be told as failures: no connection, no answer in time, a server error. A refusal
(4xx) is an answer. What processes learn they share: ``core.shared_breaker``.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum

WITNESSES = 2
"""Tenants whose breakers must have opened before an endpoint is held to be down for everybody."""


class BreakerState(StrEnum):
    """See the diagram above."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """The state of calls of one kind."""

    def __init__(self, *, failures: int = 5, pause_s: float = 5.0, longest_pause_s: float = 60.0) -> None:
        self._limit = failures
        self._first_pause_s = pause_s
        self._longest_pause_s = longest_pause_s
        self._failures = 0
        self._pause_s = pause_s
        self._failing_since_s: float | None = None
        self._opened_at_s: float | None = None
        self._probing = False

    def state(self, now_s: float) -> BreakerState:
        """Where it stands at ``now_s``."""
        if self._opened_at_s is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self.opens_in_s(now_s) > 0 else BreakerState.HALF_OPEN

    @property
    def opened_at_s(self) -> float | None:
        """When it opened last; None: it is closed."""
        return self._opened_at_s

    @property
    def failing_since_s(self) -> float | None:
        """When the first of the failures in a row was; None: there is none."""
        return self._failing_since_s

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
        self._failing_since_s = self._opened_at_s = None
        self._probing = False

    def failed(self, now_s: float) -> None:
        """The endpoint did not answer."""
        self._failures += 1
        if self._failing_since_s is None:
            self._failing_since_s = now_s
        if self._opened_at_s is not None and self._probing:
            self._pause_s = min(self._pause_s * 2, self._longest_pause_s)
            self._opened_at_s = now_s
        elif self._opened_at_s is None and self._failures >= self._limit:
            self._opened_at_s = now_s
        self._probing = False

    def abandoned(self) -> None:
        """The caller gave up before the endpoint could answer; says nothing about the endpoint."""
        self._probing = False


class EndpointBreaker:
    """The breakers of one endpoint."""

    def __init__(self, *, failures: int = 5, pause_s: float = 5.0, longest_pause_s: float = 60.0) -> None:
        self._failures = failures
        self._pauses = {"pause_s": pause_s, "longest_pause_s": longest_pause_s}
        self._of_tenants: dict[str, Breaker] = {}
        self._of_all = Breaker(failures=1, **self._pauses)
        self._answered_at_s = float("-inf")

    def opens_in_s(self, tenant: str, now_s: float) -> float:
        """Seconds until a call of the tenant is tried again; 0 when one may be tried now."""
        own = self._of_tenants.get(tenant)
        return max(self._of_all.opens_in_s(now_s), 0.0 if own is None else own.opens_in_s(now_s))

    def open_for(self, now_s: float) -> tuple[int, bool]:
        """For how many tenants its own breaker is not closed, and whether the endpoint's is not."""
        return len(self._open()), self._of_all.state(now_s) is not BreakerState.CLOSED

    @property
    def failing(self) -> frozenset[str]:
        """The tenants that it failed last."""
        return frozenset(self._of_tenants)

    def is_news(self, tenant: str, answered_at_s: float) -> bool:
        """Whether it changes anything that a tenant was answered at a moment.

        It does after the tenant's failures in a row began, or after a witness's breaker opened: that is none any more.
        """
        own = self._of_tenants.get(tenant)
        failing_s = None if own is None else own.failing_since_s
        if failing_s is not None and answered_at_s > failing_s:
            return True
        return any(answered_at_s > (breaker.opened_at_s or 0.0) for breaker in self._witnesses())

    def is_trial(self, tenant: str) -> bool:
        """Whether a call that is admitted now tries whether the endpoint is back."""
        own = self._of_tenants.get(tenant)
        return self._of_all.opened_at_s is not None or (own is not None and own.opened_at_s is not None)

    def admit(self, tenant: str, now_s: float) -> bool:
        """May a call go out? Each admitted call must be followed by ``answered``, ``failed`` or ``abandoned``."""
        if self.opens_in_s(tenant, now_s) > 0 or not self._of_all.admit(now_s):
            return False
        own = self._of_tenants.get(tenant)
        if own is None or own.admit(now_s):
            return True
        self._of_all.abandoned()
        return False

    def answered(self, tenant: str, now_s: float) -> None:
        """The endpoint answered a call of the tenant."""
        if self._of_all.opened_at_s is not None:
            self._of_tenants.clear()
        self._of_tenants.pop(tenant, None)
        self._of_all.succeeded()
        self._answered_at_s = now_s

    def failed(self, tenant: str, now_s: float) -> None:
        """The endpoint did not answer a call of the tenant."""
        own = self._of_tenants.setdefault(tenant, Breaker(failures=self._failures, **self._pauses))
        own.failed(now_s)
        if self._of_all.opened_at_s is not None or len(self._witnesses()) >= WITNESSES:
            self._of_all.failed(now_s)

    def abandoned(self, tenant: str) -> None:
        """The tenant gave up before the endpoint could answer; says nothing about the endpoint."""
        if (own := self._of_tenants.get(tenant)) is not None:
            own.abandoned()
        self._of_all.abandoned()

    def _open(self) -> list[Breaker]:
        return [breaker for breaker in self._of_tenants.values() if breaker.opened_at_s is not None]

    def _witnesses(self) -> list[Breaker]:
        return [breaker for breaker in self._open() if (breaker.opened_at_s or 0.0) > self._answered_at_s]


class Bulkhead:
    """At most ``calls`` calls of each tenant at a time; further ones wait for a place."""

    def __init__(self, calls: int) -> None:
        self._calls = calls
        self._places: dict[str, asyncio.Semaphore] = {}
        self._users: Counter[str] = Counter()

    @asynccontextmanager
    async def place(self, tenant: str, wait_s: float) -> AsyncIterator[None]:
        """Hold a place. Raises ``TimeoutError`` when none is free within ``wait_s``."""
        await self.take(tenant, wait_s)
        try:
            yield
        finally:
            self.give_back(tenant)

    async def take(self, tenant: str, wait_s: float) -> None:
        """Take a place, to be given back once. Raises ``TimeoutError``."""
        places = self._places.setdefault(tenant, asyncio.Semaphore(self._calls))
        self._users[tenant] += 1
        try:
            async with asyncio.timeout(wait_s):
                await places.acquire()
        except BaseException:
            self._leave(tenant)
            raise

    def give_back(self, tenant: str) -> None:
        """The call is over."""
        self._places[tenant].release()
        self._leave(tenant)

    def _leave(self, tenant: str) -> None:
        self._users[tenant] -= 1
        if not self._users[tenant]:
            del self._users[tenant], self._places[tenant]

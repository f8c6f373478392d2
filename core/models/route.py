"""An endpoint with its connections, its bulkhead and its breaker, and how long one waits for it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

import httpx2

from core.breaker import Bulkhead
from core.models.metrics import ModelMetrics
from core.models.model import Endpoint
from core.shared_breaker import SharedBreaker


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a call may take. Seconds; ``attempts`` counts the first one."""

    connect_s: float = 5.0
    read_s: float = 120.0
    answer_s: float = 240.0
    attempts: int = 3
    first_pause_s: float = 0.5
    longest_pause_s: float = 8.0

    def pause_s(self, attempt: int) -> float:
        """How long to wait after this attempt: exponential, with full jitter."""
        return random.uniform(0, min(self.longest_pause_s, self.first_pause_s * 2 ** (attempt - 1)))  # noqa: S311


class Trouble(StrEnum):
    """Why an endpoint gave no answer that can be used."""

    UNREACHABLE = "not reached"
    TIMEOUT = "too slow"
    BUSY = "all our connections to it are in use"
    LIMITED = "at its rate limit"
    BROKEN = "answers with server errors"
    REFUSED = "does not take the request now"


class NoAnswerError(Exception):
    """The endpoint, or another one, may answer if asked again. ``wait_s`` None: do not ask this one again."""

    def __init__(self, trouble: Trouble, wait_s: float | None, told_wait_s: float | None = None) -> None:
        super().__init__(trouble)
        self.trouble = trouble
        self.wait_s = wait_s
        self.told_wait_s = told_wait_s


class Route:
    """An endpoint with its connections, its breaker and its bulkheads: ``calls`` at a time, so many of one tenant."""

    def __init__(
        self,
        endpoint: Endpoint,
        breaker: SharedBreaker,
        metrics: ModelMetrics,
        *,
        calls: int,
        calls_of_tenant: int,
    ) -> None:
        self.endpoint = endpoint
        self._breaker = breaker
        self._bulkhead = Bulkhead(calls_of_tenant)
        self._open = metrics.open_breakers.labels(endpoint.name)
        limits = httpx2.Limits(max_connections=calls, max_keepalive_connections=min(calls, 20), keepalive_expiry=30)
        self.transport = httpx2.AsyncHTTPTransport(limits=limits, trust_env=False)

    async def admit(self, tenant: str) -> bool:
        """May the tenant call it now?"""
        admitted = await self._breaker.admit(tenant)
        self._tell()  # others may have found something out
        return admitted

    async def enter(self, tenant: str, wait_s: float) -> None:
        """Take one of the tenant's places while the call is open. Raises ``NoAnswerError``: all are in use."""
        try:
            await self._bulkhead.take(tenant, wait_s)
        except TimeoutError:
            raise NoAnswerError(Trouble.BUSY, None) from None

    def leave(self, tenant: str) -> None:
        """The call is over."""
        self._bulkhead.give_back(tenant)

    def opens_in_s(self, tenant: str) -> float:
        """Seconds until the tenant may call it again."""
        return self._breaker.opens_in_s(tenant)

    def answered(self, tenant: str) -> None:
        """It answered, be it with a refusal."""
        self._breaker.answered(tenant)
        self._tell()

    def failed(self, tenant: str, trouble: Trouble) -> None:
        """It gave no answer: a busy pool is our own doing, a rate limit or refusal is an answer, the rest counts."""
        match trouble:
            case Trouble.BUSY:
                self.given_up(tenant)
            case Trouble.LIMITED | Trouble.REFUSED:
                self.answered(tenant)
            case Trouble.UNREACHABLE | Trouble.TIMEOUT | Trouble.BROKEN:
                self._breaker.failed(tenant)
                self._tell()

    def given_up(self, tenant: str) -> None:
        """The caller did not wait for the answer."""
        self._breaker.abandoned(tenant)

    async def close(self) -> None:
        """Tell other processes what there is to tell, then close every connection."""
        await self._breaker.settled()
        await self.transport.aclose()

    def _tell(self) -> None:
        tenants, everybody = self._breaker.open_for()
        self._open.set(1 if tenants or everybody else 0)

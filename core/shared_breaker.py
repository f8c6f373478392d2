"""A breaker that all processes of a region share: each reports what its calls came to, and all conclude the same.

    a call ends ──failed, or answered although something is held against the endpoint──► reported
    a call begins ──the first within a second──► reports are read ──► folded into an ``EndpointBreaker``
                  ──the pause is over──► one process tries, the others wait for what comes of it

So a process that has just started knows an endpoint to be down before its first call, and five failures are five,
however many processes they are spread over. What is told is only what may matter: as long as nothing fails, nothing is
written, and one read a second is all that an endpoint costs.

Who was answered since somebody else failed says so as soon as it reads of the failure, with the time of its answer: a
failure that others had no part in does not count as theirs.

Without reports, or with a server for them that is gone (asked again every 5 s), each process learns by itself and goes
on from what it knew. Reports that were lost are learned anew: a few calls more.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from core.breaker import EndpointBreaker
from core.errors import Unavailable

READ_EVERY_S = 1.0
PROBE_S = 30.0
"""How long others leave a try to the process that makes it, unless it tells before what came of it."""

PATIENCE_S = 0.5
"""How long a call waits for what other processes know; then it goes by what its own knows."""

_ASK_AGAIN_S = 5.0
_UNTOLD, _REMEMBERED = 100, 1_000


@dataclass(frozen=True, slots=True)
class Report:
    """What a tenant's call came to, so many seconds ago. ``probe``: it was the one that tried for all."""

    tenant: str
    works: bool
    ago_s: float
    probe: bool = False


class Reports(Protocol):
    """Where processes report to."""

    async def exchange(self, endpoint: str, told: Sequence[Report]) -> list[Report]:
        """Report these of an endpoint; what is known of it, in no order. Raises ``Unavailable``."""
        ...

    async def take_probe(self, endpoint: str, tenant: str | None, lease_s: float) -> bool:
        """Whether the caller may try an endpoint, for a tenant or (None) for all. Raises ``Unavailable``."""
        ...

    async def end_probe(self, endpoint: str, tenant: str | None) -> None:
        """Another one may try. Raises ``Unavailable``."""
        ...


@dataclass(frozen=True, slots=True)
class _Seen:
    tenant: str
    works: bool
    at_s: float
    probe: bool = False


class SharedBreaker:
    """The breakers of one endpoint, whose name is the same in all processes.

    ``reports`` None: they are not shared. ``now_s``: seconds, as in real time. ``new``: makes breakers as they begin.
    """

    def __init__(
        self,
        endpoint: str,
        reports: Reports | None = None,
        now_s: Callable[[], float] = time.monotonic,
        new: Callable[[], EndpointBreaker] = EndpointBreaker,
    ) -> None:
        self._endpoint = endpoint
        self._reports = reports
        self._now_s = now_s
        self._new = new
        self._breaker = new()
        self._untold: list[_Seen] = []
        self._answers: dict[str, float] = {}  # the last one of each tenant, the newest last, as far as nobody was told
        self._probes: dict[str, str | None] = {}
        self._read_at_s = float("-inf")
        self._reading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def opens_in_s(self, tenant: str) -> float:
        """Seconds until a call of the tenant is tried again; 0 when one may be tried now."""
        return self._breaker.opens_in_s(tenant, self._now_s())

    def open_for(self) -> tuple[int, bool]:
        """For how many tenants its own breaker is not closed, and whether the endpoint's is not."""
        return self._breaker.open_for(self._now_s())

    async def admit(self, tenant: str) -> bool:
        """May a call go out? Each admitted call must be followed by ``answered``, ``failed`` or ``abandoned``."""
        if self._reports is not None and self._now_s() >= self._read_at_s + READ_EVERY_S:
            async with self._reading:
                if self._now_s() >= self._read_at_s + READ_EVERY_S:
                    await self._exchange(self._reports)
        now_s = self._now_s()
        trial = self._breaker.is_trial(tenant)
        if not self._breaker.admit(tenant, now_s):
            return False
        if trial and self._reports is not None:
            return await self._take_probe(self._reports, tenant)
        return True

    def answered(self, tenant: str) -> None:
        """The endpoint answered a call of the tenant."""
        now_s = self._now_s()
        news = self._breaker.is_news(tenant, now_s)
        self._breaker.answered(tenant, now_s)
        if self._reports is None:
            return
        self._answers.pop(tenant, None)
        if news:
            self._tell(_Seen(tenant, works=True, at_s=now_s))
        else:
            self._answers[tenant] = now_s
            if len(self._answers) > _REMEMBERED:
                del self._answers[next(iter(self._answers))]
        self._end_probe(tenant)

    def failed(self, tenant: str) -> None:
        """The endpoint did not answer a call of the tenant."""
        now_s = self._now_s()
        self._breaker.failed(tenant, now_s)
        if self._reports is not None:
            self._tell(_Seen(tenant, works=False, at_s=now_s, probe=tenant in self._probes))
            self._end_probe(tenant)

    def abandoned(self, tenant: str) -> None:
        """The tenant gave up before the endpoint could answer; says nothing about the endpoint."""
        self._breaker.abandoned(tenant)
        self._end_probe(tenant)

    async def settled(self) -> None:
        """Wait until everything is told that can be told."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _tell(self, seen: _Seen) -> None:
        self._untold = [*self._untold, seen][-_UNTOLD:]
        self._spawn(self._tell_untold)

    async def _tell_untold(self, reports: Reports) -> None:
        async with self._reading:
            if self._untold and self._now_s() >= self._read_at_s:
                await self._exchange(reports)

    async def _exchange(self, reports: Reports) -> None:
        """Tell and read, and tell once more what is to be said against what was read."""
        for _ in range(2):
            asked_s, told = self._now_s(), self._untold
            try:
                async with asyncio.timeout(PATIENCE_S):
                    known = await reports.exchange(self._endpoint, [_report(seen, asked_s) for seen in told])
            except (Unavailable, TimeoutError):
                self._read_at_s = self._now_s() + _ASK_AGAIN_S - READ_EVERY_S
                return
            now_s = self._read_at_s = self._now_s()
            sent = {id(seen) for seen in told}  # two calls may have failed alike at the same moment
            self._untold = [seen for seen in self._untold if id(seen) not in sent]
            seen = [_Seen(one.tenant, one.works, now_s - one.ago_s, one.probe) for one in known]
            self._breaker = self._folded([*seen, *self._untold])
            answers = self._news()
            if not answers:
                return
            self._untold = [*self._untold, *answers]
            self._breaker = self._folded([*seen, *self._untold])

    def _news(self) -> list[_Seen]:
        """Answers of this process that speak against what is known by now: the last of all, those of who was failed."""
        last = next(reversed(self._answers), "")
        news = [
            _Seen(tenant, works=True, at_s=self._answers[tenant])
            for tenant in {last, *self._breaker.failing} & self._answers.keys()
            if self._breaker.is_news(tenant, self._answers[tenant])
        ]
        for seen in news:
            del self._answers[seen.tenant]
        return news

    def _folded(self, known: Iterable[_Seen]) -> EndpointBreaker:
        breaker = self._new()
        for seen in sorted(known, key=_when):
            if seen.works:
                breaker.answered(seen.tenant, seen.at_s)
            else:
                if seen.probe:
                    breaker.admit(seen.tenant, seen.at_s)
                breaker.failed(seen.tenant, seen.at_s)
        return breaker

    async def _take_probe(self, reports: Reports, tenant: str) -> bool:
        whose = None if self._breaker.open_for(self._now_s())[1] else tenant
        try:
            taken = await reports.take_probe(self._endpoint, whose, PROBE_S)
        except Unavailable:
            return True
        except BaseException:
            self._breaker.abandoned(tenant)
            raise
        if taken:
            self._probes[tenant] = whose
        else:
            self._breaker.abandoned(tenant)
        return taken

    def _end_probe(self, tenant: str) -> None:
        if tenant in self._probes:
            whose = self._probes.pop(tenant)
            self._spawn(lambda reports: _end(reports, self._endpoint, whose))

    def _spawn(self, act: Callable[[Reports], Coroutine[None, None, None]]) -> None:
        if self._reports is not None:
            task = asyncio.get_running_loop().create_task(act(self._reports))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def _end(reports: Reports, endpoint: str, tenant: str | None) -> None:
    with contextlib.suppress(Unavailable):
        await reports.end_probe(endpoint, tenant)


def _report(seen: _Seen, now_s: float) -> Report:
    return Report(seen.tenant, seen.works, max(0.0, now_s - seen.at_s), seen.probe)


def _when(seen: _Seen) -> float:
    return seen.at_s

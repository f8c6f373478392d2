"""Scenarios on a clock of their own: through the real queue, or first come first served.

The real queue is the SQL of production, called through ``core.queue.store``: one client plays the worker, releases
each slot when its run's seconds are over, and claims whenever a slot is free. Nobody sleeps, so a run of 34 seconds
costs two calls, and what is measured does not depend on how fast the machine is.
"""

from __future__ import annotations

import heapq
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import asyncpg

from core.db.pool import Transaction
from core.db.queries import load_queries
from core.ids import RunId, WorkerId
from core.queue import store
from core.queue.model import HEADROOM, Claim, Held
from core.queue.rows import Start, Terms
from core.queue.simulator import Arrival, Outcome, Scenario, Use
from core.tenancy import Policy
from tests.benchmarks.queue.places import careless

SQL = load_queries(__file__, "bench_queue.sql")
BEGIN = datetime(2026, 1, 5, 8, tzinfo=UTC)
WORKER = WorkerId("bench")
_HEARTBEAT_S = 30.0
_EVENTS_PER_TRANSACTION = 25
_LOAD = 20_000


def first_come(scenario: Scenario) -> Outcome:
    """What a queue ordered by submission does with a scenario."""
    busy: list[float] = []
    uses: list[Use] = []
    for number, arrival in enumerate(scenario.arrivals):
        free_s = heapq.heappop(busy) if len(busy) == scenario.slots else 0.0
        started_s = max(arrival.at_s, free_s)
        if started_s >= scenario.ends_s:
            break
        heapq.heappush(busy, started_s + arrival.duration_s)
        uses.append(_use(scenario, number, started_s))
    return Outcome(scenario, tuple(uses), _submitted(scenario) - len(uses))


async def through_the_queue(owner_dsn: str, app_dsn: str, scenario: Scenario) -> Outcome:
    """What our queue does with it, in a migrated database that holds nothing else."""
    await _load(owner_dsn, scenario)
    async with careless(app_dsn) as app:
        drive = _Drive(app, scenario)
        await drive.run()
    return Outcome(scenario, tuple(drive.uses), _submitted(scenario) - len(drive.uses))


def policy_of(terms: Terms) -> str:
    """A policy with what it says to the queue, as JSON."""
    policy = Policy(
        weight=terms.weight,
        concurrency_cap=terms.cap,
        burst_slots=terms.burst_slots,
        burst_credit_s=terms.burst_credit_s,
        user_cap=terms.user_cap,
        workflow_caps=dict(terms.workflow_caps),
    )
    return json.dumps(policy.model_dump(mode="json"))


async def _load(owner_dsn: str, scenario: Scenario) -> None:
    """Tenants and runs as rows; no run is in the queue yet."""
    async with careless(owner_dsn) as owner:
        policies = [policy_of(terms) for terms in scenario.terms.values()]
        await owner.execute(SQL["tenants"], list(scenario.terms), policies, BEGIN)
        await owner.execute(SQL["without_checks"])
        for chunk in _chunks(scenario.arrivals):
            await owner.execute(
                SQL["runs"],
                [_run_id(number) for number, _ in chunk],
                [arrival.tenant for _, arrival in chunk],
                [arrival.workflow for _, arrival in chunk],
                [_at(arrival.at_s) for _, arrival in chunk],
            )
        await owner.execute(SQL["statistics"])


def _chunks(arrivals: Sequence[Arrival]) -> Iterator[list[tuple[int, Arrival]]]:
    numbered = enumerate(arrivals)
    while chunk := list(itertools.islice(numbered, _LOAD)):
        yield chunk


class _Drive:
    """One scenario on one connection."""

    def __init__(self, connection: asyncpg.pool.PoolConnectionProxy[asyncpg.Record], scenario: Scenario) -> None:
        self.uses: list[Use] = []
        self._connection = connection
        self._tx = Transaction(connection)
        self._scenario = scenario
        self._ends: list[tuple[int, int]] = []  # when, in microseconds as in the database, and which run
        self._queued = 0
        self._again: float = math.inf
        self._said_s = float("-inf")
        self._last = micros(scenario.ends_s)

    async def run(self) -> None:
        """From the first arrival to the end of the scenario."""
        events = self._events()
        for event in events:
            async with self._connection.transaction():
                await self._happen(*event)
                for more in itertools.islice(events, _EVENTS_PER_TRANSACTION - 1):
                    await self._happen(*more)

    def _events(self) -> Iterator[tuple[int, list[int]]]:
        """Each moment at which something happens, with the numbers of the runs submitted then."""
        groups = itertools.groupby(enumerate(self._scenario.arrivals), key=lambda one: micros(one[1].at_s))
        arrivals = [(at, [number for number, _ in group]) for at, group in groups]
        position = 0
        while self._ends or position < len(arrivals):
            at = arrivals[position][0] if position < len(arrivals) else self._last
            now = int(min(self._ends[0][0] if self._ends else self._last, at, self._again))
            if now >= self._last:
                return
            submitted = arrivals[position][1] if at <= now else []
            position += at <= now
            yield now, submitted

    async def _happen(self, now: int, submitted: list[int]) -> None:
        at = _at(now / 1e6)
        while self._ends and self._ends[0][0] <= now:
            number = heapq.heappop(self._ends)[1]
            await self._tx.fetchval(SQL["in_tenant"], self._tenant(number))
            await store.release(self._tx, Held(RunId(_run_id(number)), 1), at)
        for tenant, numbers in itertools.groupby(sorted(submitted, key=self._tenant), key=self._tenant):
            await self._tx.fetchval(SQL["in_tenant"], tenant)
            self._queued += await store.push(self._tx, [_run_id(number) for number in numbers], False, at)
        await self._tx.fetchval(SQL["in_tenant"], "")
        if now / 1e6 - self._said_s >= _HEARTBEAT_S:
            self._said_s = now / 1e6
            await store.heartbeat(self._tx, WORKER, self._scenario.slots, False, at)
        free, self._again = self._scenario.slots - len(self._ends), math.inf
        if free > 0 and self._queued > 0:
            claims, _ = await store.claim(self._tx, WORKER, free, HEADROOM, at)
            for claim in claims:
                self._start(claim, now)
            if claims.again_at is not None:
                self._again = (claims.again_at - BEGIN) // timedelta(microseconds=1)

    def _start(self, claim: Claim, now: int) -> None:
        number = int(claim.run_id)
        use = _use(self._scenario, number, now / 1e6)
        assert use.arrival.tenant == claim.tenant_id
        assert len(self._ends) < self._scenario.slots
        self._queued -= 1
        self.uses.append(use)
        heapq.heappush(self._ends, (now + micros(use.arrival.duration_s), number))

    def _tenant(self, number: int) -> str:
        return self._scenario.arrivals[number].tenant


def _use(scenario: Scenario, number: int, started_s: float) -> Use:
    arrival = scenario.arrivals[number]
    # What was charged, and the causes of the wait, are no part of these figures.
    start = Start(_run_id(number), arrival.tenant, 0.0, False, started_s - arrival.at_s, 0.0, 0.0, 0.0, 0.0)
    ended_s = started_s + arrival.duration_s
    return Use(arrival, start, started_s, ended_s if ended_s < scenario.ends_s else None)


def _submitted(scenario: Scenario) -> int:
    return sum(arrival.at_s < scenario.ends_s for arrival in scenario.arrivals)


def _run_id(number: int) -> str:
    return f"{number:08d}"


def micros(seconds: float) -> int:
    """Whole microseconds: the database counts in them."""
    return round(seconds * 1e6)


def _at(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)

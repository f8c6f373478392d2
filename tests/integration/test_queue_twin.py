"""The queue in the database and its twin in Python make the same choices, whatever happens in whatever order."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from core.clock import FakeClock
from core.ids import UserId, WorkerId
from core.queue.fairness import FairQueue
from core.queue.model import DEAD_AFTER_S, HEADROOM, Claim, code_of
from core.queue.rows import Run, Terms
from core.runs.execution import Wait
from core.runs.model import Cause, Lane
from core.settings import Settings
from core.tenancy import Policy, TenantContext
from tests.fixtures.work import Work, work_in

OPERATIONS = 260
WORKERS = {"one": 8, "two": 6, "three": 4}
WORKFLOWS = ("claim", "letter", "loan")
VERSIONS = ("1", "2")
CODES = {
    "one": [code_of(name, version) for name in WORKFLOWS for version in VERSIONS],
    "two": [code_of(name, "1") for name in WORKFLOWS],
    "three": [code_of(name, "2") for name in ("letter", "loan")],
}
"""What each worker has: a fleet in the middle of a change."""
LOST_S = 1e-9
CLOCK_S = 1e-6
"""Clocks that began long ago are no finer than that."""


class Both:
    """The same operations on the database and on the twin."""

    def __init__(self, work: Work, owner: asyncpg.Connection, seed: int, haste: float) -> None:
        self.work = work
        self.owner = owner
        self.rng = random.Random(seed)
        self.haste = haste
        self.twin = FairQueue()
        self.contexts: list[TenantContext] = []
        self.held: dict[str, Claim] = {}
        self.parked: dict[str, tuple[str, Run]] = {}
        self.claims = 0
        self.bursts = 0
        self.paced = 0
        self.codeless = 0

    @property
    def now(self) -> int:
        return _micros(self.work.clock.now())

    def policy(self) -> Policy:
        rng = self.rng
        return Policy(
            weight=rng.choice([0.5, 1.0, 3.0, 7.0]),
            concurrency_cap=rng.randint(1, 4),
            burst_slots=rng.choice([0, 2, 3]),
            max_recoveries=1_000,  # the twin knows no end of a run but the worker's
            burst_credit_s=rng.choice([1.0, 5.0]),
            user_cap=rng.choice([None, None, 1, 2]),
            workflow_caps={name: rng.randint(0, 2) for name in WORKFLOWS if rng.random() < 0.25},
        )

    async def open(self) -> None:
        for name in ("ant", "bee", "cat", "dog"):
            policy = self.policy()
            self.contexts.append(await self.work.tenant(name, policy))
            self.twin.policy(name, _terms(policy), self.now)

    async def act(self) -> None:
        """One operation, chosen by its frequency."""
        rng = self.rng
        self.work.clock.advance(rng.choice([0.0, 0.000001, 0.25, 1.0, rng.uniform(0, 4)]) / self.haste)
        verbs = {
            self.push: 4,
            self.claim: 6,
            self.end: 4,
            self.hand_back: 1,
            self.park: 1,
            self.wake: 1,
            self.cancel: 1,
            self.change: 1,
            self.pause: 1,
            self.cap: 0.5,
            self.recover: 0.5,
            self.leave: 0.5,
            self.set_back: 0.2,
        }
        await rng.choices(list(verbs), list(verbs.values()))[0]()
        await self.compare()

    async def push(self) -> None:
        ctx, workflow, user = self.rng.choice(self.contexts), self.rng.choice(WORKFLOWS), self.rng.choice("abc")
        lane = self.rng.choice(list(Lane))
        count = self.rng.randint(1, 8)
        by = replace(ctx, user_id=UserId(f"usr_{user}") if user != "c" else None)
        version = self.rng.choice(VERSIONS)
        runs = await self.work.submit(by, count, workflow, lane=lane, version=version)
        self.twin.push(
            ctx.tenant_id, [Run(one.run_id, workflow, by.user_id or "", lane.value, version) for one in runs], self.now
        )

    async def claim(self) -> None:
        worker = self.rng.choice(list(WORKERS))
        count = self.rng.randint(1, 5)
        claims = await self.work.claim(worker, count, WORKERS[worker], codes=CODES[worker])
        self.twin.heartbeat(worker, WORKERS[worker], self.now, codes=CODES[worker])
        starts = self.twin.claim(worker, count, HEADROOM, self.now)
        assert [(one.run_id, one.tenant, one.burst) for one in starts] == [
            (one.run_id, one.tenant_id, one.burst) for one in claims
        ]
        rows = await self.owner.fetch("select * from slots where run_id = any($1)", [one.run_id for one in claims])
        slots = {row["run_id"]: row for row in rows}
        for start in starts:
            slot = slots[start.run_id]
            assert slot["estimate_s"] == start.estimate_s
            assert slot["capped_s"] == pytest.approx(start.capped_s, abs=CLOCK_S)
            assert slot["paused_s"] == pytest.approx(start.paused_s, abs=CLOCK_S)
            passages = await self.owner.fetch(
                "select * from app.passage_rows($1, $2) where released_at is null", start.run_id, self.work.clock.now()
            )
            for column in ("no_worker_s", "no_code_s"):
                assert passages[0][column] == pytest.approx(getattr(start, column), abs=CLOCK_S), column
            self.codeless += start.no_code_s > 0
        again_us = claims.again_at and _micros(claims.again_at)
        assert again_us == self.twin.again_us
        self.paced += again_us is not None
        self.held |= {one.run_id: one for one in claims}
        assert {code_of(one.workflow, one.version) for one in claims} <= set(CODES[worker])
        self.claims += len(claims)
        self.bursts += sum(one.burst for one in claims)

    async def end(self) -> None:
        for _ in range(min(len(self.held), self.rng.randint(1, 3))):
            run_id, claim = self._any(self.held)
            await self.work.finish(claim)
            assert self.twin.release(run_id, self.now) is not None
            del self.held[run_id]

    async def hand_back(self) -> None:
        if self.held:
            run_id, claim = self._any(self.held)
            assert await self.work.execution.hand_back(await self.work.executing(claim))
            run = self.twin.slots[run_id].run
            self.twin.release(run_id, self.now)
            self.twin.push(claim.tenant_id, [run], self.now, head=True)
            del self.held[run_id]

    async def park(self) -> None:
        if self.held:
            run_id, claim = self._any(self.held)
            on = await self.work.executing(claim)
            await self.work.execution.sleep(
                on, Wait(claim.attempt, "sleep", Cause.TIMER, wake_at=self.work.clock.now() + timedelta(seconds=1))
            )
            await self.work.execution.park(on)
            self.parked[run_id] = (claim.tenant_id, self.twin.slots[run_id].run)
            self.twin.release(run_id, self.now)
            del self.held[run_id]

    async def wake(self) -> None:
        for woken in await self.work.queue.wake_due():
            tenant, run = self.parked.pop(woken.run_id)
            self.twin.push(tenant, [run], self.now, head=True)

    async def cancel(self) -> None:
        if self.twin.entries:
            run_id = self.rng.choice(list(self.twin.entries))
            ctx = next(one for one in self.contexts if one.tenant_id == self.twin.entries[run_id].tenant)
            await self.work.control.cancel(ctx, run_id)
            assert self.twin.cancel(run_id)

    async def change(self) -> None:
        name, policy = self.rng.choice(self.contexts).tenant_id, self.policy()
        await self.work.tenants.change_policy(await self.work.operator(), name, policy)
        self.twin.policy(name, _terms(policy), self.now)

    async def pause(self) -> None:
        name, paused = self.rng.choice(self.contexts).tenant_id, self.rng.random() < 0.3
        await self.work.tenants.pause(await self.work.operator(), name, paused)
        self.twin.pause(name, paused, self.now)

    async def cap(self) -> None:
        cap = self.rng.choice([None, None, None, 4, 9])
        await self.work.queue.set_platform_cap(cap)
        self.twin.platform_cap = cap

    async def recover(self) -> None:
        if self.rng.random() < 0.3:
            self.work.clock.advance(2 * DEAD_AFTER_S)
        worker = self.rng.choice([*WORKERS, None])
        keep = {run_id for run_id in self.held if self.rng.random() < 0.5}
        lost = await self.work.queue.recover(None if worker is None else WorkerId(worker), keep)
        dead_before = self.now - int(DEAD_AFTER_S * 1e6) if worker is None else 0
        assert self.twin.recover(worker, keep, dead_before, self.now) == [one.run_id for one in lost]
        for one in lost:
            del self.held[one.run_id]

    async def set_back(self) -> None:
        """The clock goes back: by what a time service corrects, or as if it had been wrong for an hour."""
        self.work.clock.advance(-self.rng.choice([0.05, 30.0, 3_600.0]))

    async def leave(self) -> None:
        worker = self.rng.choice(list(WORKERS))
        assert await self.work.queue.leave(WorkerId(worker)) == self.twin.leave(worker, self.now)

    async def compare(self) -> None:
        """Everything by which the next choice will be made."""
        platform = await self.owner.fetchrow("select * from queue_platform")
        assert platform is not None
        assert platform["virtual_time"] == pytest.approx(self.twin.virtual_time, abs=LOST_S)
        assert platform["mean_s"] == pytest.approx(self.twin.pace.mean_s, abs=LOST_S)
        assert _micros(platform["paced_until"]) == self.twin.pace.until_us
        assert platform["no_worker_s"] == pytest.approx(self.twin.gaps.no_worker_s, abs=CLOCK_S)
        for row in await self.owner.fetch("select * from queue_tenants where tenant_id <> 'platform'"):
            twin = self.twin.tenants[row["tenant_id"]]
            assert (row["queued"], row["running"], row["turn"], row["blocked"], row["paused"]) == (
                *(twin.queued, twin.running, twin.turn, twin.blocked, twin.paused),
            )
            for column in ("virtual_time", "user_clock", "used_s", "debt_s", "lent", "capped_s", "paused_s"):
                assert row[column] == pytest.approx(getattr(twin, column), abs=LOST_S), column
        for row in await self.owner.fetch("select * from queue_flows where queued + running > 0"):
            user = self.twin.tenants[row["tenant_id"]].users[row["user_key"]]
            assert row["running"] == user.running
            assert row["virtual_time"] == pytest.approx(user.virtual_time, abs=LOST_S)

    def _any(self, held: dict[str, Claim]) -> tuple[str, Claim]:
        return self.rng.choice(list(held.items()))  # by when it came: ids of one moment are in no order


def _micros(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _terms(policy: Policy) -> Terms:
    return Terms(
        policy.weight,
        policy.concurrency_cap,
        policy.burst_slots,
        policy.burst_credit_s,
        policy.user_cap,
        policy.workflow_caps,
    )


@pytest.fixture
async def work(settings: Settings) -> AsyncIterator[Work]:
    """The rooms, on a clock that stands still."""
    async with work_in(settings, FakeClock()) as rooms:
        yield rooms


@pytest.mark.parametrize(("seed", "haste"), [(1, 1.0), (2, 1.0), (4, 50.0)])
async def test_database_and_twin_choose_alike(work: Work, owner_dsn: str, seed: int, haste: float) -> None:
    """In haste runs are so short that claims are paced."""
    owner = await asyncpg.connect(owner_dsn)
    try:
        both = Both(work, owner, seed, haste)
        await both.open()
        for _ in range(OPERATIONS):
            await both.act()
        assert await work.queue.faults() == []
        assert both.claims > OPERATIONS / 4
        assert both.bursts > 0
        assert both.codeless > 0
        assert (both.paced > 0) is (haste > 1)
    finally:
        await owner.close()

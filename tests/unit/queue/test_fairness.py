"""What the fair queue promises, for any order of events; each claim is compared with a search of everything."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from core.queue.fairness import OLDEST_TURN, FairQueue
from core.queue.model import HEADROOM, code_of
from core.queue.rows import Entry, Run, Start, Tenant, Terms

SECOND = 1_000_000
TENANTS = ("ant", "bee", "cat")
WORKERS = {"one": 4, "two": 2}
CODES = {"one": None, "two": frozenset(code_of(name, "1") for name in ("claim", "letter", "loan"))}
"""What each worker has: the second only the older version."""
LONGEST_US = 128_000
"""How long a free slot may be put off."""

terms_of = st.builds(
    Terms,
    weight=st.sampled_from([0.5, 1.0, 3.0]),
    cap=st.integers(1, 5),
    burst_slots=st.integers(0, 2),
    burst_credit_s=st.sampled_from([0.0, 2.0]),
    user_cap=st.none() | st.integers(1, 3),
    workflow_caps=st.sampled_from([{}, {}, {"loan": 1}, {"letter": 0, "loan": 2}]),
)
run_of = st.tuples(
    st.sampled_from(["letter", "loan", "claim"]),
    st.sampled_from(["", "ada", "bob"]),
    st.integers(0, 2),
    st.sampled_from(["1", "1", "2"]),
)


def queued_of(queue: FairQueue, name: str) -> list[Entry]:
    """A tenant's queued runs."""
    return [entry for entry in queue.entries.values() if entry.tenant == name]


def may_start(queue: FairQueue, tenant: Tenant, run: Run) -> bool:
    """Whether the caps of users and workflows let a run start."""
    held = [slot.run for slot in queue.slots.values() if slot.tenant == tenant.tenant]
    users = sum(one.user == run.user for one in held)
    workflows = sum(one.workflow == run.workflow for one in held)
    return (tenant.terms.user_cap is None or users < tenant.terms.user_cap) and workflows < (
        tenant.terms.workflow_caps.get(run.workflow, workflows + 1)
    )


def has(worker: str, run: Run) -> bool:
    """Whether a worker has the code of a run."""
    codes = CODES[worker]
    return codes is None or run.code in codes


def able(queue: FairQueue, worker: str, *, bursting: bool = False) -> list[Tenant]:
    """Tenants of which a worker could start something, most deserving first; ``bursting``: beyond their caps."""
    tenants = [
        tenant
        for tenant in queue.tenants.values()
        if not tenant.paused
        and any(has(worker, one.run) and may_start(queue, tenant, one.run) for one in queued_of(queue, tenant.tenant))
    ]
    if bursting:
        fit = [
            one
            for one in tenants
            if one.terms.cap <= one.running < one.terms.cap + one.terms.burst_slots
            and one.debt_s < one.terms.burst_credit_s
        ]
    else:
        fit = [one for one in tenants if one.running < one.terms.cap]
    return sorted(fit, key=lambda one: (one.virtual_time, one.tenant))


def run_due(queue: FairQueue, tenant: Tenant, worker: str) -> str:
    """The run that a tenant must start next on a worker, by looking at every queued one."""
    fit = [one for one in queued_of(queue, tenant.tenant) if has(worker, one.run) and may_start(queue, tenant, one.run)]

    def turn(one: Entry) -> tuple[int, bool, float, str, str]:
        run = one.run
        return run.lane, one.rank > 0, tenant.users[run.user].virtual_time, run.user, run.workflow

    if (tenant.turn + 1) % OLDEST_TURN == 0:
        return min(fit, key=lambda one: (one.rank, *turn(one), one.run.code, one.run.run_id)).run.run_id
    return min(fit, key=lambda one: (*turn(one), one.rank, one.run.code, one.run.run_id)).run.run_id


class AnyOrder(RuleBasedStateMachine):
    """Everything that can happen to a queue."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = FairQueue()
        self.now = 1_000_000 * SECOND
        self.haste = 1
        self.made = 0
        self.set_back = False
        self.jumps = dict.fromkeys(TENANTS, 0.0)
        """Virtual time that a tenant got without paying: it came back from being idle or paused, or to another cap."""

    @initialize(terms=st.tuples(terms_of, terms_of, terms_of), haste=st.sampled_from([1, 100]))
    def open(self, terms: tuple[Terms, ...], haste: int) -> None:
        self.haste = haste
        for name, given in zip(TENANTS, terms, strict=True):
            self.queue.policy(name, given, self.now)
        self._hear()

    @rule(micros=st.sampled_from([1, 400_000, 7 * SECOND]))
    def time_passes(self, micros: int) -> None:
        self.now += max(1, micros // self.haste)

    @rule(seconds=st.sampled_from([1, 30, 900]))
    def the_clock_is_set_back(self, seconds: int) -> None:
        self.now -= seconds * SECOND
        self.set_back = True

    @rule(name=st.sampled_from(TENANTS), kinds=st.lists(run_of, min_size=1, max_size=6), head=st.booleans())
    def push(self, name: str, kinds: list[tuple[str, str, int]], head: bool) -> None:
        tenant = self.queue.tenants[name]
        idle, before = tenant.queued + tenant.running == 0, tenant.virtual_time
        self.queue.push(name, [Run(f"run-{self.made + n}", *kind) for n, kind in enumerate(kinds)], self.now, head=head)
        self.made += len(kinds)
        assert tenant.virtual_time == (max(before, self.queue.virtual_time) if idle else before)
        self.jumps[name] += tenant.virtual_time - before

    @rule(worker=st.sampled_from(list(WORKERS)), limit=st.integers(1, 4))
    def claim(self, worker: str, limit: int) -> None:
        self._hear()
        self._claim(worker, limit)

    @rule()
    def claim_all(self) -> None:
        self._hear()
        for worker, slots in WORKERS.items():
            self._claim(worker, slots)

    def _claim(self, worker: str, limit: int) -> None:
        for _ in range(limit):
            for tenant in self.queue.tenants.values():
                tenant.settle(self.now)
            expected = self._due(worker)
            starts = self.queue.claim(worker, 1, HEADROOM, self.now)
            assert [(one.tenant, one.run_id, one.burst) for one in starts] == expected
            again_us = self.queue.again_us
            assert again_us is None or self.now < again_us <= self.now + LONGEST_US
            for start in starts:
                self._holds_its_caps(start)

    @precondition(lambda self: self.queue.slots)
    @rule(place=st.integers(0, 5), count=st.integers(1, 3))
    def release(self, place: int, count: int) -> None:
        for run_id in sorted(self.queue.slots)[place % len(self.queue.slots) :][:count]:
            assert self.queue.release(run_id, self.now) is not None
            assert self.queue.release(run_id, self.now) is None

    @precondition(lambda self: self.queue.entries)
    @rule(place=st.integers(0, 9))
    def cancel(self, place: int) -> None:
        run_id = sorted(self.queue.entries)[place % len(self.queue.entries)]
        assert self.queue.cancel(run_id)
        assert not self.queue.cancel(run_id)

    @rule(name=st.sampled_from(TENANTS), terms=terms_of)
    def change_caps(self, name: str, terms: Terms) -> None:
        tenant = self.queue.tenants[name]
        before = tenant.virtual_time
        self.queue.policy(name, replace(terms, weight=self.queue.tenants[name].terms.weight), self.now)
        self.jumps[name] += tenant.virtual_time - before

    @rule(name=st.sampled_from(TENANTS), paused=st.sampled_from([False, False, True]))
    def pause(self, name: str, paused: bool) -> None:
        tenant = self.queue.tenants[name]
        before = tenant.virtual_time
        self.queue.pause(name, paused, self.now)
        self.jumps[name] += tenant.virtual_time - before

    @rule(cap=st.sampled_from([None, None, None, 0, 2, 4]))
    def cap_the_platform(self, cap: int | None) -> None:
        self.queue.platform_cap = cap

    @rule(worker=st.sampled_from(list(WORKERS)))
    def lose_what_a_worker_holds(self, worker: str) -> None:
        lost = sorted((slot.tenant, run_id) for run_id, slot in self.queue.slots.items() if slot.worker == worker)
        for name, _ in lost:
            # Where it comes back from being idle is not seen from here: it must not become idle.
            if self.queue.tenants[name].queued == 0:
                return
        assert self.queue.recover(worker, (), 0, self.now) == [run_id for _, run_id in lost]
        assert all(self.queue.entries[run_id].rank < 0 for _, run_id in lost)

    @invariant()
    def counts_are_what_is_there(self) -> None:
        for name, tenant in self.queue.tenants.items():
            queued = queued_of(self.queue, name)
            held = [slot.run for slot in self.queue.slots.values() if slot.tenant == name]
            assert (tenant.queued, tenant.running) == (len(queued), len(held))
            for key, user in tenant.users.items():
                assert user.queued == sum(entry.run.user == key for entry in queued)
                assert user.running == sum(run.user == key for run in held)
        for key, worker in self.queue.workers.items():
            assert worker.held == sum(slot.worker == key for slot in self.queue.slots.values()) <= worker.slots

    @invariant()
    def a_tenant_has_paid_for_what_it_was_served_and_for_what_it_holds(self) -> None:
        for name, tenant in self.queue.tenants.items():
            charged_s = sum(slot.estimate_s for slot in self.queue.slots.values() if slot.tenant == name)
            paid_s = (tenant.virtual_time - self.jumps[name]) * tenant.terms.weight
            assert paid_s == pytest.approx(tenant.used_s + charged_s, abs=1e-6)

    def _hear(self) -> None:
        for worker, slots in WORKERS.items():
            self.queue.heartbeat(worker, slots, self.now, codes=CODES[worker])

    def _due(self, worker: str) -> list[tuple[str, str, bool]]:
        """What a claim of one must give this worker: the promise of fairness, caps, headroom and no idle slots."""
        queue = self.queue
        slots = sum(WORKERS.values())
        total = slots if queue.platform_cap is None else min(slots, queue.platform_cap)
        free = total - len(queue.slots)
        if free <= 0 or queue.workers[worker].held == WORKERS[worker]:
            return []
        last = total >= 2 and free <= math.ceil(total * HEADROOM)
        burst = False
        if self._open(total, last):
            fit = able(queue, worker)
            burst = not fit and not last
            fit = fit or able(queue, worker, bursting=True)[: burst * 1]
        else:
            fit = [one for one in able(queue, worker) if one.newcomer] or sorted(
                (
                    one
                    for one in able(queue, worker)
                    if one.virtual_time + queue.pace.mean_s / one.terms.weight <= queue.virtual_time
                    or (one.running < free and one.virtual_time <= queue.virtual_time)
                ),
                key=lambda one: one.running,
            )
        return [(one.tenant, run_due(queue, one, worker), burst) for one in fit[:1]]

    def _open(self, total: int, last: bool) -> bool:
        """Whether a slot is anybody's: one beyond the headroom is, and where runs are short each is in its turn."""
        queue = self.queue
        if queue.pace.mean_s > min(0.7, 0.035 * total):
            return not last
        put_off = queue.pace.until_us <= self.now + LONGEST_US  # not by a clock that was set back
        return not put_off or self.now >= queue.pace.until_us - (0 if last else SECOND // 10)

    def _holds_its_caps(self, start: Start) -> None:
        tenant = self.queue.tenants[start.tenant]
        held = [slot.run for slot in self.queue.slots.values() if slot.tenant == start.tenant]
        run = self.queue.slots[start.run_id].run
        assert has(self.queue.slots[start.run_id].worker, run)
        assert len(held) <= tenant.terms.cap + (tenant.terms.burst_slots if start.burst else 0)
        assert sum(one.user == run.user for one in held) <= (tenant.terms.user_cap or len(held))
        assert sum(one.workflow == run.workflow for one in held) <= tenant.terms.workflow_caps.get(
            run.workflow, len(held)
        )
        if self.queue.platform_cap is not None:
            assert len(self.queue.slots) <= self.queue.platform_cap
        causes = (start.capped_s, start.paused_s, start.no_worker_s, start.no_code_s, start.share_s)
        assert self.set_back or min(causes) >= -1e-9
        assert sum(causes) == pytest.approx(start.waited_s, abs=1e-9)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=80, deadline=None)

"""How unfair the fair queue can be at most, and what nobody gains by."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.queue.fairness import FIRST_ESTIMATE_S, FairQueue
from core.queue.model import HEADROOM
from core.queue.rows import Run, Terms

SECOND = 1_000_000
Lasts = Callable[[str], float]
"""How long a tenant's next run lasts, in seconds."""


class Machine:
    """A queue and what executes."""

    def __init__(self, weights: dict[str, float], slots: int, lasts: Lasts) -> None:
        self.queue = FairQueue()
        self.now = 0
        self.slots = slots
        self.lasts = lasts
        self.ends: list[tuple[int, str]] = []
        self.starts: list[tuple[int, str]] = []
        self.longest_s = dict.fromkeys(weights, FIRST_ESTIMATE_S)
        self.most = dict.fromkeys(weights, 0)
        self.queue.heartbeat("w", slots, 0)
        for name, weight in weights.items():
            self.queue.policy(name, Terms(weight=weight), 0)

    def claim(self) -> None:
        """Fill the slots."""
        self.queue.heartbeat("w", self.slots, self.now)
        for start in self.queue.claim("w", self.slots - len(self.ends), HEADROOM, self.now):
            lasts_s = self.lasts(start.tenant)
            heapq.heappush(self.ends, (self.now + round(lasts_s * SECOND), start.run_id))
            self.starts.append((self.now, start.tenant))
            self.longest_s[start.tenant] = max(self.longest_s[start.tenant], lasts_s)
            self.most[start.tenant] = max(self.most[start.tenant], self.queue.tenants[start.tenant].running)

    def step(self) -> None:
        """The next run ends, if nothing that was put off may be claimed before."""
        if self.queue.again_us is not None and (not self.ends or self.queue.again_us <= self.ends[0][0]):
            self.now = self.queue.again_us
            return
        end, run_id = heapq.heappop(self.ends)
        self.now = max(self.now, end)
        self.queue.release(run_id, self.now)

    def served_s(self, name: str) -> float:
        """Worker-seconds of a tenant, those of runs that still execute included."""
        running = (self.now - slot.claimed_us for slot in self.queue.slots.values() if slot.tenant == name)
        return self.queue.tenants[name].used_s + sum(running) / 1e6

    def apart(self, one: str, other: str) -> tuple[float, float]:
        """By how much two tenants' seconds per weight differ, and by how much they may."""
        weights = {name: self.queue.tenants[name].terms.weight for name in (one, other)}
        difference = abs(self.served_s(one) / weights[one] - self.served_s(other) / weights[other])
        return difference, sum(self.most[name] * self.longest_s[name] / weights[name] for name in (one, other))


def runs(name: str, count: int, users: int = 1, lane: int | None = 1) -> list[Run]:
    """Runs of a tenant, dealt to users; lane None: of all lanes in turn."""
    return [
        Run(f"{name}-{number}", user=f"usr_{number % users}", lane=number % 3 if lane is None else lane)
        for number in range(count)
    ]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    slots=st.integers(1, 12),
    kinds=st.lists(
        st.tuples(st.sampled_from([0.5, 1.0, 2.0, 8.0]), st.sampled_from([0.02, 0.3, 1.0, 5.0])), min_size=2, max_size=4
    ),
    spread=st.sampled_from(["alike", "exponential", "wild"]),
)
def test_backlogged_tenants_are_never_further_apart_than_the_bound(
    seed: int, slots: int, kinds: list[tuple[float, float]], spread: str
) -> None:
    rng = random.Random(seed)
    means = {f"tenant-{number}": mean_s for number, (_, mean_s) in enumerate(kinds)}

    def lasts(name: str) -> float:
        single = {"alike": 1.0, "exponential": rng.expovariate(1), "wild": rng.choice([0.1, 0.1, 0.1, 20.0])}
        return means[name] * single[spread]

    machine = Machine({f"tenant-{number}": weight for number, (weight, _) in enumerate(kinds)}, slots, lasts)
    for name in means:
        machine.queue.push(name, runs(name, 700), 0)
    while all(tenant.queued for tenant in machine.queue.tenants.values()):
        machine.claim()
        machine.step()
        for one, other in combinations(means, 2):
            difference, bound = machine.apart(one, other)
            assert difference <= bound + 1e-6


@settings(max_examples=40, deadline=None)
@given(
    pushes=st.lists(st.tuples(st.integers(0, 2), st.sampled_from("abc"), st.integers(1, 5)), min_size=5, max_size=40)
)
def test_a_run_starts_within_ten_claims_for_each_older_one(pushes: list[tuple[int, str, int]]) -> None:
    machine = Machine({"bank": 1.0}, 3, lambda _: 1.0)
    bank = machine.queue.tenants["bank"]
    due: dict[str, int] = {}
    turns: dict[str, int] = {}

    def claim() -> None:
        held = set(machine.queue.slots)
        before = bank.turn
        machine.claim()
        for position, run_id in enumerate(one for one in machine.queue.slots if one not in held):
            turns[run_id] = before + position + 1

    for number, (lane, user, count) in enumerate(pushes):
        # Urgent runs come with every push: what is in lower lanes waits behind ever more of them.
        new = [Run(f"{number:03}-{n}", user=user, lane=lane) for n in range(count)] + [
            Run(f"{number:03}-urgent-{n}", user="u", lane=0) for n in range(5)
        ]
        for position, run in enumerate(new):
            due[run.run_id] = bank.turn + 10 * (bank.queued + position + 1)
        machine.now += len(new)  # so that the next push is later than all of this one
        machine.queue.push("bank", new, machine.now - len(new))
        claim()
        machine.step()
    while machine.ends:
        machine.step()
        claim()
    assert turns.keys() == due.keys()
    assert [run_id for run_id, turn in turns.items() if turn > due[run_id]] == []


@pytest.mark.parametrize(("users", "lane"), [(1, 0), (50, 1), (50, None)])
def test_neither_more_users_nor_urgency_gain_a_tenant_anything(users: int, lane: int | None) -> None:
    def starts(users: int, lane: int | None) -> list[tuple[int, str]]:
        machine = Machine({"loud": 1.0, "calm": 2.0}, 8, {"loud": 1.5, "calm": 0.4}.__getitem__)
        machine.queue.push("calm", runs("calm", 400, lane=2), 0)
        machine.queue.push("loud", runs("loud", 400, users, lane), 0)
        while len(machine.starts) < 500:
            machine.claim()
            machine.step()
        return machine.starts

    assert starts(users, lane) == starts(1, 1)


def test_a_tenant_that_was_idle_has_neither_credit_nor_debt() -> None:
    machine = Machine({"late": 1.0, "busy": 1.0}, 11, lambda _: 1.0)
    machine.queue.push("late", runs("early", 50), 0)
    machine.queue.push("busy", runs("busy", 5_000), 0)
    while machine.now < 200 * SECOND:
        machine.claim()
        machine.step()
    before = {name: machine.served_s(name) for name in ("late", "busy")}
    gained = dict(before)
    machine.queue.push("late", runs("late", 1_000), machine.now)
    while machine.now < 250 * SECOND:
        machine.claim()
        machine.step()
        gained = {name: machine.served_s(name) - before[name] for name in before}
        assert abs(gained["late"] - gained["busy"]) <= 20
    assert gained["late"] == pytest.approx(250, abs=20)


def test_a_trickle_of_little_weight_does_not_put_whoever_comes_back_behind_the_backlogged() -> None:
    lasts: Lasts = {"busy": 0.5, "tiny": 0.5, "late": 0.5}.__getitem__
    machine = Machine({"busy": 1.0, "tiny": 0.01, "late": 1.0}, 20, lasts)
    machine.queue.push("busy", runs("busy", 6_000), 0)
    trickled = 0
    while machine.now < 100 * SECOND:
        if machine.now > 2 * trickled * SECOND:
            machine.queue.push("tiny", [Run(f"tiny-{trickled}")], machine.now)
            trickled += 1
        machine.claim()
        machine.step()
    before = {name: machine.served_s(name) for name in ("busy", "late")}
    machine.queue.push("late", runs("late", 500), machine.now)
    while machine.now < 120 * SECOND:
        machine.claim()
        machine.step()
    gained = {name: machine.served_s(name) - before[name] for name in before}
    assert abs(gained["late"] - gained["busy"]) <= 2 * 20 * 1.0


def test_short_runs_that_were_stopped_together_do_not_go_on_in_step() -> None:
    rng = random.Random(1)
    machine = Machine({"busy": 1.0}, 20, lambda _: rng.uniform(0.45, 0.55))
    machine.queue.push("busy", runs("busy", 2_000), 0)
    while machine.now < 5 * SECOND:
        machine.claim()
        machine.step()
    # Nothing ends for a quarter of a second, and then all at once what should have ended meanwhile.
    machine.ends = sorted((max(end, machine.now + SECOND // 4), run_id) for end, run_id in machine.ends)
    ends = []
    while machine.now < 10 * SECOND:
        machine.claim()
        machine.step()
        ends.append(machine.now)
    gaps_us = [after - before for before, after in pairwise(ends) if before > 6 * SECOND]
    assert max(gaps_us) <= 0.12 * SECOND


def test_a_clock_that_goes_back_holds_up_no_claim() -> None:
    machine = Machine({"busy": 1.0}, 20, lambda _: 0.5)
    machine.queue.push("busy", runs("busy", 2_000), 0)
    machine.now = 10_000 * SECOND
    while machine.now < 10_010 * SECOND:
        machine.claim()
        machine.step()
    machine.now -= 3_600 * SECOND
    machine.ends = [(machine.now + SECOND // 2, run_id) for _, run_id in machine.ends]
    before, until = len(machine.starts), machine.now + 10 * SECOND
    while machine.now < until:
        machine.claim()
        machine.step()
    assert len(machine.starts) - before > 0.9 * 20 / 0.5 * 10


@pytest.mark.parametrize(("lasts_s", "kept"), [(0.5, 0), (5.0, 1)])
def test_the_last_slot_is_kept_free_where_runs_are_long_and_lent_where_another_comes_back_soon(
    lasts_s: float, kept: int
) -> None:
    machine = Machine({"busy": 1.0}, 20, lambda _: lasts_s)
    machine.queue.push("busy", runs("busy", 2_000), 0)
    free = set()
    while machine.now < 40 * SECOND:
        machine.claim()
        free.add(machine.slots - len(machine.ends))
        machine.step()
    assert min(free) == kept


def test_users_of_a_tenant_share_its_seconds_whatever_their_runs_last() -> None:
    machine = Machine({"bank": 1.0}, 4, lambda _: 0.0)
    lasts = {"usr_long": 9.0, "usr_short": 1.0}
    machine.queue.push("bank", [Run(f"{user}-{n}", user, user) for user in lasts for n in range(900)], 0)
    served = dict.fromkeys(lasts, 0.0)
    ends: list[tuple[int, str]] = []
    while machine.now < 300 * SECOND:
        machine.queue.heartbeat("w", 5, machine.now)
        for start in machine.queue.claim("w", 4 - len(ends), HEADROOM, machine.now):
            user = machine.queue.slots[start.run_id].run.user
            heapq.heappush(ends, (machine.now + round(lasts[user] * SECOND), start.run_id))
        machine.now, run_id = heapq.heappop(ends)
        user = machine.queue.slots[run_id].run.user
        served[user] += machine.queue.release(run_id, machine.now) or 0.0
    assert abs(served["usr_long"] - served["usr_short"]) <= 4 * 9 + 4 * 1


def test_a_user_who_submits_one_run_after_the_other_gains_nothing() -> None:
    queue = FairQueue()
    queue.policy("bank", Terms(), 0)
    queue.heartbeat("w", 1, 0)
    queue.push("bank", [Run(f"short-{n}", "short", "usr_short") for n in range(1_000)], 0)
    served = {"usr_long": 0.0, "usr_short": 0.0}
    now = made = 0
    while now < 400 * SECOND:
        if not any(entry.run.user == "usr_long" for entry in queue.entries.values()):
            made += 1
            queue.push("bank", [Run(f"long-{made}", "long", "usr_long")], now)
        (start,) = queue.claim("w", 1, HEADROOM, now)
        user = queue.slots[start.run_id].run.user
        now += 10 * SECOND if user == "usr_long" else SECOND
        queue.heartbeat("w", 1, now)
        served[user] += queue.release(start.run_id, now) or 0.0
    assert abs(served["usr_long"] - served["usr_short"]) <= 10 + 1


def test_versions_share_a_capped_tenant_by_age_while_workers_with_each_are_free() -> None:
    queue = FairQueue()
    queue.policy("bank", Terms(cap=1), 0)
    codes = {"old": ["loan@1"], "new": ["loan@2"]}
    queue.push("bank", [Run(f"new-{n}", "loan", version="2") for n in range(3)], 0)
    queue.push("bank", [Run(f"old-{n}", "loan", version="1") for n in range(60)], SECOND)
    served = []
    for now in range(40):
        for worker, known in codes.items():
            queue.heartbeat(worker, 4, now * SECOND, codes=known)
        # The older version's worker is always the first to ask.
        claims = ((worker, start) for worker in codes for start in queue.claim(worker, 1, HEADROOM, now * SECOND))
        worker, start = next(claims)
        served.append(start.run_id)
        queue.release(start.run_id, now * SECOND)
    assert [place for place, run_id in enumerate(served) if run_id.startswith("new")] == [9, 19, 29]


def test_of_an_even_tie_the_first_by_name_starts() -> None:
    machine = Machine({"bee": 1.0, "ant": 1.0}, 1, lambda _: 1.0)
    for name in ("bee", "ant"):
        machine.queue.push(name, runs(name, 1), 0)
    machine.claim()
    assert machine.starts == [(0, "ant")]

"""The fair queue's decisions on plain values: what the functions of the database do, without a database.

``app.claim`` and the other functions (core/db/migrations) make the same choices in the same order, with the same
arithmetic; a test drives both with the same operations and compares them. Property tests and the simulator drive this
one. Moments are whole microseconds, as in the database; durations are seconds.

**Algorithm.** Start-time fair queuing (Goyal, Vin, Cheng, SIGCOMM 1996) over worker-seconds. A tenant's virtual time
grows by estimate/weight at a claim and by (served - estimate)/weight at the release, so that it has paid exactly for
what it was served, whatever its runs were thought to last. The next run is of the eligible tenant with the least
virtual time. The queue's own virtual time is the greatest at which a claim outside the headroom was made; a tenant
that was idle, or held back by a pause or a cap that an operator has changed, comes back no earlier than that: no
credit for the past. Inside a tenant lanes are strict, users of a
lane are chosen by virtual times of their own (unweighted), and every tenth claim takes the tenant's oldest open run
instead.

**Bound.** Take tenants f and m that are backlogged and under their caps over a time, and came in at the same virtual
time. Let W be the worker-seconds each was served since (a run still executing counts by what it has used), l its
longest run (at least 1 s, the first estimate), c the most slots it held at once. Then, at every moment:

    |W_f/w_f - W_m/w_m|  <=  c_f*l_f/w_f + c_m*l_m/w_m

Why: let s be f's last claim. Before it v_f <= v_m. Since v*w is what was served plus what was charged in advance for
runs not yet over, W_f = v_f*w_f + sum(used - estimate) over the runs it held then and the one it claimed, each at most
l_f, so W_f/w_f <= v_f + c_f*l_f/w_f; and W_m >= v_m*w_m - sum(estimates held) >= v_m*w_m - c_m*l_m. With one slot
each and exact estimates this is the bound of the paper. It grows with c because a run, once begun, cannot be stopped:
c_f runs that all outlast their estimates are known only when they end. Over any later interval of the same backlog
the difference is at most twice that.

**Ageing.** A run with k older runs queued in its tenant, none held back by the cap of a user or workflow, starts
within 10(k+1) claims of its tenant, whatever its lane.

**Headroom.** The last free slots go to newcomers (nothing was claimed since they had nothing queued or running), then
to tenants whose virtual time is not past the queue's, V, and that hold few slots or would not be past it with another
run either: they ask for less than their share. The bound holds with them: only open claims, those at which
everybody could have been chosen, move V, so when it took its present value it was <= v_m, and f claims at v_f <= V. If
newcomers moved it, a tenant of little weight that trickles would drive it away from the backlogged ones, and who comes
back from being idle would wait until they have caught up.

**Pace.** Where runs are short the headroom is lent, and open claims keep a distance from others: ``core.queue.pace``.

**Code.** A worker is given runs whose code it has. It passes over tenants of which it can execute nothing, and leaves
a tenant's tenth claim to another worker with free slots when the oldest run is of code that only that one has. All of
the above holds among tenants and runs that every claiming worker can execute. Where many tenants
have nothing for a worker the database asks 512 at a time (``app.next_served``); here all are asked.

**Approximate.** The bound does not cover bursts. Estimates are means of the past: they decide how soon an error is
noticed, never who pays for it.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Sequence

from core.queue.gaps import Gaps
from core.queue.model import reserved_slots
from core.queue.pace import Pace
from core.queue.rows import APART_US, Entry, Flow, Order, Reach, Run, Slot, Start, Tenant, Terms, User, Worker

OLDEST_TURN = 10
"""Every so many claims of a tenant its oldest open run is taken."""

FIRST_ESTIMATE_S = 1.0
"""What the first run of a workflow is charged in advance."""

_ALIVE_US = 60_000_000
_RESUMED = 10**18


def _by_virtual_time(tenant: Tenant) -> tuple[float, str]:
    return tenant.virtual_time, tenant.tenant


class FairQueue:
    """The queue of a platform. Its attributes are its tables: look, but change them by its verbs only."""

    def __init__(self, platform_cap: int | None = None) -> None:
        self.platform_cap = platform_cap
        self.virtual_time = 0.0
        self.pace = Pace(FIRST_ESTIMATE_S)
        self.again_us: int | None = None
        """When the last claim, which left slots free, should be made again; None: when something changes."""
        self.gaps = Gaps()
        self.tenants: dict[str, Tenant] = {}
        self.workers: dict[str, Worker] = {}
        self.entries: dict[str, Entry] = {}
        self.slots: dict[str, Slot] = {}
        self.estimates: dict[tuple[str, str], float] = {}
        self._order = Order()
        self._newcomers: set[str] = set()
        self._at_cap: set[str] = set()

    def policy(self, name: str, terms: Terms, now: int) -> None:
        """A tenant comes, or its terms change: they hold for what is queued already."""
        tenant = self.tenants.setdefault(name, Tenant(name, terms, now))
        tenant.settle(now)
        tenant.terms = terms
        tenant.blocked = False
        tenant.virtual_time = max(tenant.virtual_time, self.virtual_time)
        self._file(tenant)

    def pause(self, name: str, paused: bool, now: int) -> None:
        """Stop starting a tenant's runs, or start them again."""
        tenant = self.tenants[name]
        tenant.settle(now)
        tenant.paused = paused
        tenant.virtual_time = max(tenant.virtual_time, self.virtual_time)
        self._file(tenant)

    def heartbeat(
        self, worker_id: str, slots: int, now: int, *, draining: bool = False, codes: Collection[str] | None = None
    ) -> int:
        """A worker lives; how many slots it holds. A draining one claims nothing. ``codes`` None: it has all code."""
        known = None if codes is None else frozenset(codes)
        worker = self.workers.get(worker_id)
        changed = worker is None or (worker.draining, worker.codes) != (draining, known)
        worker = self.workers.setdefault(worker_id, Worker(slots, now))
        worker.heard_us, worker.draining, worker.codes = now, draining, known
        if changed:
            self.gaps.follow(self.workers.values(), now, now)
        return worker.held

    def leave(self, worker_id: str, now: int) -> bool:
        """A worker goes; False when it holds something."""
        if worker_id not in self.workers or self.workers[worker_id].held:
            return False
        del self.workers[worker_id]
        self.gaps.follow(self.workers.values(), now, now)
        return True

    def push(self, name: str, runs: Sequence[Run], now: int, *, head: bool = False) -> None:
        """Queue runs; ``head``: before those of their lane that never ran (woken, recovered)."""
        tenant = self.tenants[name]
        if tenant.queued + tenant.running == 0:
            tenant.virtual_time = max(tenant.virtual_time, self.virtual_time)
            tenant.newcomer = True
        clocks = (*tenant.clocks(now), self.gaps.clock_s(now))
        for position, run in enumerate(runs, 1):
            entry = Entry(run, name, now + position - (_RESUMED if head else 0), now, *clocks)
            self.entries[run.run_id] = entry
            key = (run.lane, run.workflow, run.code, run.user, head)
            flow = tenant.flows.setdefault(key, Flow(*key))
            heapq.heappush(flow.entries, (entry.rank, run.run_id))
            user = tenant.users.setdefault(run.user, User(tenant.user_clock))
            if user.queued + user.running == 0:
                user.virtual_time = max(user.virtual_time, tenant.user_clock)
            flow.queued += 1
            user.queued += 1
            tenant.queued += 1
        if tenant.blocked:
            tenant.settle(now)
            tenant.blocked = False
        self._file(tenant)

    def claim(self, worker_id: str, limit: int, headroom: float, now: int) -> list[Start]:
        """Up to ``limit`` runs for a worker, fairly. ``headroom``: share of all slots kept for tenants with few."""
        self.again_us = None
        worker = self.workers.get(worker_id)
        if worker is None or worker.draining:
            return []
        total, free = self._capacity(now)
        reserved = reserved_slots(total, headroom)
        mine = min(limit, worker.slots - worker.held)
        reach = Reach(worker.codes, self._elsewhere(worker, now))
        starts: list[Start] = []
        while len(starts) < mine and free > 0:
            opens_us = self.pace.opens_us(free, total, reserved, now)
            tenant = self._next(free, reserved, now, reach) if opens_us <= now else self._quiet(free, reach)
            if tenant is None:
                if now < opens_us < math.inf and self._anybody(reach):
                    self.again_us = round(opens_us)
                break
            before = tenant.virtual_time
            start = self._start(tenant, worker_id, now, reach)
            if start is not None:
                self.pace.claimed(start.estimate_s, total, now)
                if opens_us <= now:  # see the top
                    self.virtual_time = max(self.virtual_time, before)
                starts.append(start)
                free -= 1
        if starts:
            worker.heard_us = now
        return starts

    def release(self, run_id: str, now: int) -> float | None:
        """Give a slot back and pay for the seconds used; None when nobody holds it."""
        slot = self.slots.pop(run_id, None)
        if slot is None:
            return None
        tenant, run = self.tenants[slot.tenant], slot.run
        tenant.settle(now)
        served_s = max(0, now - slot.claimed_us) / 1e6
        tenant.running -= 1
        tenant.lent -= slot.burst
        tenant.used_s += served_s
        tenant.virtual_time += (served_s - slot.estimate_s) / tenant.terms.weight
        tenant.workflows[run.workflow] -= 1
        user = tenant.users[run.user]
        user.running -= 1
        user.virtual_time += served_s - slot.estimate_s
        self._learn(slot.tenant, run.workflow, max(0.001, served_s))
        self.workers[slot.worker].held -= 1
        tenant.blocked = False
        self._file(tenant)
        return served_s

    def cancel(self, run_id: str) -> bool:
        """Take a queued run out of the queue; False when it is not queued."""
        entry = self.entries.get(run_id)
        if entry is None:
            return False
        tenant = self.tenants[entry.tenant]
        self._take(tenant, entry)
        self._file(tenant)
        return True

    def recover(self, worker_id: str | None, keep: Collection[str], dead_before: int, now: int) -> list[str]:
        """Queue the runs of silent workers again, and those of ``worker_id`` that are not among ``keep``."""
        dead = {one for one, worker in self.workers.items() if worker.heard_us < dead_before}
        lost = [
            (slot.tenant, run_id, slot)
            for run_id, slot in self.slots.items()
            if slot.worker in dead or (slot.worker == worker_id and run_id not in keep)
        ]
        lost.sort(key=lambda one: one[:2])
        for name, run_id, slot in lost:
            self.release(run_id, now)
            self.push(name, [slot.run], now, head=True)
        if dead:
            gone_us = max(self.workers.pop(one).heard_us for one in dead)
            self.gaps.follow(self.workers.values(), gone_us, now)
        for worker in self.workers.values():
            if worker.heard_us > now + APART_US:  # the clock has gone back: silence counts from now on
                worker.heard_us = now
        return [run_id for _, run_id, _ in lost]

    def _capacity(self, now: int) -> tuple[int, int]:
        """Slots of workers that live, and how many of them are free."""
        live = [one for one in self.workers.values() if not one.draining and one.heard_us > now - _ALIVE_US]
        total = sum(one.slots for one in live)
        free = total - sum(one.held for one in live)
        if self.platform_cap is not None:
            total = min(total, self.platform_cap)
            free = min(free, self.platform_cap - len(self.slots))
        return total, free

    def _anybody(self, reach: Reach) -> bool:
        bursts = (one for name in self._at_cap if (one := self.tenants[name]).may_burst)
        return self._first(reach) is not None or any(reach.to(one) for one in bursts)

    def _elsewhere(self, worker: Worker, now: int) -> frozenset[str]:
        """Code that this worker has not, and another that could execute a run at once has."""
        if worker.codes is None:
            return frozenset()
        ready = (
            one.codes
            for one in self.workers.values()
            if one.codes is not None and not one.draining and one.held < one.slots and one.heard_us > now - _ALIVE_US
        )
        return frozenset().union(*ready) - worker.codes

    def _next(self, free: int, reserved: int, now: int, reach: Reach) -> Tenant | None:
        return self._first(reach) or (self._bursting(now, reach) if free > reserved else None)

    def _quiet(self, free: int, reach: Reach) -> Tenant | None:
        newcomers = (one for name in self._newcomers if reach.to(one := self.tenants[name]))
        first = min(newcomers, key=_by_virtual_time, default=None)
        return first or self._modest(free, reach)

    def _first(self, reach: Reach) -> Tenant | None:
        """The eligible tenant with the least virtual time; who was passed over is looked for one by one."""
        if not reach.passed:
            return self._order.first(self.tenants)
        eligible = (one for one in self.tenants.values() if one.eligible and reach.to(one))
        return min(eligible, key=_by_virtual_time, default=None)

    def _modest(self, free: int, reach: Reach) -> Tenant | None:
        """Of those not ahead of the queue's virtual time who hold few, or are a run behind it, who holds the fewest."""
        first = self._order.first(self.tenants)
        if first is None or first.virtual_time > self.virtual_time:
            return None
        modest = (
            one
            for one in self.tenants.values()
            if one.eligible
            and one.virtual_time <= self.virtual_time
            and (one.running < free or one.virtual_time + self.pace.mean_s / one.terms.weight <= self.virtual_time)
            and reach.to(one)
        )
        return min(modest, key=lambda one: (one.running, one.virtual_time, one.tenant), default=None)

    def _bursting(self, now: int, reach: Reach) -> Tenant | None:
        """Who may go beyond its cap. A debt grows with time: it is settled before it is believed."""
        for tenant in sorted((self.tenants[name] for name in self._at_cap), key=_by_virtual_time):
            if tenant.may_burst and reach.to(tenant):
                tenant.settle(now)
                if tenant.may_burst:
                    return tenant
        return None

    def _start(self, tenant: Tenant, worker_id: str, now: int, reach: Reach) -> Start | None:
        """Give the tenant a slot; None when what it has queued is held back by caps inside it, or is for others."""
        flow = self._choose(tenant, reach)
        if flow is None and not any(True for _ in tenant.open_flows()):
            tenant.settle(now)
            tenant.blocked = True
            self._file(tenant)
            return None
        if flow is None or not reach.has(flow):
            reach.passed.add(tenant.tenant)
            return None
        entry = self.entries[flow.entries[0][1]]
        run, user = entry.run, tenant.users[flow.user]
        estimate_s = self.estimates.get((tenant.tenant, run.workflow), FIRST_ESTIMATE_S)
        tenant.settle(now)
        start = self._started(tenant, entry, estimate_s, now)
        self._take(tenant, entry)
        tenant.turn += 1
        tenant.running += 1
        tenant.lent += start.burst
        tenant.newcomer = False
        tenant.workflows[run.workflow] = tenant.workflows.get(run.workflow, 0) + 1
        tenant.user_clock = max(tenant.user_clock, user.virtual_time)
        user.running += 1
        user.virtual_time += estimate_s
        tenant.virtual_time += estimate_s / tenant.terms.weight
        self.slots[run.run_id] = Slot(run, tenant.tenant, worker_id, now, estimate_s, start.burst)
        self.workers[worker_id].held += 1
        self._file(tenant)
        return start

    def _started(self, tenant: Tenant, entry: Entry, estimate_s: float, now: int) -> Start:
        waited_s = max(0, now - entry.queued_us) / 1e6
        capped_s, paused_s = tenant.capped_s - entry.capped_s, tenant.paused_s - entry.paused_s
        no_worker_s, no_code_s = self.gaps.of_wait(
            entry.run.code, entry.queued_us, entry.no_worker_s, now, left_s=waited_s - capped_s - paused_s
        )
        return Start(
            run_id=entry.run.run_id,
            tenant=tenant.tenant,
            estimate_s=estimate_s,
            burst=tenant.running >= tenant.terms.cap,
            waited_s=waited_s,
            capped_s=capped_s,
            paused_s=paused_s,
            no_worker_s=no_worker_s,
            no_code_s=no_code_s,
        )

    def _choose(self, tenant: Tenant, reach: Reach) -> Flow | None:
        def turn(one: Flow) -> tuple[int, bool, float, str, str]:
            return one.lane, not one.resumed, tenant.users[one.user].virtual_time, one.user, one.workflow

        def head(one: Flow) -> int:
            return one.entries[0][0]

        if (tenant.turn + 1) % OLDEST_TURN == 0:
            flows = tenant.open_flows(None if reach.codes is None else reach.codes | reach.elsewhere)
            return min(flows, key=lambda one: (head(one), *turn(one), one.code), default=None)
        return min(tenant.open_flows(reach.codes), key=lambda one: (*turn(one), head(one), one.code), default=None)

    def _take(self, tenant: Tenant, entry: Entry) -> None:
        """Out of the queue. Places of cancelled runs stay until they come first."""
        run = entry.run
        del self.entries[run.run_id]
        key = (run.lane, run.workflow, run.code, run.user, entry.rank < 0)
        flow = tenant.flows[key]
        flow.queued -= 1
        tenant.queued -= 1
        tenant.users[run.user].queued -= 1
        while flow.entries and not self._queued_at(flow.entries[0]):
            heapq.heappop(flow.entries)
        if flow.queued == 0:
            del tenant.flows[key]

    def _queued_at(self, place: tuple[int, str]) -> bool:
        entry = self.entries.get(place[1])
        return entry is not None and entry.rank == place[0]

    def _learn(self, tenant: str, workflow: str, served_s: float) -> None:
        known_s = self.estimates.get((tenant, workflow))
        learned_s = served_s if known_s is None else max(0.001, 0.8 * known_s + 0.2 * served_s)
        self.estimates[tenant, workflow] = learned_s

    def _file(self, tenant: Tenant) -> None:
        """Put a tenant where claims look for it, after anything about it changed."""
        if tenant.eligible:
            self._order.file(tenant)
        if tenant.eligible and tenant.newcomer:
            self._newcomers.add(tenant.tenant)
        else:
            self._newcomers.discard(tenant.tenant)
        if tenant.waiting and tenant.terms.burst_slots and tenant.running >= tenant.terms.cap:
            self._at_cap.add(tenant.tenant)
        else:
            self._at_cap.discard(tenant.tenant)

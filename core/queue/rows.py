"""What the tables of the fair queue hold, as plain values: the state of ``core.queue.fairness``.

Moments are whole microseconds, as in the database; durations are seconds.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from core.queue.model import DEAD_AFTER_S, code_of

APART_US = round(DEAD_AFTER_S * 1e6)
"""By less than that clocks differ; one that is further behind has been set back."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a tenant's policy says to the queue. Caps count slots; None: no cap."""

    weight: float = 1.0
    cap: int = 1_000
    burst_slots: int = 0
    burst_credit_s: float = 0.0
    user_cap: int | None = None
    workflow_caps: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """What the queue knows of a run. ``user`` is empty when nobody submitted it."""

    run_id: str
    workflow: str = "job"
    user: str = ""
    lane: int = 1
    version: str = "1"

    @property
    def code(self) -> str:
        """What a worker must have to execute it."""
        return code_of(self.workflow, self.version)


@dataclass(frozen=True, slots=True)
class Start:
    """A run that got a slot, what it was charged, and what it had waited for, in seconds that add up to the wait."""

    run_id: str
    tenant: str
    estimate_s: float
    burst: bool
    waited_s: float
    capped_s: float
    paused_s: float
    no_worker_s: float
    no_code_s: float

    @property
    def share_s(self) -> float:
        """The rest of the wait: it was not its turn."""
        return self.waited_s - self.capped_s - self.paused_s - self.no_worker_s - self.no_code_s


@dataclass(slots=True)
class Worker:
    """A process that executes runs. ``codes``: the code it has, None: whatever there is."""

    slots: int
    heard_us: int
    codes: frozenset[str] | None = None
    draining: bool = False
    held: int = 0


@dataclass(slots=True)
class User:
    """A user of a tenant."""

    virtual_time: float
    queued: int = 0
    running: int = 0


@dataclass(slots=True)
class Entry:
    """A queued run, its place, and the tenant's clocks when it was queued."""

    run: Run
    tenant: str
    rank: int
    queued_us: int
    capped_s: float
    paused_s: float
    no_worker_s: float


@dataclass(slots=True)
class Slot:
    """Capacity held by a run."""

    run: Run
    tenant: str
    worker: str
    claimed_us: int
    estimate_s: float
    burst: bool


@dataclass(slots=True)
class Flow:
    """Runs of one user, version of a workflow and lane of a tenant, by rank; resumed runs are flows of their own."""

    lane: int
    workflow: str
    code: str
    user: str
    resumed: bool
    entries: list[tuple[int, str]] = field(default_factory=list)
    queued: int = 0


@dataclass(slots=True)
class Tenant:
    """A tenant's row of the queue."""

    tenant: str
    terms: Terms
    clock_us: int
    paused: bool = False
    blocked: bool = False
    virtual_time: float = 0.0
    user_clock: float = 0.0
    turn: int = 0
    queued: int = 0
    running: int = 0
    lent: int = 0
    newcomer: bool = False
    used_s: float = 0.0
    debt_s: float = 0.0
    capped_s: float = 0.0
    paused_s: float = 0.0
    users: dict[str, User] = field(default_factory=dict)
    flows: dict[tuple[int, str, str, str, bool], Flow] = field(default_factory=dict)
    workflows: dict[str, int] = field(default_factory=dict)

    @property
    def waiting(self) -> bool:
        """Whether something of it could start, caps of the tenant aside."""
        return self.queued > 0 and not self.paused and not self.blocked

    @property
    def eligible(self) -> bool:
        """Whether it may claim."""
        return self.waiting and self.running < self.terms.cap

    @property
    def may_burst(self) -> bool:
        """Whether it may go beyond its cap, by its debt when that was last settled."""
        above = self.terms.cap <= self.running < self.terms.cap + self.terms.burst_slots
        return self.waiting and above and self.debt_s < self.terms.burst_credit_s

    def settle(self, now: int) -> None:
        """Bring debt and clocks up to now, before ``running``, the cap or the pause changes."""
        counts = self.paused or self.blocked or self.running >= self.terms.cap or self.debt_s > 0
        if counts and self.clock_us - APART_US < now < self.clock_us:
            return  # machines differ a little, and who waits for a lock comes late: no second is counted twice
        passed_s = max(0, now - self.clock_us) / 1e6
        self.debt_s = max(0.0, self.debt_s + min(self.running - self.terms.cap, self.lent) * passed_s)
        self.capped_s, self.paused_s = self.clocks(now)
        self.clock_us = now

    def clocks(self, now: int) -> tuple[float, float]:
        """Seconds at the cap or blocked and seconds paused, ever, as of now; a second counts for one of them."""
        passed_s = max(0, now - self.clock_us) / 1e6
        if self.paused:
            return self.capped_s, self.paused_s + passed_s
        if self.running >= self.terms.cap or self.blocked:
            return self.capped_s + passed_s, self.paused_s
        return self.capped_s, self.paused_s

    def serves(self, codes: Collection[str]) -> bool:
        """Whether something is queued that a worker with this code can execute."""
        return any(flow.queued and flow.code in codes for flow in self.flows.values())

    def open_flows(self, codes: Collection[str] | None = None) -> Iterator[Flow]:
        """Flows whose head may start under the caps of users and workflows; None: whatever their code is."""
        caps, user_cap = self.terms.workflow_caps, self.terms.user_cap
        for flow in self.flows.values():
            if codes is not None and flow.code not in codes:
                continue
            if flow.queued == 0 or (user_cap is not None and self.users[flow.user].running >= user_cap):
                continue
            if flow.workflow not in caps or self.workflows.get(flow.workflow, 0) < caps[flow.workflow]:
                yield flow


@dataclass(slots=True)
class Reach:
    """What the worker of one claim can execute, and whom it has passed over. ``codes`` None: everything."""

    codes: frozenset[str] | None
    elsewhere: frozenset[str]
    passed: set[str] = field(default_factory=set)

    def has(self, flow: Flow) -> bool:
        """Whether the worker has the code of a flow."""
        return self.codes is None or flow.code in self.codes

    def to(self, tenant: Tenant) -> bool:
        """Whether to ask a tenant; once one was passed over, only those that have something for this worker."""
        if not self.passed or self.codes is None:
            return True
        return tenant.tenant not in self.passed and tenant.serves(self.codes)


class Order:
    """Eligible tenants by virtual time. Places that are no longer true are dropped when they come first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []

    def file(self, tenant: Tenant) -> None:
        """Note where a tenant stands."""
        heapq.heappush(self._heap, (tenant.virtual_time, tenant.tenant))

    def first(self, tenants: Mapping[str, Tenant]) -> Tenant | None:
        """The eligible tenant with the least virtual time."""
        while self._heap:
            virtual_time, name = self._heap[0]
            tenant = tenants[name]
            if tenant.eligible and tenant.virtual_time == virtual_time:
                return tenant
            heapq.heappop(self._heap)
        return None

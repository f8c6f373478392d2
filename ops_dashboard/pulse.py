"""What stands now, as plain values: the platform, its tenants, its workers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from core.queue.model import DEAD_AFTER_S, HEADROOM, IDLE_LOOK_S, reserved_slots
from core.runs.model import Cause, Standstill

_IDLE_SPEAKS_S = IDLE_LOOK_S + 120.0


@dataclass(frozen=True, slots=True)
class TenantPulse:
    """One tenant now. Money in micro-USD; ``waiting`` counts parked runs by cause, ``lanes`` and ``codes`` queued ones
    by lane and by workflow@version; ``queue_depth`` is how many its policy lets it queue.

    ``debt_s``: worker-seconds used over the cap and not paid back yet; at ``burst_credit_s`` bursts end.
    """

    tenant_id: str
    name: str
    tier: str
    queued: int
    queue_depth: int
    running: int
    cap: int
    weight: float
    paused: bool
    draining: bool
    burst_slots: int
    burst_credit_s: float
    debt_s: float
    lanes: dict[str, int]
    codes: dict[str, int]
    standstill: Standstill
    oldest_queued_at: datetime | None
    waiting: dict[str, int]
    runs_today: int
    daily_runs: int
    month_limit_microusd: int
    month_reserved_microusd: int
    month_spent_microusd: int
    reviews_open: int
    reviews_overdue: int
    review_next_due: datetime | None

    @property
    def bursting(self) -> int:
        """Slots held over the cap."""
        return max(0, self.running - self.cap)

    @property
    def waiting_total(self) -> int:
        """Parked runs, whatever the cause."""
        return sum(self.waiting.values())

    @property
    def queued_by_cause(self) -> dict[str, int]:
        """Queued runs by what they wait for."""
        counts: dict[str, int] = {}
        for code, queued in self.codes.items():
            workflow, _, version = code.rpartition("@")
            cause = self.standstill.of(workflow, version)
            counts[cause] = counts.get(cause, 0) + queued
        return counts

    @property
    def causes(self) -> dict[str, int]:
        """Everything that does not execute, by cause: parked and queued runs."""
        counts = dict(self.waiting)
        for cause, queued in self.queued_by_cause.items():
            counts[cause] = counts.get(cause, 0) + queued
        return counts


@dataclass(frozen=True, slots=True)
class WorkerPulse:
    """One worker now; ``silent_s`` is the age of its last sign of life."""

    worker_id: str
    slots: int
    held: int
    draining: bool
    started_at: datetime
    silent_s: float

    @property
    def state(self) -> str:
        """``busy``, ``idle``, ``draining`` or ``silent``: an idle worker speaks rarely, one that holds runs often."""
        if self.silent_s > (DEAD_AFTER_S if self.held else _IDLE_SPEAKS_S):
            return "silent"
        if self.draining:
            return "draining"
        return "busy" if self.held else "idle"


@dataclass(frozen=True, slots=True)
class Pulse:
    """What stands now. ``platform_cap``: slots that may be held at once, None: no cap, or not ours to see.

    ``headroom_share``: of all slots, those kept for quiet tenants.
    """

    at: datetime
    tenants: tuple[TenantPulse, ...]
    live_slots: int
    platform_cap: int | None
    workers: tuple[WorkerPulse, ...]
    headroom_share: float = HEADROOM

    @property
    def slots(self) -> int:
        """Slots that may be held at once."""
        return self.live_slots if self.platform_cap is None else min(self.live_slots, self.platform_cap)

    def queued_cause(self, tenant_id: str, workflow: str, version: str) -> Cause | None:
        """Why a queued run of a tenant has not started; None: no such tenant here."""
        tenant = next((one for one in self.tenants if one.tenant_id == tenant_id), None)
        return None if tenant is None else tenant.standstill.of(workflow, version)

    @property
    def headroom(self) -> int:
        """Of those, the last ones are for tenants with nothing running."""
        return reserved_slots(self.slots, self.headroom_share)

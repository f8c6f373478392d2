"""The metrics of the whole installation: what stands in the queue, what waits, what ended. Counted by the leader.

Rows are the truth and the leader is the only one who counts them, so each number is there once, whatever the
number of workers. Gauges show the moment of the last count and vanish when leadership does; counters and
histograms go on from the moment at which this process began to lead, as Prometheus expects of a restart.
What ended is counted five seconds late: a transaction that commits after a count must not be missed by it.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from core.clock import Clock
from core.db.pool import Database, Row
from core.db.queries import load_queries
from core.reviews.model import Priority

SETTLED = timedelta(seconds=5)

SQL = load_queries(__file__)
_STATES = ("succeeded", "failed", "cancelled", "dead")
_DURATIONS = (1, 5, 15, 45, 120, 300, 900, 3_600, 14_400, 86_400)
_WAITS = (0.1, 0.5, 1, 5, 15, 45, 120, 300, 900, 3_600)


class Census:
    """One per registry. ``take`` counts, ``forget`` ends what only a leader may say."""

    def __init__(self, db: Database, clock: Clock, registry: CollectorRegistry) -> None:
        self._db = db
        self._clock = clock
        self._until: datetime | None = None

        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(name, what, ("tenant", *labels), registry=registry)

        self._queued = gauge("bailiwick_runs_queued", "Runs in the queue.")
        self._running = gauge("bailiwick_runs_running", "Runs in a slot.")
        self._waiting = gauge("bailiwick_runs_waiting", "Parked runs, which hold no slot.", "cause")
        self._oldest = gauge("bailiwick_queue_oldest_seconds", "Age of the oldest entry in the queue; 0 without one.")
        self._cap = gauge("bailiwick_slots_cap", "Slots the tenant may hold at once.")
        self._wanted = gauge("bailiwick_slots_wanted", "Slots it could hold now: queued and running, up to its cap.")
        self._reviews = gauge("bailiwick_reviews_open", "Open reviews.", "pool", "priority")
        self._overdue = gauge("bailiwick_reviews_overdue", "Open reviews past their SLA.", "pool", "priority")
        self._gauges = (
            *(self._queued, self._running, self._waiting, self._oldest),
            *(self._cap, self._wanted, self._reviews, self._overdue),
        )
        tenant = ("tenant",)
        self._ended = Counter("bailiwick_runs_ended", "Runs that ended.", (*tenant, "state"), registry=registry)
        self._overruns = Counter(
            "bailiwick_runs_overrun", "Runs that ended having spent more than their budget.", tenant, registry=registry
        )
        self._durations = Histogram(
            "bailiwick_run_seconds",
            "From submission to the end, waits included.",
            tenant,
            registry=registry,
            buckets=_DURATIONS,
        )
        self._waits = Histogram(
            "bailiwick_queue_wait_seconds",
            "From entering the queue to a slot, counted when the slot is given back.",
            tenant,
            registry=registry,
            buckets=_WAITS,
        )

    async def take(self) -> None:
        """Count. Raises ``Unavailable`` when Postgres is away; what was shown before stays."""
        now = self._clock.now()
        until = now - SETTLED
        since = self._until or until
        async with self._db.control_transaction() as tx:
            tenants = await tx.fetch(SQL["census"], since, until, now)
            reviews = await tx.fetch(SQL["census_reviews"], now)
        self._until = max(since, until)
        # No await from here on: whoever reads the metrics sees the whole count or the one before.
        self._clear()
        for row in tenants:
            self._show(row, now)
            self._add(row)
        for row in reviews:
            labels = (row["tenant_id"], row["pool"], Priority(row["priority"]).name.lower())
            self._reviews.labels(*labels).set(row["open"])
            self._overdue.labels(*labels).set(row["overdue"])

    def forget(self) -> None:
        """Somebody else counts from now on."""
        self._until = None
        self._clear()

    def _clear(self) -> None:
        for gauge in self._gauges:
            gauge.clear()

    def _show(self, row: Row, now: datetime) -> None:
        tenant, oldest = row["tenant_id"], row["oldest_queued_at"]
        self._queued.labels(tenant).set(row["queued"])
        self._running.labels(tenant).set(row["running"])
        self._oldest.labels(tenant).set(0 if oldest is None else max(0.0, (now - oldest).total_seconds()))
        self._cap.labels(tenant).set(row["cap"])
        could = 0 if row["paused"] else min(row["queued"], max(0, row["cap"] - row["running"]))
        self._wanted.labels(tenant).set(row["running"] + could)
        for cause, count in row["waiting"].items():
            self._waiting.labels(tenant, cause).set(count)

    def _add(self, row: Row) -> None:
        tenant = row["tenant_id"]
        for state in _STATES:
            self._ended.labels(tenant, state).inc(row[state])
        self._overruns.labels(tenant).inc(row["overruns"])
        for histogram, seconds in ((self._durations, row["durations_s"]), (self._waits, row["waits_s"])):
            series = histogram.labels(tenant)
            for value in seconds:
                series.observe(value)

"""The only opener of connections: settings in, a ready ``Platform`` out, everything closed at the end."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Gauge

from core.audit.service import AuditService
from core.blobs.service import BlobService
from core.clock import Clock, SystemClock
from core.conversations.service import ConversationService
from core.db.pool import Database
from core.models.gateway import ModelGateway
from core.models.metering import Books
from core.models.metrics import ModelMetrics
from core.models.model import endpoints_of, names_of
from core.queue.service import QueueService
from core.redis.bus import Bus
from core.redis.cache import Cache
from core.redis.limits import Limits
from core.redis.reports import EndpointReports
from core.reviews.desk import Desk
from core.reviews.service import ReviewService
from core.runs.bulk import BulkControl
from core.runs.children import ChildRuns
from core.runs.control import RunControl
from core.runs.entry import Entry
from core.runs.execution import RunExecution
from core.runs.service import RunService
from core.schedules.pollers import PollerService
from core.schedules.service import ScheduleService
from core.settings import Settings
from core.telemetry import new_registry
from core.tenants.service import TenantService
from core.triggers.service import TriggerService
from core.usage.service import UsageService
from core.versions.service import VersionService
from core.workflows.registry import Registry


@dataclass(frozen=True, slots=True)
class Platform:
    """Every service of one process, wired. One per process; pass it, never look it up."""

    settings: Settings
    clock: Clock
    db: Database
    bus: Bus
    limits: Limits
    cache: Cache
    reports: EndpointReports
    tenants: TenantService
    queue: QueueService
    versions: VersionService
    runs: RunService
    control: RunControl
    bulk: BulkControl
    execution: RunExecution
    children: ChildRuns
    reviews: ReviewService
    desk: Desk
    usage: UsageService
    audit: AuditService
    blobs: BlobService
    conversations: ConversationService
    schedules: ScheduleService
    pollers: PollerService
    triggers: TriggerService
    models: ModelGateway
    workflows: Registry
    metrics: CollectorRegistry


def freeze_loaded() -> None:
    """A process has loaded what it is made of: from now on the collector of garbage leaves that alone.

    Else each full collection looks at 365,000 objects, and stops a process for 0.1 to 0.2 s with all that it executes.
    """
    gc.collect()
    gc.freeze()


@asynccontextmanager
async def open_platform(settings: Settings, *, process: str, clock: Clock | None = None) -> AsyncIterator[Platform]:
    """Connect to Postgres and Redis and wire all services.

    Raises ``Unavailable`` when Postgres does not answer, ``SetupError`` when an address is missing. Redis
    may be absent: each use says what happens without it.
    """
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        db = await Database.open(
            settings.required("database_app_url"),
            size=settings.database_pool_size,
            name=f"bailiwick-{process}",
        )
        stack.push_async_callback(db.close)
        bus = await Bus.open(settings.required("redis_url"), clock, region=settings.region)
        stack.push_async_callback(bus.close)
        limits, cache = Limits(bus.connection), Cache(bus.connection)
        reports = EndpointReports(bus.connection)
        workflows = Registry.load(settings)
        audit = AuditService(db, clock)
        usage = UsageService(db, clock)
        tenants = TenantService(db, bus, audit, clock, region=settings.region, region_urls=settings.region_urls)
        stack.push_async_callback(tenants.refusals.settled)
        queue = QueueService(db, bus, clock, headroom=settings.queue_headroom)
        execution = RunExecution(db, bus, queue, usage, clock)
        versions = VersionService(db, queue, audit, workflows, clock)
        entry = Entry(db, queue, usage, workflows, versions, clock, settings.queue_limit)
        runs = RunService(db, bus, queue, entry, audit, workflows, clock)
        reviews = ReviewService(db, bus, queue, execution, audit, clock)
        control = RunControl(db, bus, queue, runs, audit, usage, limits, clock)
        metrics = new_registry(process)
        hears = Gauge(
            "bailiwick_wakeups_heard", "1 while wake-ups reach it; 0: it looks every second.", registry=metrics
        )
        hears.set_function(lambda: float(bus.hears()))
        books = Books(db, usage, audit, clock, ModelMetrics(metrics))
        models = ModelGateway(endpoints_of(settings), names_of(settings), books, cache, reports=reports)
        stack.push_async_callback(models.close)
        yield Platform(
            settings=settings,
            clock=clock,
            db=db,
            bus=bus,
            limits=limits,
            cache=cache,
            reports=reports,
            tenants=tenants,
            queue=queue,
            versions=versions,
            runs=runs,
            control=control,
            bulk=BulkControl(db, bus, control, audit, clock),
            execution=execution,
            children=ChildRuns(db, bus, queue, usage, entry, execution, clock),
            reviews=reviews,
            desk=Desk(db, reviews, tenants, clock),
            usage=usage,
            audit=audit,
            blobs=BlobService(db, audit, clock),
            conversations=ConversationService(db, audit, clock),
            schedules=ScheduleService(db, bus, runs, audit, workflows, clock),
            pollers=PollerService(
                db, bus, runs, audit, workflows, clock, allowed_private_hosts=settings.allowed_private_hosts
            ),
            triggers=TriggerService(db, bus, runs, audit, workflows, clock, secret_key=settings.secret_key),
            models=models,
            workflows=workflows,
            metrics=metrics,
        )

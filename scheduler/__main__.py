"""The scheduler process. ``python -m scheduler``

It serves health and metrics, stands for leadership, and does its duties while it leads. SIGTERM or SIGINT ends
it at once: nothing it does needs to be finished, another scheduler, or this one again, goes on from the rows.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal

import structlog

from core.bootstrap import freeze_loaded, open_platform
from core.errors import Unavailable
from core.settings import Port, Settings
from core.telemetry import configure_logging, serve_ops
from scheduler.duties import TOPICS, open_duties
from scheduler.leader import Leader

log = structlog.get_logger(__name__)


async def main(settings: Settings) -> None:
    """Run one scheduler until SIGTERM or SIGINT. Raises ``SetupError`` or ``Unavailable`` when it cannot start."""
    configure_logging(settings, "scheduler")
    async with open_platform(settings, process="scheduler") as platform, open_duties(platform) as duties:
        dsn = settings.required("database_lock_url")
        leader = Leader(dsn, platform.bus, duties, platform.metrics, topics=TOPICS)

        async def redis() -> None:
            if not await platform.bus.healthy():
                raise Unavailable("Redis does not answer.")

        async def jobs() -> None:
            # What the last runs found, not a question of its own: probes must not keep a database awake.
            if leader.leading and (failing := duties.maintenance.failing):
                raise Unavailable(f"These jobs fail: {', '.join(failing)}.")

        leading = asyncio.create_task(leader.run(), name="leader")
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, leading.cancel)
        checks = {"redis": redis, "jobs": jobs}
        port = settings.port(Port.SCHEDULER)
        async with serve_ops(port, checks, platform.metrics, host=settings.bind_host):
            freeze_loaded()
            log.info("scheduler.started")
            with contextlib.suppress(asyncio.CancelledError):
                await leading


if __name__ == "__main__":
    asyncio.run(main(Settings()))

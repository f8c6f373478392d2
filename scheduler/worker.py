"""The worker: turns claimed runs into executed ones. ``python -m scheduler.worker``

       ┌──────a claim gave it runs──────┐
       ▼                                │
    working ──nothing for a minute──► resting
       └────────────────┬───────────────┘
                        └──SIGTERM, or its lifetime is over──► draining ──nothing held──► gone

- Working: claims as many runs as it has free slots, executes each in a task, and sleeps until a wake-up
  (a submission, a release, a decision) when there is nothing to claim. While it holds runs it says every
  2 s that it lives.
- Resting: after a minute of nothing, and one last look, it asks Postgres nothing but at the idle looks, a quarter of
  an hour apart; a wake-up still brings it back at once. Its readiness is what Postgres last answered: probes must not
  keep a database awake.
- It says which code it has, and is given runs of that code only; a run of a version that no worker has stays queued.
- Draining: claims nothing more. Each run it holds may end the step that it is in, and goes back to the head of its
  lane: another worker goes on with the next step. What is in a step after 30 s is cut off and goes back too.
  A step that still blocks a thread then does not keep the process from ending (``scheduler.threads``).
- Killed: nobody hears from it for 8 s, then the scheduler queues its runs again and another worker goes on
  after their last checkpoint.
- Postgres gone: a claim or heartbeat fails, is logged and tried again (a claim after 1 s, doubling, at most
  10 s); executions wait in their own calls.
- An execution that breaks because a server is away is given back to the queue. So is one that breaks otherwise (our
  code), a second later: too many of those, and of deaths of its workers, and the run is dead, visibly.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

import structlog
from prometheus_client import Gauge

from core.bootstrap import Platform, freeze_loaded, open_platform
from core.errors import BailiwickError, Unavailable
from core.ids import RunId, WorkerId
from core.queue.model import HEARTBEAT_S, IDLE_LOOK_S, Claim, Topic, idle_look_s
from core.redis.bus import Signals
from core.runs.patches import RunPatches
from core.runs.rungs import Rungs
from core.settings import Port, Settings
from core.telemetry import configure_logging, serve_ops
from core.workflows.executor import RunExecutor
from core.workflows.faults import describe
from core.workflows.services import Services
from core.workflows.step import Rooms
from memory.bootstrap import open_memory
from scheduler.threads import ending_without_threads, threads_for_all

log = structlog.get_logger(__name__)

IDLE_S = 60.0
_BUSY_LOOK_S = 5.0
_RETRY_S, _SLOWEST_RETRY_S = 1.0, 10.0
DRAIN_S = 30.0
_CUT_S = 5.0


class Worker:
    """One worker process: claims, executes, heartbeats."""

    def __init__(
        self,
        platform: Platform,
        executor: RunExecutor,
        worker_id: WorkerId,
        *,
        idle_s: float = IDLE_S,
        drain_s: float = DRAIN_S,
    ) -> None:
        self._idle_s = idle_s
        self._drain_s = drain_s
        self._platform = platform
        self._executor = executor
        self.worker_id = worker_id
        self._slots = platform.settings.worker_slots
        self._codes = platform.workflows.codes()
        # By run and claim: a run may be claimed again before its last execution has been concluded.
        self._held: dict[tuple[RunId, int], asyncio.Task[None]] = {}
        self._freed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._again_at: datetime | None = None  # when a claim may find more, though nothing changes
        self._last_heartbeat = float("-inf")
        self._resting = False
        self._answered = True  # it did, when the platform was opened

    def stop(self) -> None:
        """Begin to drain."""
        self._stopping.set()
        self._freed.set()
        self._executor.hand_over()

    @property
    def held(self) -> int:
        """Runs that it executes now."""
        return len(self._held)

    def _runs(self) -> list[RunId]:
        return [run_id for run_id, _ in self._held]

    async def postgres(self) -> None:
        """Whether Postgres answered when this worker last asked it something; asks nothing itself.

        Raises ``Unavailable`` when it did not.
        """
        if not self._answered:
            raise Unavailable("Postgres does not answer.")

    async def run(self, lifetime_s: float | None = None) -> None:
        """Work until ``stop``, or for ``lifetime_s``, then drain."""
        if lifetime_s is not None:
            asyncio.get_running_loop().call_later(lifetime_s, self.stop)
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(self._heartbeats(), name="heartbeats"),
                tasks.create_task(self._cancellations(), name="cancellations"),
            ]
            try:
                async with self._platform.bus.listen(Topic.WORKERS) as signals:
                    retry_s = _RETRY_S
                    while not self._stopping.is_set():
                        self._freed.clear()
                        if await self._claim_all():
                            retry_s = _RETRY_S
                            await self._wait(signals)
                        else:
                            await self._pause(retry_s)
                            retry_s = min(2 * retry_s, _SLOWEST_RETRY_S)
                await self._drain()
            finally:
                for task in background:
                    task.cancel()

    async def _claim_all(self) -> bool:
        """Claim until the slots are full or nothing may start; False when a claim failed."""
        self._again_at = None
        try:
            while (free := self._slots - len(self._held)) > 0 and not self._stopping.is_set():
                if await self._heartbeat() > len(self._held):
                    # The answer to a claim was lost, or a run could not be given back: nobody executes those.
                    await self._platform.queue.recover(self.worker_id, keep=self._runs())
                claims = await self._platform.queue.claim(self.worker_id, free)
                self._answered = True
                self._resting = self._resting and not claims
                for claim in claims:
                    task = asyncio.create_task(self._execute(claim), name=claim.run_id)
                    self._held[claim.run_id, claim.attempt] = task
                if len(claims) < free:
                    self._again_at = claims.again_at
                    break
        except BailiwickError as error:
            self._answered = not isinstance(error, Unavailable)
            log.warning("worker.claim_failed", error=error.message)
            return False
        return True

    async def _wait(self, signals: Signals) -> None:
        """Until a wake-up, a free slot, the moment that the queue told, or the slow look that nothing should need."""
        idle_s = idle_look_s(self._platform.clock.now()) if self._resting else self._idle_s
        timeout_s = _BUSY_LOOK_S if self._held else idle_s
        again_s = None
        if self._again_at is not None:
            again_s = max(0.0, (self._again_at - self._platform.clock.now()).total_seconds())
        woken = asyncio.create_task(signals.wait(timeout_s))
        freed = asyncio.create_task(self._freed.wait())
        await asyncio.wait({woken, freed}, timeout=again_s, return_when=asyncio.FIRST_COMPLETED)
        if woken.done() and not woken.result() and not self._held:
            self._resting = True  # after the last look, which is next
        for task in (woken, freed):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _execute(self, claim: Claim) -> None:
        if claim.burst:
            log.info("run.burst", tenant_id=claim.tenant_id, run_id=claim.run_id)
        try:
            await self._executor.execute(claim)
        except (Unavailable, ConnectionError, TimeoutError) as error:
            log.warning("worker.execution_interrupted", run_id=claim.run_id, error=str(error))
            await self._pause(_RETRY_S)
            await self._give_back(claim, None)
        except Exception as error:
            log.exception("worker.execution_broke", run_id=claim.run_id)
            await self._pause(_RETRY_S)
            await self._give_back(claim, error)
        finally:
            self._held.pop((claim.run_id, claim.attempt), None)
            self._freed.set()

    async def _give_back(self, claim: Claim, error: Exception | None) -> None:
        # If this fails too, the slot stays ours until we look for what we hold and do not know of.
        with contextlib.suppress(BailiwickError):
            why = None if error is None else describe(error)
            run = await self._platform.queue.give_back(claim.held, why)
            if run is not None and run.dead:
                log.error("run.dead", tenant_id=run.tenant_id, run_id=run.run_id)

    async def _heartbeats(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            if self._held:
                try:
                    await self._heartbeat()
                    await self._cancel_requested()  # in case the signal was lost
                    self._answered = True
                except BailiwickError as error:
                    self._answered = not isinstance(error, Unavailable)
                    log.warning("worker.heartbeat_failed", error=error.message)

    async def _heartbeat(self) -> int:
        """Say that we live, if that was not said a moment ago; how many runs we hold, as far as Postgres knows."""
        now = asyncio.get_running_loop().time()
        if now - self._last_heartbeat < HEARTBEAT_S / 2:
            return len(self._held)
        held = await self._platform.queue.heartbeat(
            self.worker_id, self._slots, draining=self._stopping.is_set(), codes=self._codes
        )
        self._last_heartbeat = now
        return held

    async def _cancellations(self) -> None:
        async with self._platform.bus.listen(Topic.CANCEL) as signals:
            while True:
                if await signals.wait(IDLE_LOOK_S) and self._held:
                    try:
                        await self._cancel_requested()
                    except BailiwickError as error:
                        log.warning("worker.cancel_failed", error=error.message)

    async def _cancel_requested(self) -> None:
        for run_id in await self._platform.queue.cancelled_here(self.worker_id):
            self._executor.cancel(run_id)

    async def _drain(self) -> None:
        self._last_heartbeat = float("-inf")
        with contextlib.suppress(BailiwickError):
            await self._heartbeat()
        if self._held:
            log.info("worker.draining", runs=len(self._held))
            await asyncio.wait(self._held.values(), timeout=self._drain_s)
        if self._held:
            log.warning("worker.cut_off", runs=self._runs())
            self._executor.cut_off()
            await asyncio.wait(self._held.values(), timeout=_CUT_S)
        for task in list(self._held.values()):
            task.cancel()
        with contextlib.suppress(BailiwickError):
            if not await self._platform.queue.leave(self.worker_id):
                await self._platform.queue.recover(self.worker_id)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()


@asynccontextmanager
async def open_worker(platform: Platform, *, idle_s: float = IDLE_S, drain_s: float = DRAIN_S) -> AsyncIterator[Worker]:
    """A worker for this event loop. Its id is new at every start, so no two processes share slots.

    ``idle_s``: after so many seconds of nothing it rests; ``drain_s``: how long runs have to end their steps.
    """
    settings = platform.settings
    name = settings.worker_id or socket.gethostname()
    worker_id = WorkerId(f"{name}-{secrets.token_hex(4)}")
    async with threads_for_all(), open_memory(platform) as memory:
        rooms = Rooms(platform.runs, platform.reviews, memory)
        services = Services(settings, rooms, platform.blobs, platform.metrics, platform.reports)
        executor = RunExecutor(
            registry=platform.workflows,
            tenants=platform.tenants,
            execution=platform.execution,
            reviews=platform.reviews,
            usage=platform.usage,
            rungs=Rungs(platform.db, platform.audit, platform.clock),
            limits=platform.limits,
            models=platform.models,
            children=platform.children,
            patches=RunPatches(platform.db),
            services=services,
            clock=platform.clock,
        )
        try:
            yield Worker(platform, executor, worker_id, idle_s=idle_s, drain_s=drain_s)
        finally:
            await services.close()


async def main(settings: Settings) -> None:
    """Run one worker until SIGTERM or SIGINT, or until its lifetime is over."""
    configure_logging(settings, "worker")
    async with open_platform(settings, process="worker") as platform, open_worker(platform) as worker:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.stop)

        async def redis() -> None:
            if not await platform.bus.healthy():
                raise Unavailable("Redis does not answer.")

        slots = Gauge("bailiwick_worker_slots", "Runs this worker executes at a time.", registry=platform.metrics)
        slots.set(settings.worker_slots)
        held = Gauge("bailiwick_worker_slots_held", "Runs it executes now.", registry=platform.metrics)
        held.set_function(lambda: float(worker.held))
        checks = {"postgres": worker.postgres, "redis": redis}
        async with serve_ops(settings.port(Port.WORKER), checks, platform.metrics, host=settings.bind_host):
            freeze_loaded()
            log.info("worker.started", worker_id=worker.worker_id, slots=settings.worker_slots)
            await worker.run(settings.worker_max_lifetime_s)


def settings_of(arguments: Sequence[str] | None = None) -> Settings:
    """The settings of a worker that was started with these arguments; None: those of this process."""
    parser = argparse.ArgumentParser(prog="python -m scheduler.worker", description="Execute runs.")
    parser.add_argument(
        "--max-lifetime",
        type=_seconds,
        metavar="TIME",
        help="hand over what executes and end after so long: 14m, 90s, 1h (BAILIWICK_WORKER_MAX_LIFETIME_S)",
    )
    given, settings = parser.parse_args(arguments), Settings()
    if given.max_lifetime is None:
        return settings
    return settings.model_copy(update={"worker_max_lifetime_s": given.max_lifetime})


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if found is None or float(found[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 14m, 90s or 1h")
    return float(found[1]) * {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}[found[2]]


if __name__ == "__main__":
    with ending_without_threads():
        asyncio.run(main(settings_of()))

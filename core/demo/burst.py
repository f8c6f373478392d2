"""``bailiwick demo burst``: the Monday morning, live, to be watched on the dashboard.

Every demo tenant submits a steady trickle of short runs through the public API. After a calm while one of them, the
Regional Bank, submits hundreds at once. The others should not notice: their waits stay what they were in the calm.
A table on standard error shows it while it happens; one JSON line on standard output says it at the end.

    calm ──a sixth of the time──► burst ──trickle over, everything ended──► counted
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from core.clock import SystemClock
from core.demo.burst_report import Part, Passage, percentile, report
from core.demo.client import ApiClient
from core.demo.keys import keys_path, read_keys
from core.demo.tenants import organisations
from core.demo.work import NAME
from core.errors import SetupError
from core.settings import Settings

NOISY = "regional-bank"
TRICKLE_EVERY_S = 1.5
CALM_SHARE = 1 / 6
CHUNK = 200
LOOK_EVERY_S = 1.0
LOOK_AGAIN_S = 5.0
FINAL = ("succeeded", "failed", "cancelled", "dead")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is played. Seconds: of the trickle, of each run's work, of the SLA, and after which to give up."""

    runs: int
    seconds: float
    work_s: float
    sla_s: float
    timeout_s: float


@dataclass(slots=True)
class _Tenant:
    name: str
    title: str
    weight: float
    cap: int
    api: ApiClient
    batch_id: str
    changed: asyncio.Event
    submitted: list[str] = field(default_factory=list)
    passages: list[Passage] = field(default_factory=list)
    looked_at: float = 0.0

    async def submit(self, count: int, work_s: float) -> None:
        """Some runs; each has an idempotency key, so that a request sent twice makes them once."""
        numbers = range(len(self.submitted), len(self.submitted) + count)
        runs = [
            {"workflow": NAME, "input": {"seconds": work_s}, "idempotency_key": f"{self.batch_id}:{number}"}
            for number in numbers
        ]
        answer = await self.api.post("/runs/batch", {"batch_id": self.batch_id, "runs": runs})
        self.submitted += [run["run_id"] for run in answer["runs"]]

    async def look(self) -> None:
        """Ask the API what it knows of all of them."""
        self.looked_at = time.monotonic()
        self.changed.clear()
        self.passages = [Passage.of(run) async for run in self.api.runs(batch_id=self.batch_id)]

    @property
    def stale(self) -> bool:
        """Whether something has changed since the last look, or nobody has said anything for long."""
        return self.changed.is_set() or time.monotonic() - self.looked_at > LOOK_AGAIN_S

    @property
    def settled(self) -> bool:
        return sum(passage.state in FINAL for passage in self.passages) >= len(self.submitted)

    def part(self) -> Part:
        return Part(self.name, self.weight, self.cap, self.submitted, self.passages)


def burst(plan: Plan) -> int:
    """Play, count, print. The exit code: 0 when nothing was lost, nothing failed and everything ended.

    Raises ``SetupError`` with one clear line when it cannot even begin. Weights and caps are those of the seed.
    """
    settings = Settings()
    keys = read_keys(settings)
    names = [one.tenant_id for one in organisations(settings.region)]
    if missing := [name for name in names if name not in keys]:
        raise SetupError(f"{keys_path(settings)} holds no key of {', '.join(missing)}: start `make up` first.")
    found = asyncio.run(_play(settings, keys, plan, Console(stderr=True, highlight=False)))
    sys.stdout.write(json.dumps(found) + "\n")
    tenants = found["tenants"].values()
    return 0 if not any(one["lost"] + one["failed"] + one["unfinished"] for one in tenants) else 1


async def _play(settings: Settings, keys: dict[str, str], plan: Plan, console: Console) -> dict[str, Any]:
    began = time.monotonic()
    deadline = began + plan.timeout_s
    batch_id = f"burst-{secrets.token_hex(6)}"
    async with AsyncExitStack() as stack:
        tenants = []
        for one in organisations(settings.region):
            client = ApiClient(settings.web_url(), keys[one.tenant_id], deadline=deadline)
            api = await stack.enter_async_context(client)
            changed = await stack.enter_async_context(api.told(batch_id))
            policy = one.policy
            tenants.append(
                _Tenant(one.tenant_id, one.name, policy.weight, policy.concurrency_cap, api, batch_id, changed)
            )
        with _Show(console, tenants) as show:
            async with asyncio.TaskGroup() as tasks:
                acts = [tasks.create_task(_trickle(one, plan)) for one in tenants if one.name != NOISY]
                noisy = next(one for one in tenants if one.name == NOISY)
                acts.append(tasks.create_task(_burst(noisy, plan)))
                while not (all(act.done() for act in acts) and all(one.settled for one in tenants)):
                    if time.monotonic() > deadline:
                        for act in acts:
                            act.cancel()
                        break
                    await asyncio.gather(*(one.look() for one in tenants if one.stale))
                    show()
                    await asyncio.sleep(LOOK_EVERY_S)
            await asyncio.gather(*(one.look() for one in tenants))
            show()
    return report(
        [one.part() for one in tenants],
        NOISY,
        slots=settings.worker_slots,
        work_s=plan.work_s,
        sla_s=plan.sla_s,
        wall_s=time.monotonic() - began,
    )


async def _trickle(tenant: _Tenant, plan: Plan) -> None:
    """One run at a time, at steady moments whatever the answers take."""
    began = time.monotonic()
    number = 0
    while (at := number * TRICKLE_EVERY_S) < plan.seconds:
        await asyncio.sleep(max(0.0, began + at - time.monotonic()))
        await tenant.submit(1, plan.work_s)
        number += 1


async def _burst(tenant: _Tenant, plan: Plan) -> None:
    await asyncio.sleep(CALM_SHARE * plan.seconds)
    for start in range(0, plan.runs, CHUNK):
        await tenant.submit(min(CHUNK, plan.runs - start), plan.work_s)


class _Show:
    """The live table on standard error; where that is no terminal, a plain line every few seconds."""

    PLAIN_EVERY_S = 5.0

    def __init__(self, console: Console, tenants: list[_Tenant]) -> None:
        self._console = console
        self._tenants = tenants
        self._told_at = time.monotonic()
        self._live = Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self) -> None:
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
        elif time.monotonic() - self._told_at > self.PLAIN_EVERY_S:
            self._told_at = time.monotonic()
            self._console.print(" · ".join(_line(one) for one in self._tenants), markup=False)

    def _table(self) -> Table:
        table = Table("Tenant", *(("Submitted", "Running", "Queued", "Ended", "Wait p50", "Wait p95")), box=None)
        for one in self._tenants:
            part = one.part()
            counts = (len(one.submitted), part.count("running"), part.count("queued"), part.count(*FINAL))
            waits = _waits(part)
            table.add_row(
                one.title, *map(str, counts), _seconds(percentile(waits, 0.5)), _seconds(percentile(waits, 0.95))
            )
        return table


def _line(tenant: _Tenant) -> str:
    part = tenant.part()
    counts = f"{part.count('running')} running, {part.count('queued')} queued, {part.count(*FINAL)} ended"
    return f"{tenant.title}: {counts}, wait p95 {_seconds(percentile(_waits(part), 0.95))}"


def _waits(part: Part) -> list[float]:
    """Of all that came: those that have no slot yet have waited until now, by this machine's clock."""
    now = SystemClock().now()
    queued = (one for one in part.passages if one.started_at is None and one.state == "queued")
    return [*part.waits, *(max(0.0, (now - one.submitted_at).total_seconds()) for one in queued)]


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} s"

"""``bailiwick runs follow``: what happens to a run, told while it happens; never what it contains."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime

from rich.markup import escape

from core.bootstrap import Platform
from core.commands.runs import lasting
from core.ids import TenantId
from core.redis.bus import RESYNC, Event, Events
from core.redis.news import NEWS
from core.runs.history import History, history
from core.runs.timeline import Transition
from core.tenancy import TenantContext

LOOK_S = 5.0
Show = Callable[[History, Transition], None]


async def follow(platform: Platform, ctx: TenantContext, run_id: str, tenant_id: str | None, show: Show) -> History:
    """Show each transition once, in order, until the run has ended; how it stands then. Raises ``NotFound``.

    It is looked at when there is news of it, and every 5 s in any case.
    """
    found = await history(platform.db, ctx, run_id, platform.clock.now(), tenant_id=tenant_id)
    seen = 0
    async with platform.bus.subscribe(TenantId(found.run.tenant_id)) as events:
        while True:
            # The state is read before the transitions: when it is final, the last one is among them.
            found = await history(platform.db, ctx, run_id, platform.clock.now(), tenant_id=tenant_id)
            for one in found.transitions:
                if one.seq > seen:
                    show(found, one)
                    seen = one.seq
            if found.run.state.final:
                return found
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await _news_of(run_id, events)


async def _news_of(run_id: str, events: Events) -> None:
    while not _touches(run_id, await anext(events)):
        pass


def _touches(run_id: str, event: Event) -> bool:
    told = event.data.get("runs", ()) if event.kind == NEWS else (event.data.get("run_id"),)
    return event.kind == RESYNC or run_id in told


def as_line(found: History, one: Transition) -> str:
    """``09:00:01.250  + 1.3 s      step done: 2 pull_credit``, in the markup of rich."""
    after = lasting((one.at - found.run.submitted_at).total_seconds())
    attempt = next((each for each in found.attempts if (each.step, each.attempt) == (one.step, one.attempt)), None)
    what = [one.kind.replace("_", " ")]
    if one.cause is not None:
        what.append(one.cause.replace("_", " "))
    if attempt is not None:
        what.append(f"{attempt.step} {attempt.name}" + (f", attempt {attempt.attempt}" if attempt.attempt > 1 else ""))
    return f"[dim]{_clock(one.at)}  + {after:<12}[/] {escape(': '.join(what))}"


def as_json(_: History, one: Transition) -> str:
    """One JSON object: ``{"seq", "at", "kind", "cause", "step", "attempt"}``."""
    return json.dumps(asdict(one), default=lambda moment: moment.isoformat())


def _clock(at: datetime) -> str:
    return at.strftime("%H:%M:%S.%f")[:-3]

"""Events that start runs, through a scheduler process that is killed."""

from __future__ import annotations

import asyncio
import os
import signal

from core.embedded.process import Reaper
from core.settings import Port, Settings
from core.triggers.model import TriggerKind
from tests.fixtures.ports import free_port_base
from tests.fixtures.serving import leads, serving
from tests.fixtures.workers import Site, site_in

SECRETS = ("database_app_url", "database_lock_url", "redis_url", "secret_key")
EVENTS = 20


async def send(site: Site, *keys: str) -> None:
    """Events, as the API sends them."""
    for key in keys:
        assert await site.platform.runs.send_event(site.admin, "paid", key, {"usd": 1})
        await site.platform.triggers.sent(site.admin, "paid", key)


async def keys_of_runs(site: Site) -> list[str]:
    """The key of the event that started each run."""
    views, _ = await site.platform.runs.list(site.admin, limit=1_000)
    return sorted(view.input["event"]["key"] for view in views)


async def test_a_sleeping_scheduler_starts_what_an_event_asks_for_and_its_heir_what_was_left(
    settings: Settings, reaper: Reaper
) -> None:
    async with site_in(settings) as site:
        await site.platform.triggers.create(
            site.admin, kind=TriggerKind.EVENT, name="Paid", event="paid", workflow="event-received"
        )

        async def started(count: int) -> list[str] | None:
            found = await keys_of_runs(site)
            return found if len(found) >= count else None

        def scheduler() -> Settings:
            return settings.model_copy(update={"port_base": free_port_base()})

        async def first_leads() -> bool | None:
            return leads(one) or None

        one = scheduler()
        async with serving(one, "scheduler", Port.SCHEDULER, reaper, secrets=SECRETS) as process:
            await site.until(first_leads)
            began = asyncio.get_running_loop().time()
            await send(site, "first")
            await site.until(lambda: started(1))
            assert asyncio.get_running_loop().time() - began < 5
            sending = asyncio.create_task(send(site, *(f"{number:02}" for number in range(EVENTS))))
            await site.until(lambda: started(2))
            os.kill(process.pid, signal.SIGKILL)
            await sending
        heir = scheduler()
        async with serving(heir, "scheduler", Port.SCHEDULER, reaper, secrets=SECRETS):
            everything = await site.until(lambda: started(EVENTS + 1))
            assert everything == [*(f"{number:02}" for number in range(EVENTS)), "first"]

            async def nothing_is_left() -> bool | None:
                return await site.platform.triggers.next_due() is None or None

            await site.until(nothing_is_left)
            assert await keys_of_runs(site) == everything

"""The door to the durable engine: what was executed is remembered for a while, and forgotten then."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg

from core.engine import JSON, Engine
from core.settings import Settings

NOW = datetime.now(UTC)


async def test_executions_are_forgotten_a_day_after_their_end_and_a_week_after_their_worker_died(
    settings: Settings, owner_dsn: str
) -> None:
    dying = asyncio.Event()

    async def body(name: str) -> JSON:
        if name == "run_b:1":
            dying.set()
            await asyncio.Event().wait()
        return {"end": name}

    engine = Engine(settings.required("database_engine_url"), "worker", body)
    owner = await asyncpg.connect(owner_dsn)

    async def known() -> list[tuple[str, str]]:
        rows = await owner.fetch("select workflow_uuid, status from dbos.workflow_status order by 1")
        return [(row["workflow_uuid"], row["status"]) for row in rows]

    await engine.launch()
    try:
        assert await engine.execute("run_a:1") == {"end": "run_a:1"}
        assert await engine.execute("run_a:2") == {"end": "run_a:2"}
        cut_off = asyncio.create_task(engine.execute("run_b:1"))
        await dying.wait()
        assert await engine.forget(NOW) == 0
        assert await engine.forget(NOW + timedelta(days=2)) == 2
        assert await known() == [("run_b:1", "PENDING")]
        assert await engine.forget(NOW + timedelta(days=8)) == 1
        assert await known() == []
    finally:
        cut_off.cancel()
        await engine.close()
        await owner.close()

"""What an operator changes acts within a second on runs that are queued already, on a real worker, and is audited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from core.errors import Forbidden
from core.runs.model import RunRequest, RunState, RunView
from core.settings import Settings
from core.tenancy import PLATFORM, Policy, Role, TenantContext
from ops_dashboard.data import operator_acts
from scheduler import worker
from tests.fixtures.people import People
from tests.fixtures.workers import Site, site_in, working

WITHIN_S = 1.0
START = Policy(concurrency_cap=2)


@pytest.fixture
async def site(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(worker, "_BUSY_LOOK_S", 3_600.0)  # it looks now and then, too: here it must be told
    async with site_in(settings, START) as site, working(site):
        yield site


async def operator_of(site: Site) -> TenantContext:
    await People(site.platform.tenants).operator()
    _, olga = await People(site.platform.tenants).login("olga@platform.example", PLATFORM, Role.OPERATOR)
    return olga.ctx


async def queued(site: Site, count: int, held: Path, workflow: str = "sample-plain") -> list[RunView]:
    """Runs that go on executing until the file is gone."""
    held.touch()
    work = {"log": str(held.with_name("effects")), "hold": str(held)}
    return await site.platform.runs.submit_many(site.admin, [RunRequest(workflow, work) for _ in range(count)])


async def running(site: Site, count: int) -> None:
    """Return when as many execute."""

    async def look() -> bool | None:
        found, _ = await site.platform.runs.list(site.admin, state=RunState.RUNNING, limit=100)
        return len(found) == count or None

    await site.until(look)


async def timed(act: Awaitable[object], then: Callable[[], Awaitable[None]]) -> float:
    """Seconds from the end of an act until what it should bring about."""
    await act
    began = asyncio.get_running_loop().time()
    await then()
    return asyncio.get_running_loop().time() - began


def soon(took: Iterable[float]) -> bool:
    """Whether changes acted within a second; the machine may stall under one of them, not under two."""
    return sorted(took)[-2] <= WITHIN_S


async def test_caps_pauses_and_the_platforms_cap_act_on_queued_runs_at_once(site: Site, tmp_path: Path) -> None:
    tenants, bank = site.platform.tenants, site.admin.tenant_id
    operator = await operator_of(site)
    runs = await queued(site, 8, tmp_path / "held")
    await running(site, 2)
    with capture_logs() as logs:
        took = {
            "cap": await timed(
                tenants.change_policy(operator, bank, Policy(concurrency_cap=3)), lambda: running(site, 3)
            ),
            "burst": await timed(
                tenants.change_policy(operator, bank, Policy(concurrency_cap=3, burst_slots=2, burst_credit_s=600)),
                lambda: running(site, 5),
            ),
        }
    assert [line["tenant_id"] for line in logs if line["event"] == "run.burst"] == [bank, bank]
    await tenants.pause(operator, bank, True)
    await tenants.change_policy(operator, bank, Policy(concurrency_cap=6))
    took["resume"] = await timed(tenants.pause(operator, bank, False), lambda: running(site, 6))
    await tenants.cap_platform(operator, 6)
    await tenants.change_policy(operator, bank, Policy(concurrency_cap=8))
    took["platform cap"] = await timed(tenants.cap_platform(operator, None), lambda: running(site, 7))
    assert soon(took.values()), took
    (tmp_path / "held").unlink()
    assert {run.state for run in await site.ended(runs)} == {RunState.SUCCEEDED}

    acts = [(entry.act, entry.actor) for entry in await site.platform.audit.recent(site.admin)]
    assert acts.count(("policy.change", operator.actor)) == 4
    assert acts.count(("tenant.pause", operator.actor)) == 2
    platform = [act for act in await operator_acts(site.platform.db, operator) if act["act"] == "platform.cap"]
    assert [(act["before"], act["after"]) for act in platform] == [
        ({"cap": 6}, {"cap": None}),
        ({"cap": None}, {"cap": 6}),
    ]


async def test_caps_inside_the_tenant_act_at_once(site: Site, tmp_path: Path) -> None:
    tenants, bank = site.platform.tenants, site.admin.tenant_id
    operator = await operator_of(site)
    await tenants.change_policy(operator, bank, Policy(concurrency_cap=8, user_cap=1))
    runs = await queued(site, 4, tmp_path / "held")
    await running(site, 1)
    capped = Policy(concurrency_cap=8, workflow_caps={"sample-plain": 2})
    by_user = await timed(tenants.change_policy(operator, bank, capped), lambda: running(site, 2))
    by_workflow = await timed(
        tenants.change_policy(operator, bank, Policy(concurrency_cap=8)), lambda: running(site, 4)
    )
    assert soon([by_user, by_workflow]), (by_user, by_workflow)
    (tmp_path / "held").unlink()
    await site.ended(runs)


async def test_only_operators_steer(site: Site) -> None:
    tenants, bank = site.platform.tenants, site.admin.tenant_id
    for forbidden in (
        tenants.pause(site.admin, bank, True),
        tenants.drain(site.admin, bank, True),
        tenants.cap_platform(site.admin, 1),
        tenants.change_policy(site.admin, bank, Policy(concurrency_cap=2, burst_slots=5)),
    ):
        with pytest.raises(Forbidden):
            await forbidden

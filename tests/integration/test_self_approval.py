"""Nobody decides about what they set going, by whatever it was that submitted the run."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from core.clock import FakeClock
from core.runs.model import RunRequest
from core.schedules.service import FIRING
from core.settings import Settings
from core.tenancy import ActorKind
from core.triggers.model import TriggerKind
from core.triggers.service import TriggerService
from tests.fixtures.deciders import deciders_in
from tests.fixtures.work import AnyWorkflow, Work, work_in


@pytest.fixture
async def work(settings: Settings) -> AsyncIterator[Work]:
    """The rooms, on a clock that stands still."""
    async with work_in(settings, FakeClock()) as rooms:
        yield rooms


async def test_whoever_made_a_schedule_poller_or_trigger_by_key_decides_about_none_of_its_runs(
    work: Work, settings: Settings
) -> None:
    deciders = await deciders_in(work)
    ada, key = deciders.ada, deciders.key
    triggers = TriggerService(
        work.db, work.bus, work.runs, work.audit, AnyWorkflow(), work.clock, secret_key=settings.secret_key
    )
    schedule = await work.schedules.create(key, name="nightly", cron="0 0 * * *", workflow="loan-approval")
    poller = await work.pollers.create(key, name="rates", url="https://rates.example/", workflow="loan-approval")
    made = await triggers.create(key, kind=TriggerKind.EVENT, name="paid", event="paid", workflow="loan-approval")
    for kind, number in (
        (ActorKind.SCHEDULER, schedule.schedule_id),
        (ActorKind.SCHEDULER, poller.poller_id),
        (ActorKind.TRIGGER, made.trigger.trigger_id),
    ):
        submitter = await work.tenants.context_for(ada.tenant_id, actor_kind=kind, actor_id=number, scopes=FIRING)
        run, _ = await work.runs.submit(submitter, RunRequest("loan-approval", {}))
        (claim,) = await work.claim("w", 1)
        assert claim.run_id == run.run_id
        await deciders.only_ravi_decides(await work.executing(claim), 1)

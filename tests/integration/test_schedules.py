"""Schedules: edited by people, fired by any number of schedulers, on a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from core.clock import FakeClock
from core.errors import Conflict, Forbidden, InvalidInput, NotFound, QuotaExceeded, WorkflowUnknown
from core.redis.bus import Bus
from core.runs.model import RunView
from core.schedules.model import Upcoming
from core.schedules.service import FIRING, ScheduleService
from core.settings import Settings
from core.tenancy import ActorKind, Policy, Role, Scope, TenantContext
from core.workflows.registry import Registry
from tests.fixtures import sample_workflows
from tests.fixtures.work import Work, work_in

FRIDAY = datetime(2026, 1, 2, 12, tzinfo=UTC)
NINE = datetime(2026, 1, 5, 9, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class House:
    """The rooms, the schedules in them, and a bus to listen on."""

    work: Work
    bus: Bus
    schedules: ScheduleService

    async def fire(self, ctx: TenantContext, schedule_id: str) -> datetime | None:
        """What the leading scheduler does at an alarm."""
        firing = await self.work.tenants.context_for(
            ctx.tenant_id, actor_kind=ActorKind.SCHEDULER, actor_id=schedule_id, scopes=FIRING
        )
        return await self.schedules.fire(firing, schedule_id)

    async def runs(self, ctx: TenantContext) -> list[RunView]:
        """All runs of the tenant, oldest first."""
        return list(reversed((await self.work.runs.list(ctx))[0]))


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[House]:
    clock = FakeClock(FRIDAY)
    assert settings.redis_url is not None
    async with work_in(settings, clock) as work:
        bus = await Bus.open(settings.redis_url.get_secret_value(), clock, region=settings.region)
        catalog = Registry([sample_workflows.plain, sample_workflows.retried])
        yield House(work, bus, ScheduleService(work.db, bus, work.runs, work.audit, catalog, clock))
        await bus.close()


@pytest.fixture
async def bank(house: House) -> TenantContext:
    return await house.work.tenant("regional-bank", Policy(timezone="Europe/Berlin"))


async def weekdays(house: House, ctx: TenantContext, **given: object) -> str:
    """A schedule of every weekday at nine."""
    values = {"name": "Re-check", "cron": "0 9 * * 1-5", "timezone": "UTC", "workflow": "sample-plain"} | given
    return (await house.schedules.create(ctx, input={"log": "x"}, **values)).schedule_id  # type: ignore[arg-type]


async def test_a_schedule_is_made_shown_edited_paused_resumed_and_deleted(house: House, bank: TenantContext) -> None:
    schedules = house.schedules
    async with house.bus.listen("scheduler") as signals:
        made = await schedules.create(
            bank, name="  Re-check ", cron="0  9 * * MON-FRI", workflow="sample-plain", input={"log": "x"}
        )
        assert await signals.wait(5), "the scheduler is woken, so that an edit acts at once"
    assert (made.name, made.cron, made.timezone, made.next_at) == (
        "Re-check", "0 9 * * mon-fri", "Europe/Berlin", NINE - timedelta(hours=1),
    )  # fmt: skip
    assert made.input == {"log": "x", "number": 0, "sleep_s": 0.0, "fail": False, "hold": None, "steps": 0}, (
        "as the model writes it"
    )
    assert await schedules.get(bank, made.schedule_id) == made
    assert schedules.next_fires(made, 2, FRIDAY) == [NINE - timedelta(hours=1), NINE + timedelta(hours=23)]

    edited = await schedules.edit(bank, made.schedule_id, cron="30 9 * * *", timezone="UTC", version=1)
    assert (edited.version, edited.next_at, edited.name) == (2, datetime(2026, 1, 3, 9, 30, tzinfo=UTC), "Re-check")
    with pytest.raises(Conflict):
        await schedules.edit(bank, made.schedule_id, name="Mine", version=1)
    paused = await schedules.pause(bank, made.schedule_id)
    assert (paused.paused, paused.next_at) == (True, None)
    assert (await schedules.edit(bank, made.schedule_id, cron="0 6 * * *")).next_at is None
    resumed = await schedules.resume(bank, made.schedule_id)
    assert resumed.next_at == datetime(2026, 1, 3, 6, tzinfo=UTC)
    assert await schedules.resume(bank, made.schedule_id) == await schedules.get(bank, made.schedule_id)
    assert await schedules.list(bank) == [resumed]
    await schedules.delete(bank, made.schedule_id)
    with pytest.raises(NotFound):
        await schedules.get(bank, made.schedule_id)
    acts = [entry.act for entry in await house.work.audit.recent(bank) if entry.act.startswith("schedule.")]
    assert acts == [f"schedule.{act}" for act in ("delete", "resume", "edit", "pause", "edit", "create")]


async def test_what_cannot_work_is_refused_with_a_reason(house: House, bank: TenantContext) -> None:
    for given, error, says in (
        ({"cron": "0 25 * * *"}, InvalidInput, "hour.*25"),
        ({"cron": "0 0 30 2 *"}, InvalidInput, "never fires"),
        ({"timezone": "Mars/Base"}, InvalidInput, "Mars/Base"),
        ({"name": " "}, InvalidInput, "name"),
        ({"workflow": "unheard-of"}, WorkflowUnknown, "unheard-of"),
    ):
        with pytest.raises(error, match=says):
            await weekdays(house, bank, **given)
    with pytest.raises(InvalidInput) as caught:
        await house.schedules.create(bank, name="x", cron="0 9 * * *", workflow="sample-plain", input={"number": 1})
    assert caught.value.details["errors"][0]["pointer"] == "/input/log"
    with pytest.raises(InvalidInput, match="five fields"):
        house.schedules.preview("0 9 * *", "UTC", 3, FRIDAY)
    assert await house.schedules.list(bank) == []


async def test_rights_and_tenants_are_kept(house: House, bank: TenantContext) -> None:
    schedule_id = await weekdays(house, bank)
    union = await house.work.tenant("credit-union")
    assert await house.schedules.list(union) == []
    for act in (house.schedules.get, house.schedules.pause, house.schedules.delete, house.schedules.run_now):
        with pytest.raises(NotFound):
            await act(union, schedule_id)
    reader = replace(bank, scopes=frozenset({Scope.SCHEDULES_READ}))
    assert len(await house.schedules.list(reader)) == 1
    for act in (house.schedules.pause, house.schedules.resume, house.schedules.delete, house.schedules.run_now):
        with pytest.raises(Forbidden):
            await act(reader, schedule_id)
    operator = await house.work.operator()
    with pytest.raises(Forbidden):
        await house.schedules.list(operator)


async def test_an_occurrence_starts_one_run_however_many_schedulers_fire_it(house: House, bank: TenantContext) -> None:
    schedule_id = await weekdays(house, bank)
    assert await house.fire(bank, schedule_id) == NINE, "an alarm that rings too early only looks"
    house.work.clock.advance((NINE - FRIDAY).total_seconds() + 0.2)
    answers = await asyncio.gather(*(house.fire(bank, schedule_id) for _ in range(3)), return_exceptions=True)
    later = await house.fire(bank, schedule_id)
    assert later == NINE + timedelta(days=1)
    assert later in answers
    [run] = await house.runs(bank)
    assert (run.workflow, run.source, run.input["log"]) == ("sample-plain", "schedule", "x")
    [fire] = await house.schedules.fires(bank, schedule_id)
    assert (fire.due_at, fire.run_id, fire.missed_since, fire.error) == (NINE, run.run_id, None, None)
    view = await house.schedules.get(bank, schedule_id)
    assert (view.last_due_at, view.last_run_id, view.next_at) == (NINE, run.run_id, NINE + timedelta(days=1))


async def test_a_crash_between_starting_and_recording_starts_nothing_twice(
    house: House, bank: TenantContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule_id = await weekdays(house, bank)
    house.work.clock.advance((NINE - FRIDAY).total_seconds())
    with monkeypatch.context() as patch:
        patch.setattr(ScheduleService, "_record", _crash)
        with pytest.raises(KeyboardInterrupt):
            await house.fire(bank, schedule_id)
    [started] = await house.runs(bank)
    house.work.clock.advance(5)
    await house.fire(bank, schedule_id)
    assert [run.run_id for run in await house.runs(bank)] == [started.run_id]
    assert (await house.schedules.fires(bank, schedule_id))[0].run_id == started.run_id


async def _crash(*_: object) -> None:
    raise KeyboardInterrupt


async def test_what_was_missed_while_nobody_led_is_made_up_for_once_by_the_latest(
    house: House, bank: TenantContext
) -> None:
    schedule_id = await weekdays(house, bank)
    thursday = NINE + timedelta(days=3)
    house.work.clock.advance((thursday - FRIDAY).total_seconds() + 7_200)
    assert await house.fire(bank, schedule_id) == thursday + timedelta(days=1)
    assert len(await house.runs(bank)) == 1
    [fire] = await house.schedules.fires(bank, schedule_id)
    assert (fire.due_at, fire.missed_since) == (thursday, NINE)


async def test_what_is_paused_or_deleted_does_not_fire_even_when_its_alarm_still_rings(
    house: House, bank: TenantContext
) -> None:
    paused, deleted, edited = [await weekdays(house, bank) for _ in range(3)]
    house.work.clock.advance((NINE - FRIDAY).total_seconds())
    await house.schedules.pause(bank, paused)
    await house.schedules.delete(bank, deleted)
    await house.schedules.edit(bank, edited, cron="0 10 * * *")
    assert await house.fire(bank, paused) is None
    assert await house.fire(bank, deleted) is None
    assert await house.fire(bank, edited) == NINE + timedelta(hours=1)
    assert await house.runs(bank) == []
    house.work.clock.advance(7_200)
    resumed = await house.schedules.resume(bank, paused)
    assert resumed.next_at == NINE + timedelta(days=1), "nothing is made up for after a pause"


async def test_a_refusal_that_passes_is_tried_again_and_another_is_recorded(house: House) -> None:
    tight = await house.work.tenant("fintech-startup", Policy(daily_runs=1, timezone="UTC"))
    schedule_id = await weekdays(house, tight, cron="0 9,21 * * *")
    clock = house.work.clock
    clock.advance((NINE - FRIDAY).total_seconds())
    await house.work.submit(tight, 1)
    retry_at = await house.fire(tight, schedule_id)
    view = await house.schedules.get(tight, schedule_id)
    assert retry_at == view.retry_at == clock.now() + timedelta(hours=1)
    assert view.last_error is not None
    assert view.last_error["code"] == QuotaExceeded.code
    assert await house.schedules.fires(tight, schedule_id) == []
    assert await house.fire(tight, schedule_id) == retry_at, "not before"
    clock.advance(15 * 3_600 + 1)
    assert await house.fire(tight, schedule_id) == NINE + timedelta(days=1)
    [fire] = await house.schedules.fires(tight, schedule_id)
    assert (fire.due_at, fire.missed_since) == (NINE + timedelta(hours=12), datetime(2026, 1, 2, 21, tzinfo=UTC))

    forbidden = replace(tight, scopes=frozenset())
    clock.advance(86_400)
    assert await house.schedules.fire(forbidden, schedule_id) == NINE + timedelta(days=2)
    last, _ = await house.schedules.fires(tight, schedule_id)
    assert last.run_id is None
    assert last.error is not None
    assert last.error["code"] == Forbidden.code


async def test_run_now_starts_the_run_as_the_caller_and_leaves_the_times_alone(
    house: House, bank: TenantContext
) -> None:
    schedule_id = await weekdays(house, bank)
    _, identity = await house.work.people.login("mia@regional-bank.example", "regional-bank", Role.MEMBER)
    run = await house.schedules.run_now(identity.ctx, schedule_id)
    assert (run.source, run.user_id) == ("schedule", identity.user_id)
    assert (await house.schedules.get(bank, schedule_id)).next_at == NINE


async def test_the_run_of_an_occurrence_belongs_to_whoever_made_the_schedule(house: House, bank: TenantContext) -> None:
    _, identity = await house.work.people.login("mia@regional-bank.example", "regional-bank", Role.MEMBER)
    schedule_id = await weekdays(house, identity.ctx)
    house.work.clock.advance((NINE - FRIDAY).total_seconds())
    await house.fire(bank, schedule_id)
    [run] = await house.runs(bank)
    assert run.user_id == identity.user_id, "so that nobody approves what their own schedule submitted"


async def test_the_leader_sees_what_comes_next_in_all_tenants_and_nothing_else(
    house: House, bank: TenantContext
) -> None:
    union = await house.work.tenant("credit-union")
    early = await weekdays(house, union, cron="0 8 * * 1-5")
    nine = await weekdays(house, bank)
    await house.schedules.pause(bank, await weekdays(house, bank))
    await weekdays(house, bank, cron="0 0 1 6 *")
    upcoming = await house.schedules.upcoming(NINE + timedelta(seconds=1))
    assert [(due.kind, due.id, due.tenant_id, due.due_at) for due in upcoming] == [
        (Upcoming.SCHEDULE, early, "credit-union", NINE - timedelta(hours=1)),
        (Upcoming.SCHEDULE, nine, "regional-bank", NINE),
    ]
    assert [due.id for due in await house.schedules.upcoming(NINE + timedelta(seconds=1), 1)] == [early]

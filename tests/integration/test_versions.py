"""Versions side by side: who may execute which run, and what is said of one that nobody can execute."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from core.clock import FakeClock
from core.commands import runs as commands
from core.commands.installation import operator
from core.commands.versions import changed_as_text, listed_as_json
from core.errors import Forbidden
from core.ids import WorkerId
from core.queue.model import Topic, code_of
from core.runs.model import Cause, RunRequest
from core.settings import Settings
from core.tenancy import PLATFORM, Policy, Role, TenantContext
from core.versions.model import Route
from tests.fixtures.web import Web, web_in
from tests.fixtures.work import Work, work_in
from tests.fixtures.workers import site_in

OLD, NEW = [code_of("loan", "1")], [code_of("loan", "1"), code_of("loan", "2")]
ONLY_NEW = [code_of("loan", "2")]
QUEUED = """
with tenant as (
    insert into tenants (tenant_id, name, org_id, region, created_at)
    select $2::text || '-' || n, 'Tenant', 'o', 'us-east-1', 'epoch' from generate_series(1, $1) n returning tenant_id
), queued as (
    insert into queue_tenants (tenant_id, weight, cap, burst_slots, burst_credit_s, queued, virtual_time, clock_at)
    select tenant_id, 1, $4, 0, 0, 1, row_number() over (), 'epoch' from tenant returning tenant_id
)
insert into queue_flows (tenant_id, lane, workflow, code, user_key, fresh, queued, head_rank, virtual_time)
select tenant_id, 1, 'loan', $3, '', true, 1, 1, 0 from queued
"""
"""So many tenants of a name with something queued, of some code and with some cap, before all others."""


@pytest.fixture
async def work(settings: Settings) -> AsyncIterator[Work]:
    """The rooms, on a clock that stands still."""
    async with work_in(settings, FakeClock()) as rooms:
        yield rooms


@pytest.fixture
async def web(settings: Settings) -> AsyncIterator[Web]:
    """The application."""
    async with web_in(settings) as served:
        yield served


async def test_a_run_without_code_waits_with_its_cause_and_starts_when_a_worker_with_it_comes(work: Work) -> None:
    bank = await work.tenant("bank", Policy(concurrency_cap=9))
    await work.queue.heartbeat(WorkerId("old"), 9, codes=OLD)
    first, *_ = await work.submit(bank, 2, "loan", version="1", batch_id="b")
    new, *_ = await work.submit(bank, 3, "loan", version="2", batch_id="b")
    assert (first.cause, new.cause) == (Cause.SHARE, Cause.NO_CODE)

    assert [one.version for one in await work.claim("old", 9, codes=OLD)] == ["1", "1"]
    assert await work.claim("old", 9, codes=OLD) == []
    assert (await work.runs.get(bank, new.run_id)).cause is Cause.NO_CODE
    progress = await work.runs.batch_progress(bank, "b")
    assert (progress.running, progress.queued_by_cause) == (2, {Cause.NO_CODE: 3})

    work.clock.advance(2)
    await work.queue.heartbeat(WorkerId("new"), 9, codes=NEW)
    assert (await work.runs.get(bank, new.run_id)).cause is Cause.SHARE
    assert [one.version for one in await work.claim("new", 9, codes=NEW)] == ["2", "2", "2"]
    assert await work.queue.faults() == []


async def test_what_one_worker_cannot_execute_is_passed_over_and_others_are_woken_for_it(work: Work) -> None:
    ahead, behind = await work.tenant("ahead"), await work.tenant("behind")
    await work.submit(behind, 1, "loan", version="1")
    await work.claim("old", 1, codes=OLD)  # from now on it is behind in virtual time
    await work.submit(ahead, 3, "loan", version="2")
    await work.submit(behind, 2, "loan", version="1")
    async with work.bus.listen(Topic.WORKERS) as signals:
        claims = await work.claim("old", 9, codes=OLD)
        assert {(one.tenant_id, one.version) for one in claims} == {("behind", "1")}
        assert await signals.wait(5)
    assert {one.version for one in await work.claim("new", 9, codes=NEW)} == {"2"}


async def test_a_worker_finds_the_few_runs_of_its_code_behind_any_number_of_others(work: Work, owner_dsn: str) -> None:
    owner = await asyncpg.connect(owner_dsn)
    await owner.execute(QUEUED, 1_100, "left", "loan@1", 3)
    lagging, leading, bursting = [
        await work.tenant(name, Policy(concurrency_cap=cap, burst_slots=1, burst_credit_s=9))
        for name, cap in (("lagging", 9), ("leading", 9), ("bursting", 1))
    ]
    for ctx in (leading, lagging, bursting):
        await work.submit(ctx, 2, "loan", version="2")
    await owner.execute("update queue_tenants set virtual_time = 1_000_000 where tenant_id not like 'left-%'")
    await owner.execute("update queue_tenants set virtual_time = 2_000_000 where tenant_id = 'leading'")
    claims = await work.claim("new", 9, slots=40, codes=ONLY_NEW)
    assert [one.tenant_id for one in claims] == ["bursting", "lagging", "lagging", "leading", "leading", "bursting"]
    assert [one.burst for one in claims] == [False] * 5 + [True]
    assert claims.again_at is None
    await owner.close()


async def test_a_claim_asks_no_more_than_so_many_tenants_and_the_next_one_goes_on_behind_them(
    work: Work, owner_dsn: str
) -> None:
    owner = await asyncpg.connect(owner_dsn)
    await owner.execute(QUEUED, 1_100, "left", "loan@1", 3)
    await owner.execute(QUEUED, 600, "full", "loan@2", 0)  # all that have something for it and may not
    first, second = [await work.tenant(name) for name in ("zone-a", "zone-b")]
    await work.submit(first, 2, "loan", version="2")
    await work.submit(second, 2, "loan", version="2")
    await owner.execute("update queue_tenants set virtual_time = 1_000_000 where tenant_id like 'zone-%'")
    asked = []
    for _ in range(3):
        claims = await work.claim("new", 1, slots=40, codes=ONLY_NEW)
        asked.append((len(claims), claims.again_at))
    now = work.clock.now()
    assert asked == [(0, now), (0, now), (1, None)], "two times 512 of those who have nothing, then one who has"

    # For a second it goes on from there, and then it looks at all again.
    ahead = await work.tenant("ahead")
    await work.submit(ahead, 1, "loan", version="2")
    await owner.execute("update queue_tenants set virtual_time = 0 where tenant_id = 'ahead'")
    assert {one.tenant_id for one in await work.claim("new", 1, slots=40, codes=ONLY_NEW)} == {"zone-b"}
    work.clock.advance(1)
    assert {one.tenant_id for one in await work.claim("new", 1, slots=40, codes=ONLY_NEW)} == {"ahead"}

    # Before it gives up it has looked at all; then it looks at more than the first ones once a second at most.
    now = work.clock.now()
    rest = [await work.claim("new", 9, slots=40, codes=ONLY_NEW) for _ in range(7)]
    assert [len(one) for one in rest] == [0, 0, 2, 0, 0, 0, 0]
    assert [one.again_at for one in rest] == [*[now] * 5, *[now + timedelta(seconds=1)] * 2]
    work.clock.advance(1)
    rest = [await work.claim("new", 9, slots=40, codes=ONLY_NEW) for _ in range(3)]
    assert [(len(one), one.again_at) for one in rest[:2]] == [(0, work.clock.now())] * 2
    await owner.close()


async def test_recovered_runs_go_only_to_workers_that_have_their_code(work: Work) -> None:
    bank = await work.tenant("bank")
    await work.submit(bank, 1, "loan", version="1")
    await work.submit(bank, 2, "loan", version="2")
    held = await work.claim("killed", 9, codes=NEW)
    work.clock.advance(60)
    assert len(await work.queue.recover()) == 3
    assert [one.version for one in await work.claim("old", 9, codes=OLD)] == ["1"]
    again = await work.claim("newer", 9, codes=ONLY_NEW)
    assert [one.version for one in again] == ["2", "2"]
    assert {one.run_id for one in again} <= {one.run_id for one in held}


async def test_a_tenant_at_its_cap_gives_its_tenth_slot_to_the_older_run_of_another_version(work: Work) -> None:
    bank = await work.tenant("bank", Policy(concurrency_cap=1))
    (older,) = await work.submit(bank, 1, "loan", version="2")
    await work.submit(bank, 20, "loan", version="1")
    await work.queue.heartbeat(WorkerId("new"), 9, codes=ONLY_NEW)
    served = []
    for _ in range(10):
        claims = await work.claim("old", 1, codes=OLD) or await work.claim("new", 1, codes=ONLY_NEW)
        served.append(claims[0])
        await work.finish(claims[0])
    assert [one.version for one in served] == [*"111111111", "2"]
    assert served[-1].run_id == older.run_id


async def test_operators_try_promote_and_roll_back_while_runs_come(work: Work) -> None:
    bank, union = await work.tenant("bank"), await work.tenant("union")
    operator = await work.operator()
    await work.queue.heartbeat(WorkerId("w"), 9, codes=[*NEW, code_of("loan", "3")])

    async def versions(ctx: TenantContext, **given: Any) -> set[str]:
        return {one.version for one in await work.submit(ctx, 30, "loan", **given)}

    changed = await work.versions.try_out(operator, "loan", "2", 50.0, ("union",))
    assert (changed.route, changed.warnings) == (Route("loan", "3", None, "2", 50.0, ("union",)), ())
    assert await versions(bank) == {"2", "3"}
    assert await versions(union) == {"2"}
    assert await versions(union, version="1") == {"1"}

    await work.versions.promote(operator, "loan")
    assert await versions(bank) == {"2"}
    await work.versions.roll_back(operator, "loan")
    assert await versions(bank) == {"3"}
    warned = await work.versions.promote(operator, "loan", "9")
    assert "no_code" in warned.warnings[0]
    await work.versions.follow_newest(operator, "loan")
    assert await versions(bank) == {"1"}  # what this catalog calls the newest

    with pytest.raises(Forbidden):
        await work.versions.promote(bank, "loan", "2")
    entries = await work.audit.recent(await work.context(PLATFORM, Role.ADMIN))
    acts = [(one.act, one.subject) for one in reversed(entries)]
    assert [act for act, subject in acts if subject == "workflow:loan"] == [
        *("version.canary", "version.promote", "version.rollback", "version.promote", "version.newest")
    ]


async def test_a_replayed_submission_answers_with_its_run_whatever_the_route_is_by_then(work: Work) -> None:
    bank, operator = await work.tenant("bank"), await work.operator()
    await work.versions.try_out(operator, "loan", "2", 0.0)
    requests = [RunRequest("loan", {"row": n}, idempotency_key=f"row-{n}") for n in range(20)]
    first = await work.runs.submit_many(bank, requests)
    await work.versions.try_out(operator, "loan", "2", 100.0)
    again = await work.runs.submit_many(bank, requests)
    assert [(one.run_id, one.version) for one in again] == [(one.run_id, "3") for one in first]


async def test_operators_see_which_code_is_still_needed(work: Work) -> None:
    bank, operator = await work.tenant("bank"), await work.operator()
    await work.queue.heartbeat(WorkerId("w"), 9, codes=NEW)
    (gone,) = await work.submit(bank, 1, "loan", version="0")
    await work.submit(bank, 2, "loan", version="1")
    (claim, *_) = await work.claim("w", 1, 9, codes=NEW)
    seen = {one.version: one for one in await work.versions.list(operator) if one.workflow == "loan"}
    assert sorted(seen) == ["0", "1", "2"]
    assert (seen["0"].stuck, seen["0"].installed, seen["0"].oldest_at) == (True, False, gone.submitted_at)
    assert (seen["1"].queued, seen["1"].running, seen["1"].workers, seen["1"].removable) == (1, 1, 1, False)
    assert (seen["2"].open_runs, seen["2"].workers, seen["2"].removable) == (0, 1, True)
    await work.finish(claim)


async def test_operators_change_routes_over_the_api_and_nobody_else_sees_them(web: Web) -> None:
    canary = {"workflow": "loan-approval", "version": "2", "percent": 5}
    async with web.client(await web.key("bank")) as tenant:
        assert (await tenant.get("/api/v1/versions")).status_code == 403
        assert (await tenant.post("/api/v1/versions/canary", json=canary)).status_code == 403
    async with web.browser("olga@platform.example", PLATFORM, Role.OPERATOR) as operator:
        listed = (await operator.get("/api/v1/versions")).json()["versions"]
        (loans,) = [one for one in listed if one["workflow"] == "loan-approval"]
        assert (loans["version"], loans["share"], loans["installed"], loans["removable"]) == ("1", 100, True, False)
        tried = (await operator.post("/api/v1/versions/canary", json=canary)).json()
        assert (tried["base"], tried["canary"], tried["percent"]) == ("1", "2", 5)
        assert [("no_code" in line, "This process" in line) for line in tried["warnings"]] == [
            *((True, False), (True, False), (False, True))
        ]
        back = await operator.post("/api/v1/versions/rollback", json={"workflow": "loan-approval"})
        assert (back.json()["base"], back.json()["canary"]) == ("1", None)
        again = await operator.post("/api/v1/versions/rollback", json={"workflow": "loan-approval"})
        assert (again.status_code, again.json()["code"]) == (409, "conflict")
        unknown = await operator.post("/api/v1/versions/canary", json={**canary, "workflow": "nothing"})
        assert (unknown.status_code, unknown.json()["code"]) == (422, "workflow_unknown")


async def test_the_command_line_names_the_cause_of_a_run_without_code(settings: Settings) -> None:
    modules = ("tests.fixtures.version_one", "tests.fixtures.version_two")
    async with site_in(settings, None, modules) as site:
        platform = site.platform
        run, _ = await platform.runs.submit(site.admin, RunRequest("versioned", {"log": "none"}))
        await platform.queue.heartbeat(WorkerId("old"), 4, codes=[code_of("versioned", "1")])
        ctx = await operator(platform)
        report = await commands.show(platform, ctx, run.run_id, None)
        assert (report.history.run.version, report.history.run.cause, report.starts_in) == ("2", Cause.NO_CODE, None)
        changed = await platform.versions.promote(ctx, "versioned", "1")
        assert changed_as_text("versioned", changed) == "New runs of versioned go to version 1."
        listed = json.loads(listed_as_json(await platform.versions.list(ctx)))
        stuck = {one["version"]: (one["stuck"], one["share"]) for one in listed if one["workflow"] == "versioned"}
        assert stuck == {"1": (False, 100.0), "2": (True, 0.0)}

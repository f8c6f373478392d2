"""Versions side by side: who may execute which run, and what is said of one that nobody can execute."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from core.clock import FakeClock
from core.ids import WorkerId
from core.queue.model import Topic, code_of
from core.runs.model import Cause
from core.settings import Settings
from core.tenancy import Policy
from tests.fixtures.work import Work, work_in

OLD, NEW = [code_of("loan", "1")], [code_of("loan", "1"), code_of("loan", "2")]
ONLY_NEW = [code_of("loan", "2")]


@pytest.fixture
async def work(settings: Settings) -> AsyncIterator[Work]:
    """The rooms, on a clock that stands still."""
    async with work_in(settings, FakeClock()) as rooms:
        yield rooms


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
        await work.finish(claims[0], "old" if claims[0].version == "1" else "new")
    assert [one.version for one in served] == [*"111111111", "2"]
    assert served[-1].run_id == older.run_id

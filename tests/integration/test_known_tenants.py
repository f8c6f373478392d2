"""What a process knows of tenants: read once for all who ask, and anew when it has changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import pytest

from core.clock import FakeClock
from core.db.pool import Transaction
from core.errors import NotFound, Unavailable
from core.ids import TenantId
from core.settings import Settings
from core.tenants.known import KnownTenants
from tests.fixtures.work import Work, work_in

BANK = TenantId("bank")


@pytest.fixture
async def work(settings: Settings) -> AsyncIterator[Work]:
    """The rooms, with one tenant, on a clock that stands still."""
    async with work_in(settings, FakeClock()) as rooms:
        await rooms.people.admin("bank")
        yield rooms


@pytest.fixture
def reads(work: Work, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One element for each time that the database was asked."""
    asked: list[None] = []
    statement = work.db.control_statement

    def counted() -> AbstractAsyncContextManager[Transaction]:
        asked.append(None)
        return statement()

    monkeypatch.setattr(work.db, "control_statement", counted)
    return asked


async def test_a_hundred_who_ask_at_once_read_a_tenant_once_and_after_a_second_once_more(
    work: Work, reads: list[None]
) -> None:
    known = KnownTenants(work.db, work.clock)
    found = await asyncio.gather(*(known.get(BANK) for _ in range(100)))
    assert {tenant.tenant_id for tenant in found} == {BANK}
    work.clock.advance(0.9)
    await known.get(BANK)
    assert len(reads) == 1
    work.clock.advance(0.1)
    await known.get(BANK)
    assert len(reads) == 2


async def test_what_is_read_while_it_is_changed_is_read_again(work: Work, reads: list[None]) -> None:
    known = KnownTenants(work.db, work.clock)
    before = asyncio.create_task(known.get(BANK))
    await asyncio.sleep(0)  # it has asked
    known.forget(BANK)
    await asyncio.gather(before, known.get(BANK))
    await known.get(BANK)
    assert len(reads) == 2


async def test_who_gives_up_waiting_takes_the_answer_from_nobody(work: Work, reads: list[None]) -> None:
    known = KnownTenants(work.db, work.clock)
    first, second = (asyncio.create_task(known.get(BANK)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).tenant_id == BANK
    assert first.cancelled()
    assert len(reads) == 1


async def test_a_failure_is_told_to_all_who_wait_and_not_kept(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    known = KnownTenants(work.db, work.clock)

    def gone() -> AbstractAsyncContextManager[Transaction]:
        raise Unavailable("Postgres does not answer.")

    with monkeypatch.context() as broken:
        broken.setattr(work.db, "control_statement", gone)
        told = await asyncio.gather(known.get(BANK), known.get(BANK), return_exceptions=True)
    assert [type(one) for one in told] == [Unavailable, Unavailable]
    assert (await known.get(BANK)).tenant_id == BANK
    with pytest.raises(NotFound):
        await known.get(TenantId("nobody"))

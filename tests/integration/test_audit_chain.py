"""The audit's chain: what is done to it behind the platform's back is found and named; retention leaves it whole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from core.audit.model import Break, Fault
from core.clock import FakeClock
from core.settings import Settings
from core.tenancy import Policy, TenantContext
from scheduler.retention import forget_old_acts
from tests.fixtures.work import Work, work_in

DAYS = 10
# The owner is no match for a chain, but may switch off what refuses to delete.
UNGUARDED = "set session_replication_role = replica"
FORGE = """
insert into audit (tenant_id, at, actor, act, subject, policy_version, seq, prev_hash, hash)
select tenant_id, at, 'nobody', act, subject, policy_version, {}, hash, sha256(hash) from audit
where tenant_id = 'TENANT' and seq = {}
"""
RESEAL = """
do $$
declare
    entry audit%rowtype;
    last  bytea;
begin
    update audit set actor = 'nobody' where tenant_id = 'TENANT' and seq = 3;
    select hash into last from audit where tenant_id = 'TENANT' and seq = 2;
    for entry in select * from audit where tenant_id = 'TENANT' and seq >= 3 order by seq loop
        update audit set prev_hash = last, hash = app.audit_hash(entry, entry.seq, last)
        where entry_id = entry.entry_id returning hash into last;
    end loop;
    update audit_heads set hash = last where tenant_id = 'TENANT';
end $$
"""
CUT_OFF = """
with gone as (delete from audit where tenant_id = 'TENANT' and seq > 4)
update audit_heads set seq = 4, hash = (select hash from audit where tenant_id = 'TENANT' and seq = 4)
where tenant_id = 'TENANT'
"""
CUT_FRONT = """
with gone as (delete from audit where tenant_id = 'TENANT' and seq <= 2)
update audit_heads set removed_seq = 2, removed_hash = (select hash from audit where tenant_id = 'TENANT' and seq = 2)
where tenant_id = 'TENANT'
"""
CASES = [
    ("update audit set actor = 'nobody' where tenant_id = 'TENANT' and seq = 3", 3, Fault.CHANGED, "thing:2"),
    ("update audit set at = at + '1 us'::interval where tenant_id = 'TENANT' and seq = 6", 6, Fault.CHANGED, "thing:5"),
    ("delete from audit where tenant_id = 'TENANT' and seq = 3", 3, Fault.REMOVED, None),
    ("delete from audit where tenant_id = 'TENANT' and seq = 1", 1, Fault.REMOVED, None),
    ("delete from audit where tenant_id = 'TENANT' and seq = 6", 6, Fault.REMOVED, None),
    (FORGE.format(7, 6), 7, Fault.INSERTED, "thing:5"),
    (FORGE.format(0, 1), 0, Fault.INSERTED, "thing:0"),
    (CUT_FRONT, 3, Fault.UNEXPLAINED, "thing:2"),
]


@pytest.fixture
async def work(settings: Settings) -> AsyncIterator[Work]:
    """The rooms, on a clock that stands still."""
    async with work_in(settings, FakeClock()) as rooms:
        yield rooms


@pytest.fixture
async def owner(owner_dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection as the owner, which may do anything."""
    connection = await asyncpg.connect(owner_dsn)
    yield connection
    await connection.close()


async def acted(work: Work, ctx: TenantContext, count: int) -> None:
    """Acts of the tenant, sealed."""
    for number in range(count):
        await work.audit.append(ctx, "test.act", f"thing:{number}", after={"n": number})
    await work.audit.seal_all()


async def house_kept(work: Work) -> None:
    """What the scheduler does every hour."""
    await forget_old_acts(work.audit, work.tenants)
    await work.audit.seal_all()


async def test_what_the_owner_of_the_database_does_to_a_chain_is_found_and_named(
    work: Work, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    tenants = [await work.tenant(f"bank-{number}") for number, _ in enumerate(CASES)]
    for ctx in tenants:
        await acted(work, ctx, 6)
        before = await work.audit.examine(ctx)
        assert (before.fitting, before.unsealed, before.head.seq, before.broken) == (6, 0, 6, None)
    await owner.execute(UNGUARDED)
    for ctx, (act, seq, fault, subject) in zip(tenants, CASES, strict=True):
        assert (await work.audit.examine(ctx)).broken is None  # those broken before were other tenants'
        await owner.execute(act.replace("TENANT", ctx.tenant_id))
        broken = (await work.audit.examine(ctx)).broken
        assert broken is not None
        assert (broken.seq, broken.fault, broken.entry and broken.entry.subject) == (seq, fault, subject), act


async def test_a_chain_computed_anew_or_cut_off_at_its_end_is_told_from_the_head_kept_outside(
    work: Work, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    bank = await work.tenant("bank")
    await acted(work, bank, 6)
    kept = await work.audit.head(bank)
    await acted(work, bank, 2)
    found = await work.audit.examine(bank, kept)
    assert (found.compared, found.broken) == (True, None)
    await owner.execute(UNGUARDED)
    await owner.execute(RESEAL.replace("TENANT", "bank"))
    assert (await work.audit.examine(bank)).broken is None
    rewritten = (await work.audit.examine(bank, kept)).broken
    assert rewritten is not None
    assert (rewritten.seq, rewritten.fault) == (6, Fault.REWRITTEN)
    await owner.execute(CUT_OFF.replace("TENANT", "bank"))
    assert (await work.audit.examine(bank)).broken is None
    assert (await work.audit.examine(bank, kept)).broken == Break(5, Fault.REMOVED, None)


async def test_retention_removes_the_oldest_entries_and_what_is_kept_can_still_be_checked(work: Work) -> None:
    bank = await work.tenant("bank", Policy(audit_retention_days=DAYS))
    patient = await work.tenant("patient", Policy(audit_retention_days=DAYS * 10))
    await acted(work, bank, 4)
    await acted(work, patient, 4)
    old = await work.audit.head(bank)
    work.clock.advance(timedelta(days=DAYS, seconds=1).total_seconds())
    await acted(work, bank, 3)
    young = await work.audit.head(bank)
    await house_kept(work)
    found = await work.audit.examine(bank, young)
    assert (found.kept_after, found.fitting, found.head.seq) == (4, 4, 8)  # the removal is an act itself
    assert (found.compared, found.broken) == (True, None)
    assert next(entry.act for entry in await work.audit.recent(bank)) == "audit.expire"
    assert (await work.audit.examine(bank, old)).compared  # the anchor is this very head
    assert (await work.audit.examine(patient)).kept_after == 0
    # What told of a removal is no reason for another one, or a tenant that does nothing would have one every day.
    work.clock.advance(timedelta(days=DAYS, seconds=1).total_seconds())
    await house_kept(work)
    last = await work.audit.examine(bank, old)
    assert (last.kept_after, last.head.seq, last.compared, last.broken) == (7, 9, False, None)
    work.clock.advance(timedelta(days=DAYS, seconds=1).total_seconds())
    await house_kept(work)
    assert (await work.audit.examine(bank)).head.seq == 9


async def test_nobody_deletes_what_retention_keeps(work: Work, owner: asyncpg.Connection[asyncpg.Record]) -> None:
    bank = await work.tenant("bank")
    await acted(work, bank, 2)
    await work.audit.append(bank, "test.act", "unsealed")
    for where in ("seq = 1", "seq is null"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="by retention only"):
            await owner.execute(f"delete from audit where tenant_id = 'bank' and {where}")


async def test_a_long_chain_is_checked_in_stretches(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    from core.audit import service

    bank = await work.tenant("bank")
    await acted(work, bank, 10)
    monkeypatch.setattr(service, "_STRETCH", 3)
    found = await work.audit.examine(bank)
    assert (found.fitting, found.broken) == (10, None)

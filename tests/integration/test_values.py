"""Values at the edge of what Postgres holds, through the pool and back: kept, or refused as the caller's mistake."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as configured
from hypothesis import strategies as st

from core.clock import FakeClock
from core.db.pool import Database
from core.db.queries import Query
from core.errors import InvalidInput, NotFound, Unavailable
from core.settings import Settings
from core.tenancy import TenantContext
from tests.fixtures.work import Work, work_in

ECHO = Query("select $1::jsonb")


@pytest.fixture
async def work(settings: Settings) -> AsyncIterator[Work]:
    """The rooms, on a clock that stands still."""
    async with work_in(settings, FakeClock()) as rooms:
        yield rooms


@pytest.fixture
async def ctx(work: Work) -> TenantContext:
    """Somebody who is everything in a tenant."""
    return await work.tenant("bank")


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def without_nul(value: object) -> object:
    """What is kept: NUL becomes the replacement character, all else stays."""
    match value:
        case str():
            return value.replace("\x00", "\ufffd")
        case list():
            return [without_nul(item) for item in value]
        case dict():
            return {without_nul(key): without_nul(item) for key, item in value.items()}
        case _:
            return value


@given(documents)
@example("\\u0000")
@example("\\\\u0000\x00\\")
@example({"a\x00": ["\\\x00", "\\\\"]})
@configured(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_document_comes_back_as_it_was_but_for_nul(settings: Settings, document: object) -> None:
    assert settings.database_app_url is not None
    db = await Database.open(settings.database_app_url.get_secret_value(), size=1)
    async with db.control_transaction() as tx:
        assert await tx.fetchval(ECHO, document) == without_nul(document)
    await db.close()


async def test_an_id_that_no_text_can_be_is_a_mistake_of_the_caller(work: Work, ctx: TenantContext) -> None:
    for hostile in ("run_\x00", "\ud800"):
        for asked in (
            work.runs.get(ctx, hostile),
            work.control.cancel(ctx, hostile),
            work.reviews.get(ctx, hostile),
            work.runs.send_event(ctx, hostile, "key", {}),
        ):
            with pytest.raises(InvalidInput):
                await asked
    assert await work.runs.send_event(ctx, "name", "key", {"still": "works"})


async def test_numbers_out_of_range_and_values_that_are_no_json_are_mistakes_of_the_caller(
    work: Work, ctx: TenantContext
) -> None:
    (run,) = await work.submit(ctx, 1)
    for asked in (
        work.runs.events(ctx, run.run_id, after_seq=2**40),
        work.usage.reserve(ctx, "key", 2**63),
        work.runs.send_event(ctx, "name", "key", float("nan")),
        work.reviews.open(ctx, -1),
    ):
        with pytest.raises(InvalidInput):
            await asked
    with pytest.raises(NotFound):
        await work.runs.get(ctx, "x" * 100_000)


async def test_a_fault_of_our_own_statements_is_not_blamed_on_the_caller(work: Work, ctx: TenantContext) -> None:
    with pytest.raises(asyncpg.DivisionByZeroError):
        async with work.db.tenant_transaction(ctx) as tx:
            await tx.fetch(Query("select 1 / 0"))


async def test_a_server_without_a_free_connection_is_unavailable(settings: Settings, owner_dsn: str) -> None:
    assert settings.database_app_url is not None
    owner = await asyncpg.connect(owner_dsn)
    db = await Database.open(settings.database_app_url.get_secret_value(), size=2)
    name = owner_dsn.rpartition("/")[2]
    async with db.control_transaction():
        await owner.execute(f"alter database {name} connection limit 1")
        with pytest.raises(Unavailable):
            async with db.control_transaction():
                pass
    async with db.control_transaction() as tx:
        assert await tx.fetchval(Query("select 1")) == 1
    await db.close()
    await owner.close()

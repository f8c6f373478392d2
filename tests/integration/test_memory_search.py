"""The search inside a tenant is exact, also where the tenant is a small part of everything."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import asyncpg
import numpy as np
import pytest
from numpy.typing import NDArray

from core.clock import FakeClock
from core.ids import MemoryId, ThreadId
from core.settings import Settings
from core.tenancy import TenantContext
from memory import store
from memory.keeping import Kept, keep
from memory.model import DIMENSIONS, Draft, Provenance, Triple
from memory.ranking import bm25
from tests.fixtures.people import people_in

TENANTS = 10
EACH = 120
SPACE = "test"


def vectors(seed: int, count: int) -> NDArray[np.float64]:
    drawn = np.random.default_rng(seed).normal(size=(count, DIMENSIONS))
    unit: NDArray[np.float64] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit


async def test_nearest_memories_are_those_of_an_exhaustive_search_at_a_tenth_of_all_rows(
    settings: Settings,
) -> None:
    clock = FakeClock()
    drawn = vectors(7, TENANTS * EACH)
    query = vectors(8, 1)[0]
    async with people_in(settings, clock) as (db, people):
        contexts: list[TenantContext] = []
        for number in range(TENANTS):
            _, identity = await people.login(f"m{number}@example.com", f"tenant-{number}")
            ctx = identity.ctx
            contexts.append(ctx)
            own = drawn[number * EACH : (number + 1) * EACH]
            drafts = [Draft(f"statement {number} {index}", None, shared=index % 2 == 0) for index in range(EACH)]
            origin = Provenance(ctx.actor, ctx.user_id, ThreadId("thr"), None, clock.now())
            async with db.tenant_transaction(ctx) as tx:
                await keep(tx, drafts, [(SPACE, vector.tolist()) for vector in own], origin, clock.now())
        for number in (0, 4, TENANTS - 1):
            own = drawn[number * EACH : (number + 1) * EACH]
            expected = [f"statement {number} {index}" for index in np.argsort(-(own @ query))[:20]]
            asked = (SPACE, query.tolist())
            async with db.tenant_transaction(contexts[number]) as tx:
                found, corpus = await store.candidates(tx, contexts[number].user_id, clock.now(), "zzz", asked, 20, {})
            best = sorted(found, key=lambda one: -(one.candidate.similarity or 0))
            assert [one.candidate.text for one in best] == expected
            assert corpus.total == EACH
            assert corpus.similarity_mean == pytest.approx(float((own @ query).mean()), abs=1e-4)
            assert corpus.similarity_deviation == pytest.approx(float((own @ query).std()), abs=1e-4)


async def test_the_statistics_of_words_are_those_of_what_the_asker_may_see_now(settings: Settings) -> None:
    clock = FakeClock()
    async with people_in(settings, clock) as (db, people):
        _, mia = await people.login("mia@example.com", "regional-bank")
        _, ravi = await people.login("ravi@example.com", "regional-bank")
        said = [
            (mia.ctx, "the score floor is six hundred", True),
            (mia.ctx, "scores are checked twice, scores matter", True),
            (mia.ctx, "my private score wish", False),
            (ravi.ctx, "another score of a colleague", False),
        ]
        for ctx, text, shared in said:
            origin = Provenance(ctx.actor, ctx.user_id, None, None, clock.now())
            async with db.tenant_transaction(ctx) as tx:
                await keep(tx, [Draft(text, None, shared)], [None], origin, clock.now())
        async with db.tenant_transaction(mia.ctx) as tx:
            now = clock.now()
            found, corpus = await store.candidates(tx, mia.user_id, now, "Which scores?", None, 10, {})
            early, nothing = await store.candidates(
                tx, mia.user_id, now - timedelta(days=1), "Which scores?", None, 10, {}
            )
        assert (corpus.total, dict(corpus.frequencies)) == (3, {"score": 3})
        assert {one.candidate.text: dict(one.candidate.matched) for one in found} == {
            "the score floor is six hundred": {"score": 1},
            "scores are checked twice, scores matter": {"score": 2},
            "my private score wish": {"score": 1},
        }
        assert all(bm25(one.candidate, corpus) > 0 for one in found)
        assert (early, nothing.total) == ([], 0)


async def test_ids_that_the_graph_suggests_are_candidates_only_where_they_may_be_seen(settings: Settings) -> None:
    clock = FakeClock()
    async with people_in(settings, clock) as (db, people):
        _, mia = await people.login("mia@example.com", "regional-bank")
        origin = Provenance(mia.ctx.actor, mia.user_id, None, None, clock.now())
        async with db.tenant_transaction(mia.ctx) as tx:
            kept = await keep(tx, [Draft("Acme pays late", None, True)], [None], origin, clock.now())
            hops = {kept.stored[0]: 1, MemoryId("mem_of_somebody_else"): 1}
            found, _ = await store.candidates(tx, mia.user_id, clock.now(), "zzz", None, 10, hops)
        assert [(one.candidate.memory_id, one.candidate.hops) for one in found] == [(kept.stored[0], 1)]


async def test_writers_of_one_tenant_take_turns_so_that_the_second_sees_what_it_contradicts(
    settings: Settings, owner_dsn: str
) -> None:
    clock = FakeClock()
    async with people_in(settings, clock) as (db, people):
        _, mia = await people.login("mia@example.com", "regional-bank")
        origin = Provenance(mia.ctx.actor, mia.user_id, None, None, clock.now())

        async def learn(value: str) -> Kept:
            draft = Draft(f"The floor is {value}.", Triple("floor", "is", value), shared=True, exclusive=True)
            async with db.tenant_transaction(mia.ctx) as tx:
                return await keep(tx, [draft], [None], origin, clock.now())

        watching = await asyncpg.connect(owner_dsn)
        async with db.tenant_transaction(mia.ctx) as tx:
            draft = Draft("The floor is 620.", Triple("floor", "is", "620"), shared=True, exclusive=True)
            first = await keep(tx, [draft], [None], origin, clock.now())
            second = asyncio.create_task(learn("640"))
            async with asyncio.timeout(10):
                while not second.done() and not await watching.fetchval(
                    "select exists (select from pg_stat_activity where datname = current_database() "
                    "and wait_event_type = 'Lock')"
                ):
                    pass
        await watching.close()
        assert (await second).closed == first.stored

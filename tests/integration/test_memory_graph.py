"""The graph follows the memories: once, in order, also after it was away or lost everything."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, LiteralString

import neo4j
import pytest

from core.errors import Unavailable
from core.ids import MemoryId, TenantId, ThreadId
from core.ports import Utterance
from core.settings import Settings
from core.tenancy import TenantContext
from memory import store
from memory.bootstrap import open_graph
from memory.graph import NEIGHBOURS_WITHIN_S, PAUSE_S, Change, MemoryGraph
from memory.keeping import keep
from memory.model import Draft, Provenance, Triple
from memory.projection import GraphProjection
from memory.service import MemoryService
from tests.fixtures.memory import Remembering, remembering
from tests.fixtures.timing import within

BANK = TenantId("regional-bank")
ABOUT = "What do we know about Acme?"
DEADLINE_S = 60


async def cypher(settings: Settings, statement: LiteralString, **given: Any) -> list[dict[str, Any]]:
    assert settings.graph_url is not None
    assert settings.graph_password is not None
    login = (settings.graph_user, settings.graph_password.get_secret_value())
    async with neo4j.AsyncGraphDatabase.driver(settings.graph_url, auth=login) as driver:
        records, _, _ = await driver.execute_query(statement, **given)
        return [record.data() for record in records]


async def triples(settings: Settings) -> list[tuple[Any, ...]]:
    found = await cypher(
        settings,
        "MATCH (s:Entity)<-[:SUBJECT]-(t:Triple)-[:OBJECT]->(o:Entity) "
        "RETURN t.tenant_id AS tenant, s.key AS s, t.predicate AS p, o.key AS o, t.owner AS owner, "
        "t.valid_to_ms IS NULL AS valid, t.thread_id AS thread",
    )
    return sorted((r["tenant"], r["s"], r["p"], r["o"], r["owner"], r["valid"], r["thread"]) for r in found)


async def said(here: Remembering, ctx: TenantContext, *statements: str, thread: str | None = None) -> None:
    """It is learned; the graph follows if it can."""
    turn = [Utterance("user", " ".join(statements))]
    await here.memory.learn(ctx, turn, thread_id=ThreadId(thread) if thread else None)


async def teach(here: Remembering, ctx: TenantContext, *statements: str, thread: str | None = None) -> None:
    """It is learned, and the graph has followed."""
    await said(here, ctx, *statements, thread=thread)
    await followed(here, ctx)


async def followed(here: Remembering, ctx: TenantContext) -> None:
    """Return when the graph has followed: one that was busy for longer than a recall waits is let alone for a while."""
    async with asyncio.timeout(DEADLINE_S):
        while ctx.tenant_id in await here.memory.tenants_behind():
            here.clock.advance(PAUSE_S)
            with contextlib.suppress(Unavailable):
                await here.memory.drain(ctx)


async def neighbours(here: Remembering, ctx: TenantContext, *keys: str) -> dict[MemoryId, int]:
    """What the graph answers, asked again if it is busy for longer than a recall waits."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            graph = open_graph(here.platform)
            try:
                return await graph.neighbours(ctx.tenant_id, ctx.user_id, keys, here.clock.now())
            except Unavailable:
                continue
            finally:
                await graph.close()


async def test_triples_stand_in_the_graph_with_owner_validity_and_origin(
    settings_with_graph: Settings, offline_model: str
) -> None:
    async with remembering(settings_with_graph, offline_model) as here:
        mia = await here.member(BANK)
        await teach(here, mia, "Our floor is 620.", "I prefer tea.", thread="thr_1")
        here.clock.advance(60)
        await teach(here, mia, "Our floor is 640.")
        assert await triples(settings_with_graph) == [
            (BANK, "floor", "is", "620", "", False, "thr_1"),
            (BANK, "floor", "is", "640", "", True, None),
            (BANK, "i", "prefer", "tea", mia.user_id, True, "thr_1"),
        ]


async def test_things_named_in_a_query_bring_what_is_known_about_them_and_one_step_further(
    settings_with_graph: Settings, offline_model: str
) -> None:
    async with remembering(settings_with_graph, offline_model) as here:
        mia = await here.member(BANK)
        ravi = await here.member(BANK, "ravi@example.com")
        await teach(here, mia, "Our client Acme is owned by Zenith Group.")
        await teach(here, mia, "Our partner Zenith Group is based in Oslo.", "We never lend to pawnbrokers.")
        await teach(here, mia, "I know that Oslo has my cousin.")
        by_key = {
            memory.triple.key[0]: memory.memory_id
            for one in await here.memory.list(mia)
            if (memory := await here.memory.get(mia, one.memory_id)).triple
        }
        found = await neighbours(here, mia, "client acme")
        assert found[by_key["client acme"]] == 1
        assert set(found) <= set(by_key.values())
        everything = await cypher(settings_with_graph, "MATCH (e:Entity) RETURN e.key AS key ORDER BY key")
        keys = [row["key"] for row in everything]
        assert len(await neighbours(here, ravi, *keys)) == len(await here.memory.list(ravi))
        assert len(await neighbours(here, mia, *keys)) == len(await here.memory.list(mia))


async def test_forgetting_removes_triples_and_things_nobody_speaks_of_any_more(
    settings_with_graph: Settings, offline_model: str
) -> None:
    async with remembering(settings_with_graph, offline_model) as here:
        mia = await here.member(BANK)
        await teach(here, mia, "Our floor is 620.")
        await teach(here, mia, "Our cap is 620.")
        floor, cap = sorted(await here.memory.list(mia), key=lambda one: "cap" in one.text)
        assert await here.memory.forget(mia, floor.memory_id)
        await followed(here, mia)
        assert await cypher(settings_with_graph, "MATCH (e:Entity) RETURN e.key AS key ORDER BY key") == [
            {"key": "620"},
            {"key": "cap"},
        ]
        assert await here.memory.forget(mia, cap.memory_id)
        await followed(here, mia)
        assert await cypher(settings_with_graph, "MATCH (n) WHERE n:Entity OR n:Triple RETURN n") == []


async def test_without_a_graph_memory_works_and_the_graph_catches_up(
    settings_with_graph: Settings, offline_model: str
) -> None:
    away = settings_with_graph.model_copy(update={"graph_url": "bolt://127.0.0.1:1"})
    async with remembering(away, offline_model) as here:
        mia = await here.member(BANK)
        await said(here, mia, "Our floor is 620.")
        [known] = await here.memory.recall(mia, "What is our floor?")
        with pytest.raises(Unavailable):
            await here.memory.drain(mia)
        assert await here.memory.tenants_behind() == [BANK]
    async with remembering(settings_with_graph, offline_model) as here:
        await followed(here, mia)
        assert await here.memory.tenants_behind() == []
        assert list(await neighbours(here, mia, "floor")) == [known.memory_id]


async def test_a_graph_that_accepts_and_says_nothing_costs_a_recall_a_second_and_the_next_one_nothing(
    settings_with_graph: Settings, offline_model: str
) -> None:
    accepted: list[asyncio.StreamWriter] = []

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    away = settings_with_graph.model_copy(update={"graph_url": f"bolt://127.0.0.1:{port}"})
    async with server, remembering(away, offline_model) as here:
        mia, graphs = await here.member(BANK), 0

        async def refused(graph: MemoryGraph) -> float:
            began = time.monotonic()
            with pytest.raises(Unavailable):
                await graph.neighbours(BANK, mia.user_id, ["floor"], here.clock.now())
            return time.monotonic() - began

        async def too_long() -> float:
            nonlocal graphs
            graphs += 1
            graph = open_graph(here.platform)
            first, second = await refused(graph), await refused(graph)
            await graph.close()
            return max(first - NEIGHBOURS_WITHIN_S - 0.5, second - 0.1)

        await within(0, too_long)
        assert len(accepted) == graphs, "the next one asked nobody"
        for writer in accepted:
            writer.close()


async def test_a_failing_graph_is_left_alone_for_a_moment_and_then_asked_again(
    settings_with_graph: Settings, offline_model: str
) -> None:
    async with remembering(settings_with_graph, offline_model) as here:
        mia = await here.member(BANK)
        await teach(here, mia, "Our floor is 620.")
        graph = open_graph(here.platform)
        address = graph._driver
        graph._driver = neo4j.AsyncGraphDatabase.driver("bolt://127.0.0.1:1", max_transaction_retry_time=0)
        with pytest.raises(Unavailable):
            await graph.position(BANK)
        await graph.close()
        graph._driver = address
        with pytest.raises(Unavailable):
            await graph.position(BANK)
        here.clock.advance(timedelta(seconds=6).total_seconds())
        assert await graph.position(BANK) == 1
        await graph.close()


async def test_a_graph_that_lost_its_data_is_written_anew(settings_with_graph: Settings, offline_model: str) -> None:
    async with remembering(settings_with_graph, offline_model) as here:
        mia = await here.member(BANK)
        await teach(here, mia, "Our floor is 620.", "Our cap is 900.")
        before = await triples(settings_with_graph)
        assert len(before) == 2
        # What is left comes from another time: one triple is missing, another was never said, the position is gone.
        await cypher(settings_with_graph, "MATCH (p:Position) DELETE p")
        await cypher(settings_with_graph, "MATCH (t:Triple)-[:SUBJECT]->({key: 'floor'}) DETACH DELETE t")
        await cypher(
            settings_with_graph,
            "MATCH (e:Entity {key: 'cap'}) CREATE (e)<-[:SUBJECT]-(:Triple {tenant_id: $tenant, memory_id: 'mem_x'})"
            "-[:OBJECT]->(:Entity {tenant_id: $tenant, key: 'stray'})",
            tenant=BANK,
        )
        await teach(here, mia, "Our office is in Leeds.")
        after = await triples(settings_with_graph)
        assert len(after) == 3
        assert set(before) < set(after)
        assert await cypher(settings_with_graph, "MATCH (e:Entity {key: 'stray'}) RETURN e") == []


async def test_a_crash_between_the_graph_and_postgres_applies_nothing_twice_and_loses_nothing(
    settings_with_graph: Settings, offline_model: str
) -> None:
    away = settings_with_graph.model_copy(update={"graph_url": "bolt://127.0.0.1:1"})
    async with remembering(away, offline_model) as here:
        mia = await here.member(BANK)
        await said(here, mia, "Our floor is 620.")
    async with remembering(settings_with_graph, offline_model) as here:
        graph = open_graph(here.platform)
        async with here.platform.db.tenant_transaction(mia) as tx:
            waiting = await store.waiting(tx, 10)
        await graph.apply(BANK, waiting)  # … and here the process dies before it tells Postgres
        await teach(here, mia, "Our cap is 900.")
        assert await graph.position(BANK) == 2
        await graph.close()
        assert len(await triples(settings_with_graph)) == 2
        assert await here.memory.tenants_behind() == []


async def test_a_position_that_was_reached_is_not_applied_again(
    settings_with_graph: Settings, offline_model: str
) -> None:
    async with remembering(settings_with_graph, offline_model) as here:
        mia = await here.member(BANK)
        await teach(here, mia, "Our floor is 620.")
        [known] = await here.memory.list(mia)
        graph = open_graph(here.platform)
        await graph.apply(BANK, [Change(1, known.memory_id, None)])
        assert len(await triples(settings_with_graph)) == 1
        await graph.apply(BANK, [Change(1, known.memory_id, None), Change(2, known.memory_id, None)])
        assert await triples(settings_with_graph) == []
        await graph.close()


class Gated(MemoryGraph):
    """The graph, with a gate in front of its first write."""

    entered = asyncio.Event()
    gate = asyncio.Event()

    async def apply(self, tenant_id: TenantId, changes: Sequence[Change]) -> None:
        """Wait at the gate, then write."""
        self.entered.set()
        await self.gate.wait()
        await super().apply(tenant_id, changes)


async def test_one_writer_at_a_time_who_takes_along_what_came_while_it_wrote(
    settings_with_graph: Settings, offline_model: str
) -> None:
    async with remembering(settings_with_graph, offline_model) as here:
        mia = await here.member(BANK)
        url, user, password = here.platform.settings.graph_url, here.platform.settings.graph_user, "test-password"
        graph = Gated(str(url), user, password, here.clock)
        slow = GraphProjection(here.platform.db, graph)
        async with here.platform.db.tenant_transaction(mia) as tx:
            origin = Provenance(mia.actor, mia.user_id, None, None, here.clock.now())
            draft = Draft("Our floor is 620.", Triple("floor", "is", "620"), shared=True)
            await keep(tx, [draft], [None], origin, here.clock.now())
        first = asyncio.create_task(slow.drain(mia))
        await asyncio.wait_for(graph.entered.wait(), DEADLINE_S)
        await said(here, mia, "Our cap is 900.")
        assert await here.memory.drain(mia) == 1, "only the embedding: the graph has its writer"
        assert await triples(settings_with_graph) == []
        graph.gate.set()
        assert await asyncio.wait_for(first, DEADLINE_S) == 2
        assert [row[1] for row in await triples(settings_with_graph)] == ["cap", "floor"]
        assert await here.memory.tenants_behind() == []
        await graph.close()


async def test_many_writers_at_once_make_no_duplicates_and_leave_nothing_behind(
    settings_with_graph: Settings, offline_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else a recall of one that is busy leaves the graph alone for a while, and the writers with it.
    monkeypatch.setattr("memory.graph.NEIGHBOURS_WITHIN_S", DEADLINE_S)
    async with (
        remembering(settings_with_graph, offline_model) as here,
        remembering(settings_with_graph, offline_model) as there,
    ):
        mia = await here.member(BANK)
        places = ("Leeds", "York", "Hull")

        async def tell(memory: MemoryService, place: str) -> None:
            await memory.learn(mia, [Utterance("user", f"We operate in {place}.")], thread_id=None)

        await asyncio.gather(*(tell(side.memory, place) for place in places for side in (here, there)))
        assert await here.memory.tenants_behind() == []
        found = await triples(settings_with_graph)
        assert [row[3] for row in found] == sorted(place.lower() for place in places)
        edges = await cypher(settings_with_graph, "MATCH (:Triple)-[r]->(:Entity) RETURN count(r) AS edges")
        assert edges == [{"edges": 2 * len(places)}]

"""How well memory finds what was said, and how large a tenant may grow: ``pytest -s tests/benchmarks/bench_memory.py``.

Retrieval is measured on real conversations (LoCoMo, for evaluation only): every turn is a memory with the turn
before it as its context, every question has the turns that answer it. The peers are computed from the same
rows by the same run. Nothing is tuned to these conversations: BM25's constants are the usual ones and both
signals weigh the same. The graph is left out: it would need an extraction of every turn.
"""

from __future__ import annotations

import json
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import pytest
from numpy.typing import NDArray

from core.db.queries import load_queries
from core.ids import MemoryId, ThreadId
from core.settings import Settings
from core.tenancy import Policy, TenantContext
from memory import store
from memory.keeping import keep
from memory.model import MAX_CONTEXT, MAX_TEXT, Draft, Provenance, clean, without_names
from memory.ranking import bm25
from tests.benchmarks.report import Row, write
from tests.fixtures.data import real_data
from tests.fixtures.memory import Remembering, remembering

Vector = NDArray[np.float64]

TOP = 10
RICH = Policy(budget_month_microusd=10**12, budget_run_microusd=10**12)
PACKAGES = ("asyncpg", "langmem", "neo4j", "numpy")
SQL = load_queries(__file__, "bench_memory.sql")
_SPACE = "text-embedding-3-small"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and the turns that answer it."""

    text: str
    evidence: frozenset[str]


@dataclass(frozen=True, slots=True)
class Turn:
    """One thing said, without the name of who said it."""

    turn_id: str
    text: str
    before: str
    said_at: datetime


def conversation(path: Path) -> tuple[list[Turn], list[Question]]:
    """Turns and questions of one file."""
    document: dict[str, Any] = json.loads(path.read_text("utf-8"))
    turns: list[Turn] = []
    for number in range(1, 100):
        before = ""
        for said in document.get(f"session_{number}", ()):
            shown = f" (a photo of {said['blip_caption']})" if said.get("blip_caption") else ""
            text = clean(said["text"] + shown, MAX_TEXT)
            when = f"{document[f'session_{number}_date_time']} +0000"
            said_at = datetime.strptime(when, "%I:%M %p on %d %B, %Y %z")
            turns.append(Turn(said["dia_id"], text, before, said_at))
            before = clean(text, MAX_CONTEXT)
    ids = {turn.turn_id for turn in turns}
    questions = [
        Question(one["question"], frozenset(re.findall(r"D\d+:\d+", " ".join(one["evidence"]))) & ids)
        for one in document["qa"]
    ]
    return turns, [question for question in questions if question.evidence]


@dataclass(frozen=True, slots=True)
class Filled:
    """A conversation in memory: which turn each memory is, and its vector."""

    turn_of: dict[MemoryId, str]
    vector_of: dict[MemoryId, Vector]


async def fill(here: Remembering, ctx: TenantContext, turns: Sequence[Turn]) -> Filled:
    """Every turn as a memory."""
    vectors = await here.platform.models.for_tenant(ctx, "benchmark").embed([turn.text for turn in turns])
    filled = Filled({}, {})
    async with here.platform.db.tenant_transaction(ctx) as tx:
        for turn, vector in zip(turns, vectors, strict=True):
            draft = Draft(turn.text, None, shared=True, context=turn.before)
            origin = Provenance(ctx.actor, ctx.user_id, ThreadId("locomo"), None, turn.said_at)
            kept = await keep(tx, [draft], [(_SPACE, vector)], origin, here.clock.now())
            filled.turn_of.setdefault(kept.known[0], turn.turn_id)
            filled.vector_of.setdefault(kept.known[0], np.array(vector))
    return filled


def share_found(order: Sequence[MemoryId], filled: Filled, question: Question) -> float:
    """Recall@10: the share of the answering turns among the first ten."""
    found = {filled.turn_of.get(memory_id) for memory_id in order[:TOP]}
    return len(found & question.evidence) / len(question.evidence)


def peers(filled: Filled, asked: Vector, without: Vector, words: dict[MemoryId, float]) -> dict[str, list[MemoryId]]:
    """The orders of others, over all memories: either signal alone, and both fused by rank."""
    ids = list(filled.turn_of)
    vectors = np.array([filled.vector_of[memory_id] for memory_id in ids])
    plain, bare = ([ids[at] for at in np.argsort(-(vectors @ query))] for query in (asked, asked + without))
    by_words = sorted(ids, key=lambda memory_id: -words.get(memory_id, 0.0))
    places: dict[MemoryId, float] = dict.fromkeys(ids, 0.0)
    for order in (bare, by_words):
        for place, memory_id in enumerate(order, start=1):
            places[memory_id] += 1 / (60 + place)
    by_rank = sorted(ids, key=lambda memory_id: -places[memory_id])
    return {"vector": plain, "vector, half without names": bare, "bm25": by_words, "both by rank": by_rank}


@pytest.mark.timeout(900)
async def test_ours_finds_more_of_what_was_said_than_words_or_meaning_alone(
    settings: Settings, offline_model: str
) -> None:
    paths = [real_data(f"memory/locomo-{number}.json") for number in (26, 30, 49)]
    scores: defaultdict[str, list[float]] = defaultdict(list)
    seconds: list[float] = []
    async with remembering(settings, offline_model) as here:
        for number, path in enumerate(paths):
            ctx = await here.member(f"conversation-{number}", policy=RICH)
            turns, questions = conversation(path)
            filled = await fill(here, ctx, turns)
            models = here.platform.models.for_tenant(ctx, "benchmark")
            asked = np.array(await models.embed([one.text for one in questions]))
            without = np.array(await models.embed([without_names(one.text) or one.text for one in questions]))
            for question, plain, bare in zip(questions, asked, without, strict=True):
                started = time.perf_counter()
                answer = await here.memory.recall(ctx, question.text, limit=TOP)
                seconds.append(time.perf_counter() - started)
                scores["ours"].append(share_found([one.memory_id for one in answer], filled, question))
                async with here.platform.db.tenant_transaction(ctx) as tx:
                    now = here.clock.now()
                    found, corpus = await store.candidates(tx, None, now, question.text, None, len(turns), {})
                words = {one.candidate.memory_id: bm25(one.candidate, corpus) for one in found}
                for name, order in peers(filled, plain, bare, words).items():
                    scores[name].append(share_found(order, filled, question))
        size_rows = await sizes(here, settings)
    mean = {name: statistics.fmean(values) for name, values in scores.items()}
    ours = mean.pop("ours")
    best = max(mean.values())
    rows = [
        Row("recall@10, LoCoMo, 3 conversations", ours, "share", best, ">=", mean),
        Row("recall through model and database, p50", statistics.median(seconds) * 1000, "ms", 250, "<="),
        *size_rows,
    ]
    write("memory", rows, packages=PACKAGES)
    assert ours > best


async def sizes(here: Remembering, settings: Settings) -> list[Row]:
    """Time of the exact search inside one tenant, by its number of memories."""
    ctx = await here.member("large-bank", policy=RICH)
    [vector] = await here.platform.models.for_tenant(ctx, "benchmark").embed(["When are applications declined?"])
    assert settings.database_url is not None
    owner = await asyncpg.connect(settings.database_url.get_secret_value())
    rows: list[Row] = []
    try:
        for size, target in ((1_000, 50.0), (10_000, 250.0), (30_000, None)):
            await owner.execute(SQL["fill"], ctx.tenant_id, ctx.actor, here.clock.now(), size)
            await owner.execute("analyze memories")
            taken = []
            for _ in range(5):
                started = time.perf_counter()
                async with here.platform.db.tenant_transaction(ctx) as tx:
                    await store.candidates(
                        tx, ctx.user_id, here.clock.now(), "declined applications floor", (_SPACE, vector), 200, {}
                    )
                taken.append(time.perf_counter() - started)
            rows.append(
                Row(f"exact search among {size:,} memories, p50", statistics.median(taken) * 1000, "ms", target, "<=")
            )
    finally:
        await owner.close()
    return rows

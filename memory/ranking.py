"""Which memories answer a query best. Pure: candidates and statistics in, an order out.

Two signals carry the ranking, words and meaning, and each is put on the scale of its own distribution over
*all* memories the asker may see (a z-score) before they are added. Real conversations gave recall@10 of
this against either alone, and against fusing ranks; ``tests/benchmarks/bench_memory.py`` measures it.

- words: BM25 over the statement and what it was said in reply to;
- meaning: cosine similarity of the statement alone to the query, which is embedded half with and half
  without its names. Names of speakers are not part of what is embedded either: both cost much of the recall.

On top: memories that the graph relates to things named in the query, and a little for recent ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from core.ids import MemoryId
from memory.model import normalise

K1 = 1.2
"""BM25: how soon a repeated word stops adding; the usual value."""
B = 0.75
"""BM25: how much long texts are held back; the usual value."""
LEAST_SIMILARITY = 0.2
"""Cosine similarity below which a memory without a common word is not an answer; unrelated sentences give 0 to 0.15."""
NEIGHBOUR_BONUS = 1.0
"""A memory about a thing named in the query gains one standard deviation; half of it one step further away."""
RECENCY_BONUS = 0.1
"""At most a tenth of a standard deviation: recency breaks ties, it does not beat relevance."""
RECENCY_HALF_LIFE_DAYS = 90.0
SAME = 0.9
"""Two memories whose words overlap by this share (Jaccard) say the same; only the better one is shown."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Statistics over all memories the asker may see.

    Attributes:
        total: their number.
        average_length: words per memory.
        frequencies: for each word of the query, in how many memories it occurs.
        similarity_mean, similarity_deviation: of the similarity to the query.
    """

    total: int
    average_length: float
    frequencies: Mapping[str, int]
    similarity_mean: float = 0.0
    similarity_deviation: float = 0.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A memory that may answer.

    Attributes:
        matched: how often each word of the query occurs in it.
        length: its words.
        similarity: cosine similarity to the query; None while it has no embedding.
        hops: steps in the graph from a thing named in the query (1 or 2); None when not related.
        confirmed_at: when it was last said.
    """

    memory_id: MemoryId
    text: str
    matched: Mapping[str, int]
    length: int
    similarity: float | None
    confirmed_at: datetime
    hops: int | None = None


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate and how well it fits, in standard deviations; comparable within one answer only."""

    memory_id: MemoryId
    score: float


def rank(candidates: Sequence[Candidate], corpus: Corpus, now: datetime, limit: int) -> list[Ranked]:
    """The best ``limit`` candidates that are relevant at all and say different things, best first."""
    words = [bm25(one, corpus) for one in candidates]
    mean, deviation = _spread(words, corpus.total)
    scored = [
        (
            _standard(word, mean, deviation)
            + _meaning(one, corpus)
            + _nearness(one)
            + RECENCY_BONUS * recency(one.confirmed_at, now),
            one,
        )
        for word, one in zip(words, candidates, strict=True)
        if _is_relevant(word, one)
    ]
    scored.sort(key=lambda pair: (-pair[0], pair[1].memory_id))
    return _distinct(scored, limit)


def bm25(candidate: Candidate, corpus: Corpus) -> float:
    """How well the words fit: 0 without a common word, more for rare words, less for long texts."""
    held_back = K1 * (1 - B + B * candidate.length / max(corpus.average_length, 1.0))
    score = 0.0
    for word, count in candidate.matched.items():
        containing = corpus.frequencies.get(word, 0)
        rarity = math.log(1 + (corpus.total - containing + 0.5) / (containing + 0.5))
        score += rarity * count * (K1 + 1) / (count + held_back)
    return score


def recency(confirmed_at: datetime, now: datetime) -> float:
    """1 for what was said now, half of it for every half-life since."""
    age_days = max(0.0, (now - confirmed_at).total_seconds() / 86_400)
    return float(0.5 ** (age_days / RECENCY_HALF_LIFE_DAYS))


def overlap(one: frozenset[str], other: frozenset[str]) -> float:
    """Jaccard similarity of two sets of words."""
    return len(one & other) / len(one | other) if one or other else 1.0


def _spread(scores: Sequence[float], total: int) -> tuple[float, float]:
    """Mean and deviation over the whole corpus: whoever is no candidate has a score of 0."""
    count = max(total, len(scores), 1)
    mean = math.fsum(scores) / count  # exact sums: the order of the candidates must not matter
    variance = math.fsum(score * score for score in scores) / count - mean * mean
    return mean, math.sqrt(max(variance, 0.0))


def _standard(value: float, mean: float, deviation: float) -> float:
    return (value - mean) / deviation if deviation > 1e-9 else 0.0


def _meaning(candidate: Candidate, corpus: Corpus) -> float:
    if candidate.similarity is None:
        return 0.0  # not embedded yet: neither better nor worse than the average
    return _standard(candidate.similarity, corpus.similarity_mean, corpus.similarity_deviation)


def _nearness(candidate: Candidate) -> float:
    return NEIGHBOUR_BONUS / candidate.hops if candidate.hops else 0.0


def _is_relevant(words: float, candidate: Candidate) -> bool:
    return words > 0 or candidate.hops is not None or (candidate.similarity or 0.0) >= LEAST_SIMILARITY


def _distinct(scored: Sequence[tuple[float, Candidate]], limit: int) -> list[Ranked]:
    kept: list[Ranked] = []
    seen: list[frozenset[str]] = []
    for score, one in scored:
        if len(kept) >= limit:
            break
        words = frozenset(normalise(one.text).split())
        if all(overlap(words, other) < SAME for other in seen):
            kept.append(Ranked(one.memory_id, score))
            seen.append(words)
    return kept

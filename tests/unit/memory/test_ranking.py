"""The ranking of memories, by example and by property."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.ids import MemoryId
from memory.ranking import K1, LEAST_SIMILARITY, B, Candidate, Corpus, bm25, rank, recency

NOW = datetime(2026, 3, 1, tzinfo=UTC)
WORDS = ("score", "floor", "branch", "lending")


def memory(
    name: str,
    *,
    matched: dict[str, int] | None = None,
    similarity: float | None = 0.1,
    hops: int | None = None,
    age_days: float = 0.0,
    text: str | None = None,
) -> Candidate:
    return Candidate(
        memory_id=MemoryId(name),
        text=text or f"statement {name}",
        matched=matched or {},
        length=8,
        similarity=similarity,
        confirmed_at=NOW - timedelta(days=age_days),
        hops=hops,
    )


def corpus(total: int = 100, **frequencies: int) -> Corpus:
    return Corpus(total, 8.0, frequencies, similarity_mean=0.1, similarity_deviation=0.1)


def order(*candidates: Candidate, statistics: Corpus | None = None, limit: int = 10) -> list[str]:
    return [one.memory_id for one in rank(candidates, statistics or corpus(score=5, floor=5), NOW, limit)]


def test_a_rare_word_counts_more_than_a_common_one() -> None:
    statistics = corpus(score=2, branch=90)
    assert bm25(memory("a", matched={"score": 1}), statistics) > bm25(memory("b", matched={"branch": 1}), statistics)


def test_bm25_agrees_with_its_formula_worked_out_by_hand() -> None:
    # N = 100, df = 5: idf = ln(1 + 95.5 / 5.5) = 2.9098; tf = 2, |d| = avg: 2 · 2.2 / 3.2 = 1.375
    assert (K1, B) == (1.2, 0.75)
    assert bm25(memory("a", matched={"score": 2}), corpus(score=5)) == pytest.approx(2.9098 * 1.375, abs=1e-3)


def test_both_signals_together_beat_either_alone() -> None:
    both = memory("both", matched={"score": 1}, similarity=0.5)
    words = memory("words", matched={"score": 1}, similarity=0.1)
    meaning = memory("meaning", similarity=0.5)
    assert order(words, meaning, both)[0] == "both"


def test_a_memory_without_embedding_is_found_by_its_words() -> None:
    assert order(memory("plain", matched={"score": 1}, similarity=None)) == ["plain"]


def test_what_shares_neither_words_nor_meaning_nor_things_is_no_answer() -> None:
    far = memory("far", similarity=LEAST_SIMILARITY - 0.01)
    assert order(far) == []
    assert order(memory("near", similarity=LEAST_SIMILARITY), memory("related", similarity=0.0, hops=2), far) == [
        "near",
        "related",
    ]


def test_a_thing_named_in_the_query_lifts_what_is_known_about_it_the_nearer_the_more() -> None:
    assert order(
        memory("unrelated", similarity=0.25),
        memory("further", similarity=0.25, hops=2),
        memory("direct", similarity=0.25, hops=1),
    ) == ["direct", "further", "unrelated"]


def test_recency_decides_between_equals_and_nothing_else() -> None:
    old, new = memory("old", similarity=0.4, age_days=400), memory("new", similarity=0.4)
    better = memory("better", similarity=0.45, age_days=4000)
    assert order(old, new) == ["new", "old"]
    assert order(old, new, better)[0] == "better"
    assert recency(NOW - timedelta(days=90), NOW) == pytest.approx(0.5)


def test_two_memories_that_say_the_same_are_shown_once() -> None:
    one = memory("one", similarity=0.5, text="We never approve below 620.")
    same = memory("same", similarity=0.4, text="we never approve below 620")
    other = memory("other", similarity=0.3, text="We never approve below 640.")
    assert order(one, same, other) == ["one", "other"]


candidates = st.lists(
    st.builds(
        Candidate,
        memory_id=st.integers(0, 10**6).map(lambda number: MemoryId(f"mem_{number}")),
        text=st.text(min_size=1, max_size=40),
        matched=st.dictionaries(st.sampled_from(WORDS), st.integers(1, 5)),
        length=st.integers(1, 200),
        similarity=st.none() | st.floats(-1, 1),
        confirmed_at=st.integers(0, 3000).map(lambda days: NOW - timedelta(days=days)),
        hops=st.none() | st.integers(1, 2),
    ),
    max_size=12,
    unique_by=lambda one: one.memory_id,
)
statistics = st.builds(
    Corpus,
    total=st.integers(12, 10**5),
    average_length=st.floats(1, 100),
    frequencies=st.fixed_dictionaries({word: st.integers(1, 12) for word in WORDS}),
    similarity_mean=st.floats(-1, 1),
    similarity_deviation=st.floats(0, 1),
)


@given(candidates, statistics, st.integers(0, 12))
def test_an_answer_is_ordered_short_enough_drawn_from_the_candidates_and_whatever_their_order(
    given_: list[Candidate], about: Corpus, limit: int
) -> None:
    answer = rank(given_, about, NOW, limit)
    scores = [one.score for one in answer]
    assert len(answer) <= limit
    assert scores == sorted(scores, reverse=True)
    assert {one.memory_id for one in answer} <= {one.memory_id for one in given_}
    assert rank(given_[::-1], about, NOW, limit) == answer


@given(statistics, st.sampled_from(WORDS), st.integers(1, 4), st.integers(1, 200))
def test_more_of_a_queried_word_never_scores_less_and_a_longer_text_never_more(
    about: Corpus, word: str, count: int, length: int
) -> None:
    def score(times: int, words: int) -> float:
        return bm25(Candidate(MemoryId("m"), "t", {word: times}, words, None, NOW), about)

    assert score(count + 1, length) >= score(count, length) > 0
    assert score(count, length) >= score(count, length + 1)

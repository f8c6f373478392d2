"""Memories as values: what is the same, what follows what, which things a query names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from core.ids import MemoryId
from memory.model import Draft, Rival, clean, entity_key, names_in, normalise, supersede, without_names
from memory.projection import is_lost

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


def test_case_articles_and_punctuation_do_not_tell_two_things_apart() -> None:
    assert entity_key("The Leeds Branch.") == entity_key("our leeds branch") == "leeds branch"
    assert Draft("We never approve below 620.", None, True).content_hash == (
        Draft("we NEVER approve below 620", None, False).content_hash
    )


def test_numbers_keep_their_marks() -> None:
    assert normalise("A cap of $1,500.50, or 3.5 %.") == "a cap of $1,500.50 or 3.5 %"
    assert normalise("620") != normalise("6.20")


def test_a_later_statement_closes_earlier_ones() -> None:
    rivals = [Rival(MemoryId("a"), NOON - timedelta(days=2)), Rival(MemoryId("b"), NOON)]
    found = supersede(NOON, rivals)
    assert (found.closes, found.closed_by, found.valid_to) == (("a", "b"), None, None)


def test_a_statement_learned_late_is_history_from_the_start() -> None:
    rivals = [Rival(MemoryId("next"), NOON + timedelta(hours=1)), Rival(MemoryId("last"), NOON + timedelta(days=1))]
    found = supersede(NOON, [*rivals, Rival(MemoryId("before"), NOON - timedelta(days=1))])
    assert (found.closes, found.closed_by, found.valid_to) == (("before",), "next", NOON + timedelta(hours=1))


def test_a_query_names_its_runs_of_words_but_no_pronouns() -> None:
    names = names_in("What does the Leeds branch do for us?")
    assert {"leeds branch", "leeds", "branch"} <= set(names)
    assert not {"us", "we"} & set(names)


def test_a_query_is_embedded_without_its_names_where_enough_of_it_is_left() -> None:
    assert (
        without_names("What did Dana Smith say about the floor? Tell me.") == "What did say about the floor? Tell me."
    )
    assert without_names("Who is Zenith?") is None
    assert without_names("what is our floor?") is None
    assert without_names("") is None


@given(st.text(max_size=3000))
def test_names_are_few_enough_to_ask_for_whatever_the_query(text: str) -> None:
    assert len(names_in(text)) <= 200


@given(st.text(max_size=300), st.integers(1, 100))
def test_cleaning_keeps_the_limit_and_changes_nothing_the_second_time(text: str, limit: int) -> None:
    once = clean(text, limit)
    assert len(once) <= limit
    assert clean(once, limit) == once


@given(st.text(max_size=80))
def test_a_key_is_the_key_of_itself(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)
    assert entity_key(entity_key(text)) == entity_key(text)


def test_a_graph_is_lost_when_it_is_behind_what_was_applied_or_ahead_of_what_was_given_out() -> None:
    assert not is_lost(reached=0, done=0, given_out=0)
    assert not is_lost(reached=7, done=5, given_out=9)  # a crash came between the two commits
    assert is_lost(reached=0, done=5, given_out=9)
    assert is_lost(reached=12, done=5, given_out=9)

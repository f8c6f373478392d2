"""What may become a memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.ids import MemoryId
from core.ports import Utterance
from memory.admission import MAX_DRAFTS, Extracted, admit, as_said, is_exclusive, is_secret, is_shared
from memory.model import MAX_TEXT, Draft, Kind, Triple

TURN = (
    Utterance("assistant", "What is your floor for credit scores?", "m1"),
    Utterance("user", "We never approve below 620. I prefer short answers.", "m2"),
    Utterance("assistant", "Understood. Your bank was founded in 1901.", "m3"),
)
FLOOR = Extracted("We never approve below 620.", "we", "never approve below", "620", quote="We never approve below 620")


def admitted(*extracted: Extracted, personal: bool = True, known: tuple[MemoryId, ...] = ()) -> list[Draft]:
    return admit(extracted, TURN, known, personal=personal)


def test_a_statement_of_the_user_is_admitted_with_its_origin_and_what_it_answered() -> None:
    [draft] = admitted(FLOOR)
    assert draft == Draft(
        text="We never approve below 620.",
        triple=Triple("we", "never approve below", "620"),
        shared=True,
        exclusive=True,
        context="What is your floor for credit scores?",
        message_id="m2",
    )
    assert draft.kind is Kind.TRIPLE


@pytest.mark.parametrize(
    "extracted",
    [
        Extracted("The bank was founded in 1901.", quote="Your bank was founded in 1901"),
        Extracted("The chairman owns a yacht.", quote="We never approve below 620"),
        Extracted("Do we approve below 620?", quote="We never approve below 620"),
        Extracted("", quote="We never approve below 620"),
        Extracted("620", quote="We never approve below 620"),
    ],
    ids=["said by the assistant", "not in the conversation", "a question", "empty", "one word"],
)
def test_what_the_user_did_not_state_is_not_learned(extracted: Extracted) -> None:
    assert admitted(extracted) == []


def test_an_unusable_triple_leaves_the_fact() -> None:
    for parts in (("we", "", "620"), ("we", "never approve", "we"), ("…", "never approve", "620")):
        [draft] = admitted(Extracted(FLOOR.text, *parts, quote=FLOOR.quote))
        assert draft.triple is None


def test_the_same_words_are_one_memory_and_the_related_form_is_preferred() -> None:
    plain = Extracted("we never approve below 620", quote=FLOOR.quote)
    assert admitted(plain, FLOOR) == admitted(FLOOR, plain) == admitted(FLOOR)


def test_a_runaway_model_is_stopped() -> None:
    many = [Extracted(f"We never approve below 620 {number}.", quote=FLOOR.quote) for number in range(100)]
    assert len(admitted(*many)) == MAX_DRAFTS


def test_only_memories_that_were_shown_can_be_replaced() -> None:
    one, other = MemoryId("mem_1aaa"), MemoryId("mem_2bbb")
    naming = Extracted(FLOOR.text, quote=FLOOR.quote, replaces="mem_2bbb, mem_3ccc")
    assert [draft.replaces for draft in admitted(naming, known=(one, other))] == [(other,)]


@pytest.mark.parametrize(
    ("text", "about", "shared"),
    [
        ("We never approve below 620.", "", True),
        ("Our compliance officer is Dana.", "", True),
        ("Company policy demands two payslips.", "", True),
        ("I prefer short answers.", "", False),
        ("My branch is in Leeds.", "organisation", False),
        ("I work at our Leeds branch.", "", True),
        ("I work at our Leeds branch.", "person", False),
        ("Dana likes tea.", "", False),
        ("Dana leads the credit team.", "organisation", True),
    ],
)
def test_we_is_everybody_i_is_one_person_and_doubt_is_private(text: str, about: str, shared: bool) -> None:
    assert is_shared(text, about) is shared


def test_without_a_person_nothing_personal_is_learned() -> None:
    personal = Extracted("I prefer short answers.", quote="I prefer short answers")
    assert [draft.text for draft in admitted(personal, FLOOR, personal=False)] == [FLOOR.text]


@pytest.mark.parametrize(
    ("predicate", "hint", "exclusive"),
    [
        ("never approve below", "", True),
        ("is", "", True),
        ("prefer", "", True),
        ("lives in", "", True),
        ("likes", "", False),
        ("accepts", "", False),
        ("requires", "", False),
        ("require at least", "", True),
        ("likes", "yes", True),
        ("is", "No.", False),
        ("is", "perhaps", True),
    ],
)
def test_a_bound_or_a_state_is_replaced_and_likings_and_doings_add_up(
    predicate: str, hint: str, exclusive: bool
) -> None:
    assert is_exclusive(predicate, hint) is exclusive


@pytest.mark.parametrize(
    "text",
    ["our password is hunter2", "the API key: abc123", "use bw_k1_s3cr3t", "sk-abcdefghijklmnop1234", "PIN = 4711"],
)
def test_what_opens_doors_is_never_kept(text: str) -> None:
    assert is_secret(text)
    assert as_said(text, personal=True) is None
    assert admit([Extracted(text, quote=text)], [Utterance("user", text)], (), personal=True) == []


@pytest.mark.parametrize(
    "text",
    [
        "Passwords expire after 90 days and tokens are rotated.",
        "A password is required at every branch.",
        "The session token is valid for 60 minutes.",
        "Our PIN is changed every year.",
    ],
)
def test_a_rule_about_secrets_is_no_secret(text: str) -> None:
    assert not is_secret(text)


def test_a_statement_in_a_script_without_blanks_is_admitted() -> None:
    said = "我们从不批准低于620分的申请"
    [draft] = admit([Extracted(said, quote=said)], [Utterance("user", said)], (), personal=True)
    assert draft.text == said


@given(
    st.lists(st.builds(Extracted, *(st.text(max_size=60),) * 8), max_size=8),
    st.lists(st.builds(Utterance, st.sampled_from(["user", "assistant"]), st.text(max_size=80)), max_size=5),
    st.booleans(),
)
def test_whatever_a_model_says_a_draft_keeps_the_limits(
    extracted: list[Extracted], messages: list[Utterance], personal: bool
) -> None:
    for draft in admit(extracted, messages, (), personal=personal):
        assert 0 < len(draft.text) <= MAX_TEXT
        assert "\x00" not in draft.text
        assert draft.shared or personal
        assert draft.triple is None or all(draft.triple.key)

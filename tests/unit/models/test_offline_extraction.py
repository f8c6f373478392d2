"""The offline model serves the memory manager: facts and triples from what the user stated, nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from core.models.offline.prompt import Choice, Prompt, Said, Speaker
from core.models.offline.rules.engine import answer
from core.models.offline.rules.statements import Triple, triple_of
from tests.unit.models.prompts import TEXT, TEXT_OR_NULL, tool

TRIPLE = tool("Triple", subject=TEXT, predicate=TEXT, object=TEXT, context=TEXT_OR_NULL)
FACT = tool("Fact", content=TEXT)
PATCH = tool("PatchDoc", json_doc_id=TEXT, planned_edits=TEXT, patches={"type": "array"})
REMOVE = tool("RemoveDoc", json_doc_id=TEXT)


def extract(*said: str, existing: tuple[tuple[str, str, dict[str, Any]], ...] = ()) -> list[tuple[str, dict[str, Any]]]:
    """What is kept of a conversation in which the user said this and the assistant said something in between."""
    messages = "\n\n".join(
        f"================================ Human Message =================================\n\n{text}\n\n"
        f"================================== Ai Message ==================================\n\nOur capital is Paris."
        for text in said
    )
    shown = "".join(f'<instance id={key} schema_type="{kind}">\n{data}\n</instance>\n' for key, kind, data in existing)
    given = answer(
        Prompt(
            f"You are a memory subroutine for an AI.\n\n<existing>\n{shown}</existing>",
            (Said(Speaker.USER, f"Extract.\n\n<session_1-2>\n{messages}\n</session_1-2>"),),
            (PATCH, TRIPLE, FACT, REMOVE),
            choice=Choice.REQUIRED if existing else Choice.AUTO,
        )
    )
    return [(call.name, call.arguments) for call in given.calls]


def test_a_statement_becomes_a_fact_and_a_triple() -> None:
    assert extract("Remember that we never approve below 620.") == [
        (
            "Triple",
            {
                "subject": "we",
                "predicate": "never approve below",
                "object": "620",
                "context": "We never approve below 620.",
            },
        ),
        ("Fact", {"content": "We never approve below 620."}),
    ]


@pytest.mark.parametrize(
    "said",
    [
        "How far is it?",
        "What is our minimum score",
        "Process the first 20 applications",
        "Please summarise what was declined and why",
        "Every weekday at 09:00 re-check pending applications",
        "Thanks a lot!",
        "hello there",
    ],
)
def test_questions_commands_and_small_talk_leave_no_memory(said: str) -> None:
    assert extract(said) == []


def test_what_the_assistant_said_is_not_kept() -> None:
    kept = extract("Our compliance officer is Dana.")
    assert "Paris" not in str(kept)
    assert ("Fact", {"content": "Our compliance officer is Dana."}) in kept


def test_several_statements_are_kept_at_once_and_each_once() -> None:
    kept = extract(
        "The board prefers short reports. How far is it?\nDana works for Regional Bank.",
        "The board prefers short reports.",
    )
    assert [arguments["content"] for name, arguments in kept if name == "Fact"] == [
        "The board prefers short reports.",
        "Dana works for Regional Bank.",
    ]


def test_known_memories_are_not_extracted_again() -> None:
    known = (
        ("a", "Fact", {"content": "We never approve below 620."}),
        ("b", "Triple", {"subject": "We", "predicate": "never approve below", "object": "620", "context": None}),
    )
    assert extract("remember that we never approve below 620", existing=known) == []


def test_a_newer_statement_corrects_the_known_one() -> None:
    known = (
        ("a", "Fact", {"content": "We never approve below 620."}),
        ("b", "Triple", {"subject": "we", "predicate": "never approve below", "object": "620", "context": None}),
    )
    kept = extract("Remember that we never approve below 640", existing=known)
    edits = {arguments["json_doc_id"]: arguments["patches"] for name, arguments in kept if name == "PatchDoc"}
    assert edits == {
        "a": [{"op": "replace", "path": "/content", "value": "We never approve below 640."}],
        "b": [{"op": "replace", "path": "/object", "value": "640"}],
    }
    assert len(kept) == 2


def test_what_the_user_wants_forgotten_is_removed() -> None:
    known = (
        ("a", "Fact", {"content": "We never approve below 620."}),
        ("b", "Fact", {"content": "Dana leads compliance."}),
    )
    assert extract("Forget that we never approve below 620", existing=known) == [("RemoveDoc", {"json_doc_id": "a"})]


def test_memories_listed_in_the_instructions_are_known_and_can_be_replaced() -> None:
    relation = tool("Relation", **dict.fromkeys(("subject", "predicate", "object", "quote", "about", "replaces"), TEXT))
    fact = tool("Fact", "Something that does not relate two things.", content=TEXT, quote=TEXT, about=TEXT)
    known = '- [mem_1] "We never approve below 600."\n- [mem_2] "Our compliance officer is Dana."'
    said = "Remember that we never approve below 620. Our compliance officer is Dana. I like short answers."
    text = f"Known memories:\n{known}\n\n<session_1>\n=== Human Message ===\n\n{said}\n</session_1>"
    given = answer(Prompt("You are a memory subroutine.", (Said(Speaker.USER, text),), (relation, fact)))
    kept = [(call.name, call.arguments["quote"], call.arguments["about"]) for call in given.calls]
    assert kept == [
        ("Relation", "we never approve below 620", "organisation"),
        ("Relation", "I like short answers", "person"),
    ]
    assert [call.arguments["replaces"] for call in given.calls] == ["mem_1", ""]


@pytest.mark.parametrize(
    ("statement", "triple"),
    [
        ("our compliance officer is Dana", ("compliance officer", "is", "Dana")),
        ("the board prefers short reports", ("board", "prefers", "short reports")),
        ("All loans over 50,000 need two signatures", ("All loans over 50,000", "need", "two signatures")),
        ("Interest rates are capped at 12 percent", ("Interest rates", "are capped at", "12 percent")),
        ("we don't lend to casinos", ("we", "don't lend to", "casinos")),
        ("Dana works for Regional Bank", ("Dana", "works for", "Regional Bank")),
    ],
)
def test_a_statement_splits_at_its_predicate(statement: str, triple: tuple[str, str, str]) -> None:
    found = triple_of(statement)
    assert isinstance(found, Triple)
    assert (found.subject, found.predicate, found.object) == triple

"""Serves the memory manager: facts and triples from what the user stated, as tool calls.

Only statements are kept. Questions, commands, greetings and everything the assistant said are left out, and
so is what is already known. Known memories are read from either of two places: documents shown as ``<existing>``, which
a contradicting statement corrects in place, and a list ``- [id] "text"`` in the instructions, which a
contradicting statement names as replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from core.models.offline.prompt import Answer, Call, Choice, Prompt, Tool
from core.models.offline.rules.arguments import Missing, fit
from core.models.offline.rules.goals import ATTACHMENT
from core.models.offline.rules.intents import POLITE
from core.models.offline.rules.statements import Triple, is_statement, same_subject, tidy, triple_of
from core.models.offline.rules.words import as_sentence, has, parse_data, python_value, relevant, sentences, stems

_SESSION = re.compile(r"<session_[^>]*>\n?(.*)\n?</session_[^>]*>", re.DOTALL)
_HEADER = re.compile(r"^=+ (\w+) Message =+$", re.MULTILINE)
_KNOWN = re.compile(r"^- \[([\w-]+)\] (\".*\"|.+)$", re.MULTILINE)
_EXISTING = re.compile(r'<instance id=(\S+) schema_type="(\w+)">\s*(.*?)\s*</instance>', re.DOTALL)
_REMEMBER = re.compile(
    r"^(?:remember|note|memori[sz]e|keep in mind|don'?t forget|do not forget)\b[,:]?\s*(?:that\b|this:?)?[,:]?\s*(.+)$",
    re.IGNORECASE,
)
_FORGET = re.compile(r"^(?:forget|unlearn)\b\s*(?:that|about)?\s*(.+)$", re.IGNORECASE)
_TEXT_FIELDS = ("content", "statement", "fact", "text", "memory", "note")


@dataclass(frozen=True, slots=True)
class _Memory:
    """A memory shown as existing."""

    id: str
    content: dict[str, Any]

    @property
    def text(self) -> str:
        """What it says."""
        return " ".join(str(value) for value in self.content.values() if isinstance(value, str))


def applies(prompt: Prompt) -> bool:
    """Is this the memory manager asking?"""
    return bool(prompt.tools) and any(_SESSION.search(text) for text in prompt.user_texts())


def extract(prompt: Prompt) -> Answer:
    """One call for each new fact and triple, all at once; plain text when there is nothing to keep."""
    existing = [*_existing(prompt.instructions), *_known(prompt)]
    calls: list[Call] = []
    for statement, certain in _statements(prompt):
        for call in _calls_for(statement, certain, prompt, existing):
            if call not in calls:
                calls.append(call)
    calls += [call for call in _removals(prompt, existing) if call not in calls]
    if prompt.choice is Choice.NONE or not calls:
        return Answer(text="There is nothing to remember.")
    return Answer(calls=tuple(calls))


def _user_sentences(prompt: Prompt) -> Iterator[str]:
    for text in prompt.user_texts():
        if session := _SESSION.search(text):
            parts = _HEADER.split(session.group(1))
            for speaker, said in zip(parts[1::2], parts[2::2], strict=False):
                if speaker == "Human":
                    without_name = re.sub(r"^\s*Name: .*\n", "", said)
                    yield from sentences(ATTACHMENT.sub(" ", without_name))


def _statements(prompt: Prompt) -> Iterator[tuple[str, bool]]:
    """Each thing stated, and whether the user asked to remember it."""
    for sentence in _user_sentences(prompt):
        bare = POLITE.sub("", sentence).strip()
        if asked := _REMEMBER.match(bare):
            if not bare.endswith("?"):
                yield tidy(asked.group(1)), True
        elif is_statement(bare):
            yield tidy(bare), False


def _existing(instructions: str) -> Iterator[_Memory]:
    for found in _EXISTING.finditer(instructions):
        content = python_value(found.group(3))
        if isinstance(content, dict):
            inner = content.get("content")
            yield _Memory(found.group(1), inner if isinstance(inner, dict) else content)


def _known(prompt: Prompt) -> Iterator[_Memory]:
    for text in prompt.user_texts():
        for found in _KNOWN.finditer(text.partition("<session_")[0]):
            statement = parse_data(found.group(2)) if found.group(2).startswith('"') else found.group(2)
            yield _Memory(found.group(1), {"content": str(statement)})


def _calls_for(statement: str, certain: bool, prompt: Prompt, existing: list[_Memory]) -> Iterator[Call]:
    triple = triple_of(statement)
    relates = any(_is_relation(tool) for tool in prompt.tools) and triple is not None
    for tool in prompt.tools:
        if _is_relation(tool):
            if triple is not None:
                yield from _triple_calls(triple, statement, tool, prompt, existing)
        elif relates and has(r"\bdoes not relate\b", tool.description):
            continue  # the offer asks for one call a statement
        elif name := next((name for name in _TEXT_FIELDS if name in tool.properties), None):
            yield from _fact_calls(name, statement, certain, tool, prompt, existing)


def _triple_calls(
    triple: Triple, statement: str, tool: Tool, prompt: Prompt, existing: list[_Memory]
) -> Iterator[Call]:
    for memory in existing:
        known = [str(memory.content.get(part, "")).casefold() for part in ("subject", "predicate", "object")]
        if known[:2] == [triple.subject.casefold(), triple.predicate.casefold()]:
            if known[2] == triple.object.casefold():
                return
            if triple.functional and (patch := _patch(prompt, memory, "object", triple.object)):
                yield patch
                return
    if _says_the_same(existing, statement):
        return
    wanted: dict[str, object] = {
        "subject": triple.subject,
        "predicate": triple.predicate,
        "object": triple.object,
        "context": as_sentence(statement),
        "exclusive": "yes" if triple.functional else "no",
    }
    yield from _fitted(tool, wanted, statement, existing)


def _fact_calls(
    name: str, statement: str, certain: bool, tool: Tool, prompt: Prompt, existing: list[_Memory]
) -> Iterator[Call]:
    if _says_the_same(existing, statement):
        return
    for memory in existing:
        known = memory.content.get(name)
        if not isinstance(known, str):
            continue
        if same_subject(known, statement) and (patch := _patch(prompt, memory, name, as_sentence(statement))):
            yield patch
            return
    wanted: dict[str, object] = {name: as_sentence(statement), "confidence": 0.95 if certain else 0.8}
    yield from _fitted(tool, wanted, statement, existing)


def _is_relation(tool: Tool) -> bool:
    return {"subject", "predicate", "object"} <= tool.properties.keys()


def _says_the_same(existing: list[_Memory], statement: str) -> bool:
    """Is this very statement among the known ones? Triples are compared part by part, elsewhere."""
    texts = (memory.content.get(name) for memory in existing for name in _TEXT_FIELDS)
    return any(stems(text) == stems(statement) for text in texts if isinstance(text, str))


def _fitted(tool: Tool, wanted: dict[str, object], statement: str, existing: list[_Memory]) -> Iterator[Call]:
    replaced = [memory.id for memory in existing if same_subject(memory.text, statement)]
    wanted = wanted | {
        "about": "person" if has(r"^(?:i|my|me)\b", statement) else "organisation",
        "replaces": ", ".join(replaced),
    }
    quoted = {name: statement for name in ("quote", "source", "evidence") if name in tool.properties}
    kind = {"kind": "policy" if has(r"\b(?:never|always|must|only|not)\b", statement) else "fact"}
    fitted = fit(tool, quoted | kind | {"category": kind["kind"]} | wanted)
    if not isinstance(fitted, Missing):
        yield Call(tool.name, fitted)


def _patch(prompt: Prompt, memory: _Memory, field: str, value: str) -> Call | None:
    if prompt.tool("PatchDoc") is None:
        return None
    edit = {"op": "replace", "path": f"/{field}", "value": value}
    plan = f"Replace {field} by {value!r}, which the user stated later."
    return Call("PatchDoc", {"json_doc_id": memory.id, "planned_edits": plan, "patches": [edit]})


def _removals(prompt: Prompt, existing: list[_Memory]) -> Iterator[Call]:
    if prompt.tool("RemoveDoc") is None:
        return
    for sentence in _user_sentences(prompt):
        if asked := _FORGET.match(POLITE.sub("", sentence).strip()):
            texts = [memory.text for memory in existing]
            for text in relevant(asked.group(1), texts):
                yield Call("RemoveDoc", {"json_doc_id": existing[texts.index(text)].id})

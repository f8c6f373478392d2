"""What a model is asked and what it answers, free of either API's wire format."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

JsonObject = dict[str, Any]


class Speaker(StrEnum):
    """Who said something. Instructions are kept apart, in ``Prompt.instructions``."""

    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class Said:
    """A message."""

    speaker: Speaker
    text: str


@dataclass(frozen=True, slots=True)
class Called:
    """A tool call the model made earlier."""

    call_id: str
    name: str
    arguments: JsonObject


@dataclass(frozen=True, slots=True)
class Returned:
    """What a tool answered to a call."""

    call_id: str
    text: str


Item = Said | Called | Returned


@dataclass(frozen=True, slots=True)
class Tool:
    """A function on offer; ``parameters`` is its JSON schema."""

    name: str
    description: str
    parameters: JsonObject

    @property
    def properties(self) -> JsonObject:
        """The schema of each argument, by name."""
        found = self.parameters.get("properties")
        return found if isinstance(found, dict) else {}


class Choice(StrEnum):
    """Whether tools may, must or must not be called."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request for an answer.

    Attributes:
        required_tool: the one tool that must be called, when the request names one.
        parallel: several calls may be answered at once.
        schema: JSON schema the text of the answer has to satisfy, if any.
    """

    instructions: str
    items: tuple[Item, ...]
    tools: tuple[Tool, ...] = ()
    choice: Choice = Choice.AUTO
    required_tool: str | None = None
    parallel: bool = True
    schema: JsonObject | None = None

    def tool(self, name: str) -> Tool | None:
        """The tool on offer under this name."""
        return next((tool for tool in self.tools if tool.name == name), None)

    def user_texts(self) -> tuple[str, ...]:
        """Everything the user said, oldest first."""
        return tuple(item.text for item in self.items if isinstance(item, Said) and item.speaker is Speaker.USER)

    def turn(self) -> tuple[Item, ...]:
        """What happened since the user last spoke."""
        for index in range(len(self.items) - 1, -1, -1):
            item = self.items[index]
            if isinstance(item, Said) and item.speaker is Speaker.USER:
                return self.items[index + 1 :]
        return self.items

    def digest(self) -> str:
        """A name for this request: the same prompt has the same one."""
        return hashlib.sha256(repr(self).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call to make now."""

    name: str
    arguments: JsonObject

    def arguments_json(self) -> str:
        """The arguments as they travel."""
        return json.dumps(self.arguments, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """Either text or tool calls."""

    text: str = ""
    calls: tuple[Call, ...] = ()


def pieces(text: str, words: int = 3) -> list[str]:
    """``text`` cut into runs of a few words, as a stream delivers it; joined they are the text again."""
    cuts: list[str] = []
    current, spaces = "", 0
    for character in text:
        if character == " ":
            spaces += 1
            if spaces == words:
                cuts.append(current)
                current, spaces = "", 0
        current += character
    return [*cuts, current] if current else cuts


def count_tokens(text: str) -> int:
    """Tokens in ``text``: a declared approximation of four bytes of UTF-8 each, at least one for any text."""
    return -(-len(text.encode()) // 4)


def prompt_tokens(prompt: Prompt) -> int:
    """Tokens the request is charged for: instructions, conversation, tools and schema."""
    parts = [prompt.instructions, json.dumps(prompt.schema) if prompt.schema else ""]
    for item in prompt.items:
        match item:
            case Called():
                parts += [item.name, json.dumps(item.arguments)]
            case Said() | Returned():
                parts.append(item.text)
    parts += [tool.name + tool.description + json.dumps(tool.parameters) for tool in prompt.tools]
    return sum(count_tokens(part) for part in parts)


def answer_tokens(answer: Answer) -> int:
    """Tokens of the answer, by the same approximation."""
    return count_tokens(answer.text) + sum(count_tokens(c.name + c.arguments_json()) for c in answer.calls)

"""What the user wants, in terms of tools: read by ``intents``, reached by ``engine``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from core.models.offline.prompt import Prompt, Said, Speaker

ATTACHMENT = re.compile(r"\[attachment:\s*([^\]\n]+?)\s*\]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Lookup:
    """An id the user did not say: it is found in the answer of another tool.

    Attributes:
        tool, arguments: the call that lists the candidates.
        keys: fields of a candidate that may hold its id, in order of preference.
        about: words the candidate has to share; empty when the only candidate is meant.
        noun: what to call the thing when none is found.
    """

    tool: str
    arguments: Mapping[str, object]
    keys: tuple[str, ...]
    about: str
    noun: str


@dataclass(frozen=True, slots=True)
class Goal:
    """One tool call the user asked for."""

    tool: str
    arguments: Mapping[str, object | Lookup] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """Something that is answered without a tool; a courtesy is dropped when there is anything else to do."""

    text: str
    courtesy: bool = False


Wish = Goal | Reply


@dataclass(frozen=True, slots=True)
class Scene:
    """What a recogniser may look at besides the sentence itself.

    Attributes:
        attachments: files of the user's last message that has any, newest message first.
        fresh: they came with the message being answered.
        previous: what the assistant said last, before this message.
    """

    prompt: Prompt
    attachments: tuple[str, ...]
    fresh: bool
    previous: str


def scene_of(prompt: Prompt) -> Scene:
    """Look at the conversation once."""
    users = prompt.user_texts()
    with_files = [(index, ATTACHMENT.findall(text)) for index, text in enumerate(users)]
    latest, names = next((pair for pair in reversed(with_files) if pair[1]), (-1, list[str]()))
    asked = [i for i, item in enumerate(prompt.items) if isinstance(item, Said) and item.speaker is Speaker.USER]
    before = prompt.items[: asked[-1]] if asked else ()
    said = [item.text for item in before if isinstance(item, Said) and item.speaker is Speaker.ASSISTANT]
    return Scene(
        prompt=prompt,
        attachments=tuple(dict.fromkeys(names)),
        fresh=latest == len(users) - 1,
        previous=said[-1] if said else "",
    )


def memories_in(instructions: str) -> list[str]:
    """Statements listed in the instructions under the heading ``Memories:``."""
    found: list[str] = []
    inside = False
    for line in instructions.splitlines():
        stripped = line.strip().strip("#* ").strip()
        if stripped.lower() == "memories:" or stripped.lower() == "memories":
            inside = True
        elif inside and line.lstrip().startswith(("-", "*", "•")):
            found.append(line.strip().lstrip("-*• ").strip())
        elif inside and stripped:
            inside = False
    return found

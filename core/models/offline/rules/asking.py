"""Intents without a fixed tool: memory questions, small talk, plain statements, and tools known by name only."""

from __future__ import annotations

import re

from core.models.offline.prompt import Tool
from core.models.offline.rules.arguments import Missing, fit
from core.models.offline.rules.goals import Goal, Reply, Scene, Wish, memories_in
from core.models.offline.rules.statements import is_statement
from core.models.offline.rules.words import as_sentence, has, is_question, relevant, starts

WHO_I_AM = "I am the offline model: I answer from fixed rules, not from a language model."
_ABILITIES = {
    "start_loan_runs": "start loan-approval runs from an attached CSV file (“process the first 20”)",
    "runs_progress": "say how far the runs are",
    "summarise_declined": "summarise what was declined and why",
    "list_reviews": "list what waits for review",
    "decide_review": "approve or decline a review",
    "remember": "remember statements (“remember that we never approve below 620”) and answer from them",
    "create_schedule": "schedule work (“every weekday at 09:00 re-check pending applications”)",
    "list_schedules": "list schedules",
    "cancel_run": "cancel a run",
    "choose_runs": "pause, resume, retry or cancel many runs (“retry the failed ones”)",
}
# Tools with an intent of their own are never called merely because their name is mentioned.
_OWN_INTENT = frozenset(
    {*_ABILITIES, "recall", "forget", "get_run", "list_runs", "pause_schedule", "resume_schedule", "delete_schedule"}
    | {"pause_run", "resume_run", "retry_run", "act_on_chosen_runs"}
)


def abilities(scene: Scene) -> str:
    """Who answers, and what the tools on offer allow."""
    able = [text for name, text in _ABILITIES.items() if scene.prompt.tool(name)]
    others = [tool.name for tool in scene.prompt.tools if tool.name not in _OWN_INTENT]
    if others:
        able.append(f"use {', '.join(others)} when you name it")
    if not able:
        return f"{WHO_I_AM} No tools are on offer here, so there is little I can do."
    return f"{WHO_I_AM} I can:\n" + "\n".join(f"- {text}" for text in able)


def small_talk(text: str, scene: Scene) -> Wish | None:
    """Greetings, thanks, and who are you."""
    bare = text.lower().strip(" .!?,")
    if re.fullmatch(r"(?:many )?(?:thanks|thank you|thx|cheers)(?: .*)?|great|perfect|nice|good|ok|okay|cool", bare):
        return Reply("You are welcome.", courtesy=True)
    if re.fullmatch(r"(?:hi|hello|hey|good (?:morning|afternoon|evening)|greetings)(?: .{0,20})?|help(?: me)?", bare):
        return Reply(abilities(scene), courtesy=True)
    asks = r"\bwho are you\b|\bwhat are you\b|\bwhat can (?:you|i)\b|\bhow do(?:es)? (?:this|you) work\b|\bare you \w+"
    return Reply(abilities(scene)) if has(asks, bare) else None


def from_memory(text: str, scene: Scene) -> Wish | None:
    """Any other question: from the memories already in the instructions, or by asking the memory."""
    recalls = starts(r"(?:recall|remind me)\b", text)
    if not (is_question(text) or recalls):
        return None
    if known := relevant(text, memories_in(scene.prompt.instructions)):
        return Reply("From what I remember: " + " ".join(as_sentence(one) for one in known))
    if scene.prompt.tool("recall"):
        return Goal("recall", {"query": text})
    return Reply(f"I know nothing about that. {WHO_I_AM}")


def statement(text: str, scene: Scene) -> Wish | None:
    """A plain statement is acknowledged ; the rest is not understood."""
    if is_statement(text):
        return Reply(f"Understood: {as_sentence(text)}", courtesy=True)
    return Reply(f"I did not understand that. {abilities(scene)}", courtesy=True)


def named_tool(text: str, scene: Scene) -> Wish | None:
    """A tool without an intent of its own, when every word of its name is said."""
    spoken = set(re.findall(r"[a-z0-9]+", text.lower()))
    for tool in scene.prompt.tools:
        words = set(re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", tool.name).lower()))
        if tool.name in _OWN_INTENT or not words - {"get", "to", "the", "transfer"}:
            continue
        if words - {"get", "to", "the", "transfer"} <= spoken:
            wanted = arguments_from(text, tool)
            missing = fit(tool, wanted)
            if isinstance(missing, Missing):
                return Reply(
                    f"For {tool.name} I need {missing.name.replace('_', ' ')}. Please say it as {missing.name}: …"
                )
            return Goal(tool.name, wanted)
    return None


def arguments_from(text: str, tool: Tool) -> dict[str, object]:
    """Values said as ``name: value``, then quoted texts and numbers, in the order of the schema."""
    found: dict[str, object] = {}
    quoted = re.findall(r"[\"“']([^\"”']+)[\"”']", text)
    numbers = re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.]*[A-Za-z])", text)
    for name, schema in tool.properties.items():
        label = re.escape(name).replace("_", "[ _]")
        kinds = str(schema.get("type", schema.get("anyOf", ""))) if isinstance(schema, dict) else ""
        if named := has(rf"\b{label}\b\s*(?:[:=]|is|of)?\s*[\"“']?([^\s,;\"”']+)", text):
            found[name] = named.group(1).rstrip(".?!")
        elif ("integer" in kinds or "number" in kinds) and numbers:
            found[name] = numbers.pop(0)
        elif "string" in kinds and quoted:
            found[name] = quoted.pop(0)
        elif "string" in kinds and (
            place := re.search(r"\b(?:in|for|of|about)\s+([A-Z][\w-]*(?: [A-Z][\w-]*)*)", text)
        ):
            found[name] = place.group(1)
        elif name == "query":
            found[name] = text
    return found

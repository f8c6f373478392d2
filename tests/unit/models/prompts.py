"""Prompts as the chat agent makes them, for the tests of the rules."""

from __future__ import annotations

import json
from typing import Any

from core.models.offline.prompt import (
    Answer,
    Call,
    Called,
    Item,
    JsonObject,
    Prompt,
    Returned,
    Said,
    Speaker,
    Tool,
)
from core.models.offline.rules.engine import answer

TEXT: JsonObject = {"type": "string"}
TEXT_OR_NULL: JsonObject = {"anyOf": [{"type": "string"}, {"type": "null"}]}
NUMBER_OR_NULL: JsonObject = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
VERDICT: JsonObject = {"type": "string", "enum": ["approve", "decline"]}


def tool(name: str, description: str = "", /, **properties: JsonObject) -> Tool:
    """A function on offer, with all arguments required, as a strict schema lists them."""
    return Tool(name, description, {"type": "object", "properties": properties, "required": list(properties)})


CHAT_TOOLS = (
    tool("start_loan_runs", attachment=TEXT, limit=NUMBER_OR_NULL),
    tool("list_runs", status=TEXT_OR_NULL, limit={"type": "integer", "default": 20}),
    tool("get_run", run_id=TEXT),
    tool("runs_progress"),
    tool("summarise_declined"),
    tool("remember", statement=TEXT),
    tool("recall", query=TEXT),
    tool("forget", memory_id=TEXT),
    tool(
        "create_schedule",
        "Workflows: loan-approval, loan-recheck.",
        name=TEXT,
        workflow=TEXT,
        cron=TEXT,
        timezone=TEXT,
        input=TEXT,
    ),
    tool("list_schedules"),
    tool("pause_schedule", schedule_id=TEXT),
    tool("list_reviews"),
    tool("decide_review", review_id=TEXT, verdict=VERDICT, comment=TEXT_OR_NULL),
    tool("cancel_run", run_id=TEXT),
    tool("pause_run", run_id=TEXT),
    tool("choose_runs", act=TEXT, status=TEXT_OR_NULL, everywhere={"type": "boolean"}),
    tool("act_on_chosen_runs", bulk_id=TEXT),
)


def prompt(*items: Item | str, instructions: str = "", tools: tuple[Tool, ...] = CHAT_TOOLS, **more: Any) -> Prompt:
    """A prompt; plain strings are what the user said."""
    spoken = tuple(Said(Speaker.USER, item) if isinstance(item, str) else item for item in items)
    return Prompt(instructions, spoken, tools, **more)


def ask(*items: Item | str, **more: Any) -> Answer:
    """The rules' answer to a conversation."""
    return answer(prompt(*items, **more))


def converse(said: str, results: dict[str, Any], **more: Any) -> tuple[list[Call], str]:
    """Let the model work until it answers in text; ``results`` are what the tools return, by name."""
    items: list[Item | str] = [said]
    made: list[Call] = []
    for round_number in range(6):
        given = ask(*items, **more)
        if not given.calls:
            return made, given.text
        for index, call in enumerate(given.calls):
            call_id = f"call_{round_number}_{index}"
            made.append(call)
            result = results[call.name]
            items.append(Called(call_id, call.name, call.arguments))
            items.append(Returned(call_id, result if isinstance(result, str) else json.dumps(result)))
    raise AssertionError(f"no end after {made}")

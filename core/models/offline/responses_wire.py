"""The Responses API: ``POST /v1/responses`` to a prompt, an answer back to its wire form.

The server keeps nothing between requests, so ``previous_response_id`` and ``conversation`` are refused
rather than silently ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from core.models.offline.prompt import (
    Answer,
    Called,
    Item,
    JsonObject,
    Prompt,
    Returned,
    Said,
    Speaker,
    answer_tokens,
    pieces,
    prompt_tokens,
)
from core.models.offline.wire import (
    FINGERPRINT,
    RequestError,
    Stamp,
    arguments_from,
    choice_from,
    event,
    field,
    text_of,
    tool_from,
)


def parse(body: Mapping[str, Any]) -> Prompt:
    """The prompt in a request; unknown fields and item types are ignored. Raises ``RequestError``."""
    for name in ("previous_response_id", "conversation"):
        if body.get(name) is not None:
            raise RequestError(f"{name!r} needs a server with memory; send the whole input.", param=name)
    given = field(body, "input", (str, list))
    if not given:
        raise RequestError("'input' must not be empty.", param="input")
    instructions = [str(field(body, "instructions", str) or "")]
    items: list[Item] = []
    for index, item in enumerate([{"role": "user", "content": given}] if isinstance(given, str) else given):
        if not isinstance(item, dict):
            raise RequestError("An input item must be an object.", param=f"input[{index}]")
        _read(item, f"input[{index}]", instructions, items)
    choice, named = choice_from(body.get("tool_choice"))
    return Prompt(
        instructions="\n\n".join(part for part in instructions if part),
        items=tuple(items),
        tools=tuple(
            tool_from(tool, "tools")
            for tool in field(body, "tools", list) or ()
            if isinstance(tool, dict) and tool.get("type") == "function"
        ),
        choice=choice,
        required_tool=named,
        parallel=field(body, "parallel_tool_calls", bool) is not False,
        schema=_schema((field(body, "text", dict) or {}).get("format")),
    )


def _read(item: JsonObject, param: str, instructions: list[str], items: list[Item]) -> None:
    match item.get("type", "message"):
        case "message":
            text = text_of(item.get("content"), f"{param}.content")
            match item.get("role"):
                case "system" | "developer":
                    instructions.append(text)
                case "user":
                    items.append(Said(Speaker.USER, text))
                case "assistant":
                    items.append(Said(Speaker.ASSISTANT, text))
                case role:
                    raise RequestError(f"The role {role!r} is unknown.", param=f"{param}.role")
        case "function_call":
            arguments = arguments_from(item.get("arguments"))
            items.append(Called(str(item.get("call_id")), str(item.get("name")), arguments))
        case "function_call_output":
            items.append(Returned(str(item.get("call_id")), text_of(item.get("output"), f"{param}.output")))


def _schema(text_format: Any) -> JsonObject | None:
    if not isinstance(text_format, dict):
        return None
    if text_format.get("type") == "json_object":
        return {"type": "object"}
    schema = text_format.get("schema")
    return schema if isinstance(schema, dict) else None


def response(answer: Answer, prompt: Prompt, stamp: Stamp) -> JsonObject:
    """The whole answer at once."""
    return _response(stamp, prompt, "completed", _output(answer, stamp), _usage(answer, prompt))


def events(answer: Answer, prompt: Prompt, stamp: Stamp) -> Iterator[bytes]:
    """The answer as the API's typed server-sent events."""
    for number, data in enumerate(_events(answer, prompt, stamp)):
        yield event({**data, "sequence_number": number}, data["type"])


def _events(answer: Answer, prompt: Prompt, stamp: Stamp) -> Iterator[JsonObject]:
    started = _response(stamp, prompt, "in_progress", [], None)
    yield {"type": "response.created", "response": started}
    yield {"type": "response.in_progress", "response": started}
    output = _output(answer, stamp)
    for index, item in enumerate(output):
        if item["type"] == "message":
            yield from _message_events(item, index, answer.text)
        else:
            yield from _call_events(item, index)
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    done = _response(stamp, prompt, "completed", output, _usage(answer, prompt))
    yield {"type": "response.completed", "response": done}


def _message_events(item: JsonObject, index: int, text: str) -> Iterator[JsonObject]:
    place = {"item_id": item["id"], "output_index": index, "content_index": 0}
    opened = {**item, "status": "in_progress", "content": []}
    yield {"type": "response.output_item.added", "output_index": index, "item": opened}
    yield {"type": "response.content_part.added", **place, "part": _text_part("")}
    for piece in pieces(text):
        yield {"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []}
    yield {"type": "response.output_text.done", **place, "text": text, "logprobs": []}
    yield {"type": "response.content_part.done", **place, "part": _text_part(text)}


def _call_events(item: JsonObject, index: int) -> Iterator[JsonObject]:
    place = {"item_id": item["id"], "output_index": index}
    opened = {**item, "status": "in_progress", "arguments": ""}
    yield {"type": "response.output_item.added", "output_index": index, "item": opened}
    for piece in pieces(item["arguments"]):
        yield {"type": "response.function_call_arguments.delta", **place, "delta": piece}
    yield {
        "type": "response.function_call_arguments.done",
        **place,
        "name": item["name"],
        "arguments": item["arguments"],
    }


def _text_part(text: str) -> JsonObject:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _output(answer: Answer, stamp: Stamp) -> list[JsonObject]:
    output: list[JsonObject] = []
    if answer.text or not answer.calls:
        message = {"id": f"msg_{stamp.key[:24]}", "type": "message", "role": "assistant", "status": "completed"}
        output.append({**message, "content": [_text_part(answer.text)]})
    for index, call in enumerate(answer.calls):
        output.append(
            {
                "id": f"fc_{stamp.key[:20]}{index}",
                "type": "function_call",
                "status": "completed",
                "call_id": f"call_{stamp.key[:20]}{index}",
                "name": call.name,
                "arguments": call.arguments_json(),
            }
        )
    return output


def _response(
    stamp: Stamp, prompt: Prompt, status: str, output: list[JsonObject], usage: JsonObject | None
) -> JsonObject:
    tools = [{"type": "function", "name": t.name, "parameters": t.parameters, "strict": False} for t in prompt.tools]
    return {
        "id": f"resp_{stamp.key[:24]}",
        "object": "response",
        "created_at": stamp.created_s,
        "status": status,
        "model": stamp.model,
        "system_fingerprint": FINGERPRINT,
        "output": output,
        "usage": usage,
        "error": None,
        "incomplete_details": None,
        "instructions": prompt.instructions or None,
        "metadata": {},
        "parallel_tool_calls": prompt.parallel,
        "temperature": None,
        "tool_choice": str(prompt.choice),
        "tools": tools,
        "top_p": None,
    }


def _usage(answer: Answer, prompt: Prompt) -> JsonObject:
    asked, answered = prompt_tokens(prompt), answer_tokens(answer)
    return {
        "input_tokens": asked,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": answered,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": asked + answered,
    }

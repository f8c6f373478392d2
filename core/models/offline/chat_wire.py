"""The Chat Completions API: ``POST /v1/chat/completions`` to a prompt, an answer back to its wire form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    """The prompt in a request; unknown fields are ignored. Raises ``RequestError``."""
    messages = field(body, "messages", list)
    if not messages:
        raise RequestError("'messages' must not be empty.", param="messages")
    instructions: list[str] = []
    items: list[Item] = []
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise RequestError("A message must be an object.", param=f"messages[{index}]")
        _read(message, f"messages[{index}]", instructions, items)
    choice, named = choice_from(body.get("tool_choice"))
    return Prompt(
        instructions="\n\n".join(instructions),
        items=tuple(items),
        tools=tuple(
            tool_from(tool["function"], "tools")
            for tool in field(body, "tools", list) or ()
            if isinstance(tool, dict) and isinstance(tool.get("function"), dict)
        ),
        choice=choice,
        required_tool=named,
        parallel=field(body, "parallel_tool_calls", bool) is not False,
        schema=_schema(field(body, "response_format", dict) or {}),
    )


def _read(message: JsonObject, param: str, instructions: list[str], items: list[Item]) -> None:
    text = text_of(message.get("content"), f"{param}.content")
    match message.get("role"):
        case "system" | "developer":
            instructions.append(text)
        case "user":
            items.append(Said(Speaker.USER, text))
        case "assistant":
            if text:
                items.append(Said(Speaker.ASSISTANT, text))
            for call in field(message, "tool_calls", list) or ():
                function = call.get("function") if isinstance(call, dict) else None
                if not isinstance(function, dict):
                    raise RequestError("A tool call needs a function.", param=f"{param}.tool_calls")
                arguments = arguments_from(function.get("arguments"))
                items.append(Called(str(call.get("id")), str(function.get("name")), arguments))
        case "tool":
            items.append(Returned(str(message.get("tool_call_id")), text))
        case role:
            raise RequestError(f"The role {role!r} is unknown.", param=f"{param}.role")


def _schema(response_format: Mapping[str, Any]) -> JsonObject | None:
    if response_format.get("type") == "json_object":
        return {"type": "object"}
    named = response_format.get("json_schema")
    schema = named.get("schema") if isinstance(named, dict) else None
    return schema if isinstance(schema, dict) else None


def completion(answer: Answer, prompt: Prompt, stamp: Stamp) -> JsonObject:
    """The whole answer at once."""
    message: JsonObject = {"role": "assistant", "content": answer.text or None, "refusal": None}
    if answer.calls:
        message["tool_calls"] = [_tool_call(call, index, stamp) for index, call in enumerate(answer.calls)]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(answer)}
    return {**_head("chat.completion", stamp), "choices": [choice], "usage": _usage(answer, prompt)}


def chunks(answer: Answer, prompt: Prompt, stamp: Stamp, *, include_usage: bool) -> Iterator[bytes]:
    """The answer as server-sent events, ending with ``[DONE]``."""

    def chunk(delta: JsonObject, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        usage = {"usage": None} if include_usage else {}
        return event({**_head("chat.completion.chunk", stamp), "choices": [choice], **usage})

    yield chunk({"role": "assistant", "content": "" if answer.text else None})
    for piece in pieces(answer.text):
        yield chunk({"content": piece})
    for index, call in enumerate(answer.calls):
        whole = _tool_call(call, index, stamp)
        yield chunk({"tool_calls": [{"index": index, **whole, "function": {"name": call.name, "arguments": ""}}]})
        for piece in pieces(call.arguments_json()):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield chunk({}, _finish(answer))
    if include_usage:
        yield event({**_head("chat.completion.chunk", stamp), "choices": [], "usage": _usage(answer, prompt)})
    yield event("[DONE]")


def _head(kind: str, stamp: Stamp) -> JsonObject:
    return {
        "id": f"chatcmpl-{stamp.key[:24]}",
        "object": kind,
        "created": stamp.created_s,
        "model": stamp.model,
        "system_fingerprint": FINGERPRINT,
    }


def _tool_call(call: Call, index: int, stamp: Stamp) -> JsonObject:
    function = {"name": call.name, "arguments": call.arguments_json()}
    return {"id": f"call_{stamp.key[:20]}{index}", "type": "function", "function": function}


def _finish(answer: Answer) -> str:
    return "tool_calls" if answer.calls else "stop"


def _usage(answer: Answer, prompt: Prompt) -> JsonObject:
    asked, answered = prompt_tokens(prompt), answer_tokens(answer)
    return {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}

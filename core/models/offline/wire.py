"""What both APIs have in common on the wire: reading requests, errors, server-sent events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.models.offline.prompt import Choice, JsonObject, Tool

FINGERPRINT = "offline-1"
"""Version of the rules, reported with every answer; changes whenever answers may change."""


class RequestError(Exception):
    """The request cannot be served; told to the client in OpenAI's error form.

    Attributes:
        status: HTTP status.
        code: machine-readable name.
        param: the field at fault, if one is.
    """

    def __init__(self, message: str, *, status: int = 400, code: str = "invalid_request", param: str | None = None):
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.param = param

    def body(self) -> JsonObject:
        """The error as JSON."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True, slots=True)
class Stamp:
    """What an answer carries besides its content.

    Attributes:
        model: the model's name as asked for.
        key: names this answer; ids are derived from it.
        created_s: seconds since 1970.
    """

    model: str
    key: str
    created_s: int


def field(body: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    """An optional field of the request, ``None`` when absent; of another type it is an error."""
    value = body.get(name)
    if value is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
        raise RequestError(f"{name!r} has the wrong type.", param=name)
    return value


def model_of(body: Mapping[str, Any]) -> str:
    """The model asked for."""
    model = field(body, "model", str)
    if not model:
        raise RequestError("'model' is required.", param="model")
    return str(model)


def text_of(content: Any, param: str) -> str:
    """The text of a message's content: a string, or parts of which those without text are left out."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise RequestError(f"{param!r} must be text or a list of parts.", param=param)
    texts = [part if isinstance(part, str) else part.get("text") for part in content if isinstance(part, str | dict)]
    return "\n".join(text for text in texts if isinstance(text, str))


def tool_from(function: Mapping[str, Any], param: str) -> Tool:
    """A function on offer, from its name, description and parameters."""
    name, parameters = function.get("name"), function.get("parameters") or {}
    if not isinstance(name, str) or not name or not isinstance(parameters, dict):
        raise RequestError("A function tool needs a name and an object of parameters.", param=param)
    return Tool(name, str(function.get("description") or ""), parameters)


def choice_from(value: Any) -> tuple[Choice, str | None]:
    """Whether a tool must be called, and which; both APIs' spellings of a named tool are understood."""
    if value is None:
        return Choice.AUTO, None
    if isinstance(value, dict):
        named = value.get("name") or (value.get("function") or {}).get("name")
        return Choice.REQUIRED, named if isinstance(named, str) else None
    try:
        return Choice(value), None
    except ValueError as unknown:
        raise RequestError(f"'tool_choice' {value!r} is unknown.", param="tool_choice") from unknown


def arguments_from(text: Any) -> JsonObject:
    """A tool call's arguments as they were sent back; anything but a JSON object counts as none."""
    try:
        parsed = json.loads(text) if isinstance(text, str) else text
    except json.JSONDecodeError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def event(data: JsonObject | str, name: str | None = None) -> bytes:
    """One server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()

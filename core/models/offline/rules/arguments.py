"""Fits what was understood to the JSON schema of the tool on offer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.models.offline.prompt import JsonObject, Tool
from core.models.offline.rules.words import stems


@dataclass(frozen=True, slots=True)
class Missing:
    """A required argument nothing is known about."""

    name: str


def variants(schema: Any) -> list[JsonObject]:
    """The alternatives of a schema: itself, or the members of its anyOf / oneOf / type list."""
    if not isinstance(schema, dict):
        return []
    members = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(members, list):
        return [variant for member in members for variant in variants(member)]
    if isinstance(schema.get("type"), list):
        return [{**schema, "type": name} for name in schema["type"]]
    return [schema]


def enumeration(schema: Any) -> list[str]:
    """The texts a schema allows, if it lists them."""
    return [value for one in variants(schema) for value in one.get("enum", []) if isinstance(value, str)]


def fit(tool: Tool, wanted: Mapping[str, object]) -> JsonObject | Missing:
    """Arguments for a call: those the tool knows, in its types, with defaults or null for the rest."""
    fitted: JsonObject = {}
    required = tool.parameters.get("required", [])
    for name, schema in tool.properties.items():
        value = wanted.get(name)
        if value is not None:
            value = coerce(value, schema)
        if value is not None:
            fitted[name] = value
        elif name in required:
            if not (isinstance(schema, dict) and "default" in schema) and not _nullable(schema):
                empty = _empty(name, schema)
                if empty is None:
                    return Missing(name)
                fitted[name] = empty
            else:
                fitted[name] = schema.get("default")
    return fitted


def coerce(value: object, schema: Any) -> object:
    """``value`` as the first type of ``schema`` that can hold it; ``None`` if none can."""
    for one in variants(schema):
        converted = _as_type(value, one)
        if converted is not None:
            return converted
    return None


def _as_type(value: object, schema: JsonObject) -> object:
    if allowed := schema.get("enum"):
        return closest(str(value), [text for text in allowed if isinstance(text, str)])
    kind = schema.get("type")
    if kind == "string":
        return value if isinstance(value, str) else json.dumps(value)
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    if kind in ("integer", "number"):
        return _as_number(value, whole=kind == "integer")
    if kind == "array":
        return value if isinstance(value, list) else None
    if kind == "object":
        return value if isinstance(value, dict) else None
    return value if kind is None else None


def _as_number(value: object, *, whole: bool) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        parsed = float(str(value).replace(",", "").strip())
    except ValueError:
        return None
    if whole:
        return int(parsed) if parsed.is_integer() else None
    return parsed


def closest(text: str, allowed: list[str]) -> str | None:
    """The allowed value that equals ``text``, or shares a stem with it."""
    for value in allowed:
        if value.casefold() == text.casefold():
            return value
    wanted = stems(text)
    return next((value for value in allowed if wanted & stems(re.sub(r"[_-]", " ", value))), None)


def _nullable(schema: Any) -> bool:
    return any(one.get("type") == "null" for one in variants(schema))


def _empty(name: str, schema: Any) -> object:
    """A harmless value for arguments that only narrow or decorate a call."""
    kinds = {one.get("type") for one in variants(schema)}
    if name in ("input", "inputs", "payload", "parameters"):
        return {} if "object" in kinds else "{}" if "string" in kinds else None
    if name in ("limit", "count", "top_k") and kinds & {"integer", "number"}:
        return 20
    if name in ("comment", "reason", "note") and "string" in kinds:
        return ""
    return None

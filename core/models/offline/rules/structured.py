"""Answers that must satisfy a JSON schema: values come from the input's fields of the same name.

Where the input says nothing, the smallest value of the right type is given, and a ``confidence`` without
a source is low, so that a workflow treats the answer as uncertain.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from core.models.offline.prompt import JsonObject, Prompt
from core.models.offline.rules import compliance
from core.models.offline.rules.arguments import closest, coerce, variants

_LOW_CONFIDENCE = 0.4
_MAX_DEPTH = 12


def json_in(text: str) -> JsonObject | None:
    """The first JSON object in ``text``."""
    decoder = json.JSONDecoder()
    for start in (found.start() for found in re.finditer(r"\{", text)):
        try:
            value, _ = decoder.raw_decode(text, start)
        except (json.JSONDecodeError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    return None


def fill(prompt: Prompt) -> Any:
    """The answer to ``prompt`` in the shape of its schema."""
    schema = prompt.schema or {}
    text = prompt.user_texts()[-1] if prompt.user_texts() else ""
    properties = _resolve(schema, schema).get("properties", {})
    data = json_in(text)
    if data is not None and {"outcome", "confidence", "reasons"} <= properties.keys():
        finding = compliance.assess(data, prompt.instructions)
        return _as_finding(finding, schema, properties, text)
    return value_for(schema, text)


def _as_finding(finding: compliance.Finding, schema: JsonObject, properties: JsonObject, text: str) -> Any:
    outcome = _resolve(properties["outcome"], schema)
    allowed = [value for one in variants(outcome) for value in one.get("enum", []) if isinstance(value, str)]
    chosen = finding.outcome
    if allowed:
        chosen = next((found for word in finding.words() if (found := closest(word, allowed))), allowed[0])
    filled = value_for(schema, text)
    filled |= {"outcome": chosen, "confidence": finding.confidence, "reasons": list(finding.reasons)}
    return filled


def value_for(schema: JsonObject, text: str) -> Any:
    """A value that satisfies ``schema``, drawn from ``text`` (JSON, or lines like ``Name: value``)."""
    return _value(schema, schema, _fields(text), "", 0)


def _fields(text: str) -> dict[str, Any]:
    """Every named value in the text, by its plain name; outer ones win."""
    found: dict[str, Any] = {}
    data = json_in(text)
    if data is not None:
        level: list[Any] = [data]
        while level:
            for node in level:
                if isinstance(node, Mapping):
                    for key, value in node.items():
                        found.setdefault(_plain(str(key)), value)
            children = [child for node in level for child in (node.values() if isinstance(node, Mapping) else node)]
            level = [child for child in children if isinstance(child, Mapping | list)]
        return found
    for line in re.finditer(r"^[ \t>*-]*([A-Za-z][\w /-]{1,40}?)\s*[:=]\s*(\S.*?)\s*$", text, re.MULTILINE):
        found.setdefault(_plain(line.group(1)), line.group(2))
    return found


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _resolve(schema: Any, root: JsonObject) -> JsonObject:
    for _ in range(_MAX_DEPTH):
        reference = schema.get("$ref") if isinstance(schema, dict) else None
        if not isinstance(reference, str) or not reference.startswith("#/"):
            break
        schema = root
        for part in reference[2:].split("/"):
            schema = schema.get(part, {}) if isinstance(schema, dict) else {}
    return schema if isinstance(schema, dict) else {}


def _value(schema: Any, root: JsonObject, fields: Mapping[str, Any], name: str, depth: int) -> Any:
    schema = _resolve(schema, root)
    if "const" in schema:
        return schema["const"]
    given = fields.get(_plain(name)) if name else None
    options = [_resolve(one, root) for one in variants(schema)]
    for one in options:
        if given is not None and one.get("type") not in ("object", "array", "null"):
            converted = coerce(given, one)
            if converted is not None and _within(converted, one):
                return converted
    chosen = next((one for one in options if one.get("type") == "null"), options[0] if options else {})
    if given is not None:
        chosen = next((one for one in options if one.get("type") in ("object", "array")), chosen)
    return _empty(chosen, root, fields, given, name, depth)


def _empty(schema: JsonObject, root: JsonObject, fields: Mapping[str, Any], given: Any, name: str, depth: int) -> Any:
    kind = schema.get("type") or ("object" if "properties" in schema else "string")
    if schema.get("enum"):
        return schema["enum"][0]
    match kind:
        case "object":
            scope = {**fields, **({_plain(str(k)): v for k, v in given.items()} if isinstance(given, Mapping) else {})}
            wanted = schema.get("properties", {}) if depth < _MAX_DEPTH else {}
            return {key: _value(inner, root, scope, key, depth + 1) for key, inner in wanted.items()}
        case "array":
            return _array(schema, root, given, depth)
        case "number" | "integer":
            return _number(schema, whole=kind == "integer", low=_plain(name).endswith("confidence"))
        case "boolean":
            return False
        case "null":
            return None
        case _:
            return "-" * schema.get("minLength", 0)


def _array(schema: JsonObject, root: JsonObject, given: Any, depth: int) -> list[Any]:
    items = schema.get("items", {})
    source = given if isinstance(given, list) else []
    if isinstance(given, str) and given:
        source = [given]
    size = max(min(len(source), schema.get("maxItems", len(source))), schema.get("minItems", 0))
    padded = [*source, *[None] * (size - len(source))][:size]
    return [_value(items, root, _item_fields(item), "item", depth + 1) for item in padded]


def _item_fields(item: Any) -> dict[str, Any]:
    inner = {_plain(str(key)): value for key, value in item.items()} if isinstance(item, Mapping) else {}
    return {"item": item, **inner}


def _number(schema: JsonObject, *, whole: bool, low: bool) -> int | float:
    smallest = float(schema.get("minimum") or schema.get("exclusiveMinimum") or 0)
    value = max(_LOW_CONFIDENCE if low and not whole else 0.0, smallest)
    if value == schema.get("exclusiveMinimum"):
        value += 1
    value = min(value, float(schema.get("maximum", value)))
    return int(value) if whole else float(value)


def _within(value: Any, schema: JsonObject) -> bool:
    if isinstance(value, str):
        fits = schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
        return fits and bool(re.search(schema.get("pattern", ""), value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
    return True

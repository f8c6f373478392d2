"""Forms: what deciders fill in, as a JSON schema of flat fields. Pure.

A form is an object whose fields are text, numbers, yes/no, one of several, or dates: what every user interface can
render as an input. ``schema_of`` makes one from a pydantic model; ``check_form`` refuses any other; ``check_answer``
says every fault of an answer and where it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from pydantic import BaseModel

from core.errors import InvalidInput

MAX_FIELDS = 50
MAX_TEXT = 10_000
_KINDS = frozenset({"string", "number", "integer", "boolean"})
_UNASKED = frozenset({"pattern", "multipleOf"})  # no input shows these rules, and one that is not checked is no rule


@dataclass(frozen=True, slots=True)
class Field:
    """A field. ``kind``: text, number, integer, boolean, choice or date. ``least`` and ``most`` are allowed values."""

    name: str
    kind: str
    title: str
    description: str
    required: bool
    nullable: bool
    default: Any
    choices: tuple[Any, ...] = ()
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    shortest: int = 0
    longest: int = MAX_TEXT


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The form of a model. Raises ``InvalidInput`` when it has anything but flat fields."""
    schema = model.model_json_schema()
    check_form(schema)
    return schema


def check_form(schema: Mapping[str, Any]) -> None:
    """Raise ``InvalidInput`` for a schema that is no form."""
    found = fields(schema)
    if not 1 <= len(found) <= MAX_FIELDS:
        raise InvalidInput(f"A form has 1 to {MAX_FIELDS} fields.")


def fields(schema: Mapping[str, Any]) -> list[Field]:
    """The fields of a form, in order. Raises ``InvalidInput``."""
    if schema.get("type") != "object" or not isinstance(schema.get("properties"), Mapping):
        raise InvalidInput("A form is a JSON schema of an object with properties.")
    required = schema.get("required", ())
    return [_field(name, given, schema, name in required) for name, given in schema["properties"].items()]


def check_answer(schema: Mapping[str, Any] | None, answer: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The answer with defaults filled in. Raises ``InvalidInput`` with every fault and its JSON pointer."""
    if schema is None:
        if answer:
            raise InvalidInput("This review has no form.", field="answer")
        return None
    given = dict(answer or {})
    faults: list[dict[str, str]] = []
    checked: dict[str, Any] = {}
    for field in fields(schema):
        if field.name not in given:
            if field.required:
                faults.append(_fault(field.name, "This is needed."))
            else:
                checked[field.name] = field.default
            continue
        value = given.pop(field.name)
        faults += [_fault(field.name, message) for message in _wrong(field, value)]
        checked[field.name] = value
    faults += [_fault(name, "The form has no such field.") for name in given]
    if faults:
        raise InvalidInput("The form is not filled in as it asks.", errors=faults)
    return checked


def _fault(name: str, message: str) -> dict[str, str]:
    return {"pointer": f"/answer/{name.replace('~', '~0').replace('/', '~1')}", "message": message}


def _field(name: str, given: Mapping[str, Any], schema: Mapping[str, Any], required: bool) -> Field:
    options = [_resolved(option, schema) for option in given.get("anyOf", [given])]
    real = [option for option in options if option.get("type") != "null"]
    if len(real) != 1:
        raise InvalidInput(f"The field {name} of a form has one type.", form_field=name)
    spec = _resolved({**real[0], **{key: value for key, value in given.items() if key != "anyOf"}}, schema)
    choices = tuple(spec.get("enum", [spec["const"]] if "const" in spec else []))
    kind = "choice" if choices else spec.get("type")
    if kind == "string":
        kind = "date" if spec.get("format") == "date" else "text"
    if (kind not in {"choice", "date", "text"} and kind not in _KINDS) or _UNASKED & set(spec):
        raise InvalidInput(f"The field {name} cannot be asked for in a form.", form_field=name)
    return Field(
        name=name,
        kind=str(kind),
        title=str(spec.get("title", name)),
        description=str(spec.get("description", "")),
        required=required,
        nullable=len(real) < len(options),
        default=spec.get("default"),
        choices=choices,
        least=spec.get("minimum"),
        most=spec.get("maximum"),
        above=spec.get("exclusiveMinimum"),
        below=spec.get("exclusiveMaximum"),
        shortest=int(spec.get("minLength", 0)),
        longest=int(spec.get("maxLength", MAX_TEXT)),
    )


def _resolved(spec: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The definition that a reference names, under what stands beside the reference."""
    if "$ref" not in spec:
        return spec
    found = schema.get("$defs", {}).get(str(spec["$ref"]).rpartition("/")[2])
    if not isinstance(found, Mapping):
        raise InvalidInput("A form refers to a definition that it lacks.")
    return {**found, **{key: value for key, value in spec.items() if key != "$ref"}}


def _wrong(field: Field, value: Any) -> Iterator[str]:
    if value is None and field.nullable:
        return
    match field.kind:
        case "choice":
            if not any(value == choice and type(value) is type(choice) for choice in field.choices):
                yield f"Choose one of: {', '.join(map(str, field.choices))}."
        case "boolean":
            if not isinstance(value, bool):
                yield "This is true or false."
        case "text":
            yield from _wrong_text(field, value)
        case "date":
            if not _is_date(value):
                yield "This is a date, YYYY-MM-DD."
        case _:
            yield from _wrong_number(field, value)


def _wrong_text(field: Field, value: Any) -> Iterator[str]:
    if not isinstance(value, str):
        yield "This is text."
    elif not field.shortest <= len(value) <= field.longest:
        yield f"This has {field.shortest} to {field.longest} characters."


def _is_date(value: Any) -> bool:
    if not isinstance(value, str) or len(value) != len("2026-01-05"):
        return False
    try:
        date.fromisoformat(value)
    except ValueError:
        return False
    return True


def _wrong_number(field: Field, value: Any) -> Iterator[str]:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        yield "This is a number."
        return
    if field.kind == "integer" and value != int(value):
        yield "This is a whole number."
    if field.least is not None and value < field.least:
        yield f"This is at least {field.least:g}."
    if field.most is not None and value > field.most:
        yield f"This is at most {field.most:g}."
    if field.above is not None and value <= field.above:
        yield f"This is more than {field.above:g}."
    if field.below is not None and value >= field.below:
        yield f"This is less than {field.below:g}."

"""The API's description of itself: OpenAPI, made complete, and a page that shows it without any script."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from chat_app.auth import CSRF_HEADER, SESSION_COOKIE, TENANT_HEADER
from chat_app.problems import STATUS, Problem, title_of
from core.errors import BailiwickError
from core.telemetry import product_version

DOCUMENT = "/api/openapi.json"
Json = dict[str, Any]

_ABOUT = f"""\
Everything the chat and the dashboard do, for programs. All times are UTC, all money is micro-USD.

**Identity.** Send an API key: `Authorization: Bearer bw_…`. An admin issues them. Scripts of our own pages may
use the session's cookie instead; every act then carries the header `{CSRF_HEADER}`, whose value `GET /me` tells.
`{TENANT_HEADER}` is optional; when it disagrees with the identity, the request is refused.

**Errors** are problems (RFC 9457, `application/problem+json`) with a stable `code`. What another tenant owns
answers exactly like what does not exist. `429` and `503` say in `Retry-After` when to come back.

**Sending twice.** With an `Idempotency-Key`, a submission that is sent again answers with what the first one made.
"""

_TAGS = {
    "Runs": "One execution of a workflow: submit, look, follow, cancel, retry.",
    "Bulk": "One act on many runs: looked at first, then done to each exactly once.",
    "Reviews": "Decisions that runs ask people for.",
    "Schedules": "Runs started by time.",
    "Pollers": "Runs started by a change at an address.",
    "Triggers": "Runs started by an event or a webhook.",
    "Memories": "What the tenant's agents have learned.",
    "Blobs": "What is too large for an input, kept once and passed by reference.",
    "Tenant": "The organisation: its policy, usage and budget; who the caller is.",
    "API keys": "Keys for programs.",
    "Versions": "For operators: which versions of workflows new runs go to, and which code is still needed.",
}


def describe(app: FastAPI) -> Json:
    """The OpenAPI document of the application's API; made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title="Bailiwick",
            version=product_version(),
            summary="Conversational agents and long-running workflows for many organisations.",
            description=_ABOUT,
            routes=app.routes,
            tags=[{"name": name, "description": text} for name, text in _TAGS.items()],
            servers=[{"url": "/", "description": "This installation."}],
        )
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= problem.pop("$defs", {})
        schemas["Problem"] = problem
        document["components"]["securitySchemes"] = {
            "key": {"type": "http", "scheme": "bearer", "description": "An API key, `bw_…`."},
            "session": {"type": "apiKey", "in": "cookie", "name": SESSION_COOKIE, "description": "A person's login."},
        }
        document["security"] = [{"key": []}, {"session": []}]
        app.openapi_schema = document
    return app.openapi_schema


def problems() -> list[tuple[str, int, str]]:
    """Code, status and meaning of every kind of problem, in the order of their table."""
    kinds: dict[str, type[BailiwickError]] = {}
    found: list[type[BailiwickError]] = [BailiwickError]
    for kind in found:
        kinds.setdefault(kind.code, kind)
        found += kind.__subclasses__()
    return [(code, int(status), title_of(kinds[code])) for code, status in STATUS.items() if code in kinds]


# The page -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Line:
    """One value of a schema, as the page shows it."""

    name: str
    kind: str
    required: bool
    about: str
    depth: int


@dataclass(frozen=True, slots=True)
class Operation:
    """One route, as the page shows it."""

    anchor: str
    method: str
    path: str
    right: str
    about: str
    parameters: list[Line]
    body: list[Line]
    example: str
    answers: list[tuple[str, str, list[Line]]]
    problems: list[tuple[str, str]]
    curl: str


@dataclass(frozen=True, slots=True)
class Group:
    """The routes of one tag."""

    name: str
    about: str
    operations: list[Operation]


def groups(document: Json) -> list[Group]:
    """All routes, in the order of the tags."""
    by_tag: dict[str, list[Operation]] = {name: [] for name in _TAGS}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            by_tag[operation["tags"][0]].append(_operation(document, path, method, operation))
    return [Group(name, _TAGS[name], operations) for name, operations in by_tag.items()]


def _operation(document: Json, path: str, method: str, operation: Json) -> Operation:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    example = _example(document, body)
    answers, refusals = [], []
    for status, response in operation["responses"].items():
        if status.startswith("2"):
            schema = response.get("content", {}).get("application/json", {}).get("schema")
            answers.append((status, response["description"], list(_lines(document, schema)) if schema else []))
        else:
            codes = next(iter(response["content"].values()))["examples"]
            refusals += [(status, code) for code in codes]
    return Operation(
        anchor=operation["operationId"],
        method=method.upper(),
        path=path,
        right=operation.get("x-right", ""),
        about=operation.get("description") or operation["summary"],
        parameters=[_parameter(document, parameter) for parameter in operation.get("parameters", [])],
        body=list(_lines(document, body)) if body else [],
        example=example,
        answers=answers,
        problems=refusals,
        curl=_curl(path, method, example, signed="security" in operation, file=_takes_file(operation)),
    )


def _parameter(document: Json, parameter: Json) -> Line:
    about = parameter.get("description") or parameter["schema"].get("description", "")
    place = "" if parameter["in"] == "path" else f" ({parameter['in']})"
    return Line(
        f"{parameter['name']}{place}",
        _kind(document, parameter["schema"]),
        parameter.get("required", False),
        about,
        0,
    )


def _resolve(document: Json, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    found: Mapping[str, Any] = document["components"]["schemas"][name] if name else schema
    return found


def _kind(document: Json, schema: Mapping[str, Any]) -> str:
    """A schema's type in a word or two."""
    schema = _resolve(document, schema)
    if options := schema.get("anyOf"):
        kinds = [_kind(document, option) for option in options]
        return " or ".join(dict.fromkeys(kind for kind in kinds if kind != "null"))
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(document, schema.get('items', {}))}"
    return str(schema.get("format") or schema.get("type") or "any")


def _lines(document: Json, schema: Mapping[str, Any], depth: int = 0) -> Iterator[Line]:
    """The properties of an object schema, nested ones indented, three deep at most."""
    schema = _resolve(document, schema)
    for name, property_ in schema.get("properties", {}).items():
        about = property_.get("description", "")
        yield Line(name, _kind(document, property_), name in schema.get("required", []), about, depth)
        inner = _resolve(document, property_)
        if inner.get("type") == "array":
            inner = _resolve(document, inner.get("items", {}))
        if depth < 2 and inner.get("properties"):
            yield from _lines(document, inner, depth + 1)


def _example(document: Json, schema: Mapping[str, Any] | None) -> str:
    examples = _resolve(document, schema).get("examples", []) if schema else []
    return json.dumps(examples[0], indent=2, ensure_ascii=False) if examples else ""


def _takes_file(operation: Json) -> bool:
    return "application/octet-stream" in operation.get("requestBody", {}).get("content", {})


def _curl(path: str, method: str, example: str, *, signed: bool, file: bool) -> str:
    identity = ["webhook-id: msg_…", "webhook-timestamp: 1767603600", "webhook-signature: v1,…"]
    headers = identity if signed else ["Authorization: Bearer bw_…"]
    lines = [f"curl -X {method.upper()} $BAILIWICK{path}", *(f"     -H '{header}'" for header in headers)]
    if example:
        lines += ["     -H 'Content-Type: application/json'", f"     -d '{json.dumps(json.loads(example))}'"]
    if file:
        lines += ["     -H 'Content-Type: application/pdf'", "     --data-binary @FILE"]
    return " \\\n".join(lines)

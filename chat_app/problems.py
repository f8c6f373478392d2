"""Errors as HTTP answers (RFC 9457): the only place where an error code meets a number.

Every failure of the web process leaves it through here: our errors, those of the framework, and what nobody
expected. A problem names its kind (``code``, and ``type``, which leads to its description), says in
``detail`` what happened, and in ``instance`` which request it was: the same id is in the header
``X-Request-ID`` and on every log line. What is inside the house (addresses, statements, tracebacks) stays in
the log.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast

import structlog
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from core.errors import BailiwickError, Forbidden, InvalidInput, NotFound, PayloadTooLarge, Unauthenticated

MEDIA_TYPE = "application/problem+json"
DESCRIPTIONS = "/api/docs"

log = structlog.get_logger(__name__)


class MethodNotAllowed(BailiwickError):
    """There is something here, but it does not take this method."""

    code = "method_not_allowed"


class UnsupportedMediaType(BailiwickError):
    """The body is not of a type that is understood here."""

    code = "unsupported_media_type"


class UnknownHost(BailiwickError):
    """This server does not answer to that host name."""

    code = "unknown_host"


STATUS: Mapping[str, HTTPStatus] = {
    "invalid_input": HTTPStatus.UNPROCESSABLE_ENTITY,
    "too_many_runs": HTTPStatus.UNPROCESSABLE_ENTITY,
    "address_refused": HTTPStatus.UNPROCESSABLE_ENTITY,
    "workflow_unknown": HTTPStatus.UNPROCESSABLE_ENTITY,
    "unauthenticated": HTTPStatus.UNAUTHORIZED,
    "forbidden": HTTPStatus.FORBIDDEN,
    "not_found": HTTPStatus.NOT_FOUND,
    "method_not_allowed": HTTPStatus.METHOD_NOT_ALLOWED,
    "conflict": HTTPStatus.CONFLICT,
    "idempotency_conflict": HTTPStatus.CONFLICT,
    "payload_too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "unsupported_media_type": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "wrong_region": HTTPStatus.MISDIRECTED_REQUEST,
    "unknown_host": HTTPStatus.MISDIRECTED_REQUEST,
    "quota_exceeded": HTTPStatus.TOO_MANY_REQUESTS,
    "rate_limited": HTTPStatus.TOO_MANY_REQUESTS,
    "budget_exceeded": HTTPStatus.TOO_MANY_REQUESTS,
    "overloaded": HTTPStatus.SERVICE_UNAVAILABLE,
    "draining": HTTPStatus.SERVICE_UNAVAILABLE,
    "unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "no_model_endpoint": HTTPStatus.SERVICE_UNAVAILABLE,
    "endpoint_down": HTTPStatus.SERVICE_UNAVAILABLE,
    "step_failed": HTTPStatus.INTERNAL_SERVER_ERROR,
    "child_failed": HTTPStatus.INTERNAL_SERVER_ERROR,
    "setup": HTTPStatus.INTERNAL_SERVER_ERROR,
    "internal": HTTPStatus.INTERNAL_SERVER_ERROR,
}

RETRY_AFTER_S: Mapping[str, float] = {
    "quota_exceeded": 60,
    "rate_limited": 30,
    "budget_exceeded": 3600,
    "overloaded": 30,
    "draining": 60,
    "unavailable": 5,
    "no_model_endpoint": 30,
    "endpoint_down": 30,
}
"""What ``Retry-After`` says when the error itself does not know better."""

# Their messages are written for operators: addresses and settings. Strangers read the general sentence.
_INSIDE = frozenset({"unavailable", "setup", "step_failed", "child_failed", "internal"})

_MAX_FAULTS = 50
_FRAMEWORK: Mapping[int, type[BailiwickError]] = {
    HTTPStatus.UNAUTHORIZED: Unauthenticated,
    HTTPStatus.FORBIDDEN: Forbidden,
    HTTPStatus.METHOD_NOT_ALLOWED: MethodNotAllowed,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: PayloadTooLarge,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: UnsupportedMediaType,
    HTTPStatus.BAD_REQUEST: InvalidInput,
    HTTPStatus.UNPROCESSABLE_ENTITY: InvalidInput,
}


class Fault(BaseModel):
    """One fault of a request."""

    pointer: str = Field(description="JSON pointer into the body, or `query:name`, `header:name`, `path:name`.")
    message: str = Field(description="What is wrong there.")


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": True})

    type: str = Field(description="Where this kind of problem is described.")
    title: str = Field(description="This kind of problem, in a sentence.")
    status: int = Field(description="The HTTP status of this answer.")
    detail: str = Field(description="What happened this time, for people.")
    instance: str = Field(description="This request; the same id is in the header X-Request-ID and in the logs.")
    code: str = Field(description="Stable name of this kind of problem, for programs.")
    retryable: bool = Field(description="Whether the same request may succeed later, unchanged.")
    errors: list[Fault] | None = Field(None, description="For 422: every fault and where it is.")
    details: dict[str, Any] | None = Field(None, description="Facts that belong to this kind of problem.")


def status_of(error: BailiwickError | type[BailiwickError]) -> HTTPStatus:
    """The HTTP status of an error."""
    return STATUS[error.code]


def title_of(kind: type[BailiwickError]) -> str:
    """An error's kind in one sentence."""
    return kind().message


def request_id(scope: Scope) -> str:
    """The id of the request, as the outermost layer gave it."""
    return str(scope.get("state", {}).get("request_id", "-"))


def describe(scope: Scope, error: BailiwickError) -> tuple[Problem, dict[str, str]]:
    """What to say about a request that failed, and the headers that belong to it."""
    status = status_of(error)
    inside = error.code in _INSIDE
    said = title_of(type(error)) if inside else error.message
    details = {} if inside else dict(error.details)
    problem = Problem(
        type=f"{DESCRIPTIONS}#{error.code}",
        title=title_of(type(error)),
        status=status,
        detail=said,
        instance=f"urn:bailiwick:request:{request_id(scope)}",
        code=error.code,
        retryable=error.retryable,
        errors=_faults(details, said) or None,
        details=details or None,
    )
    headers = {}
    after_s = error.retry_after_s
    if after_s is None and status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        after_s = RETRY_AFTER_S[error.code]
    if after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(after_s)))
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="bailiwick"'
    if allowed := details.get("allow"):
        headers["Allow"] = str(allowed)
    return problem, headers


def answer(scope: Scope, error: BailiwickError, said: str | None = None) -> Response:
    """The answer to a request that failed. ``said``: what happened, in other words than ours."""
    problem, headers = describe(scope, error)
    problem.detail = said or problem.detail
    return JSONResponse(problem.model_dump(exclude_none=True), problem.status, headers, MEDIA_TYPE)


def _faults(details: dict[str, Any], said: str) -> list[Fault]:
    """Take the faults out of an error's details, whichever way the room gave them."""
    if found := details.pop("errors", None):
        faults = cast("Sequence[Mapping[str, Any]]", found)
        return [Fault(pointer=str(fault["pointer"]), message=str(fault["message"])) for fault in faults]
    if field := details.pop("field", None):
        return [Fault(pointer=f"/{field}", message=said)]
    return []


# What the framework raises ---------------------------------------------------------------------------------

HANDLED: tuple[type[Exception], ...] = (BailiwickError, HTTPException, RequestValidationError)


def translate(raised: Exception) -> BailiwickError:
    """What was raised, as one of our errors."""
    if isinstance(raised, BailiwickError):
        return raised
    if isinstance(raised, RequestValidationError):
        faults = [_fault(found) for found in raised.errors()[:_MAX_FAULTS]]
        return InvalidInput("The request does not have the form described.", errors=faults)
    if isinstance(raised, HTTPException):
        if raised.status_code == HTTPStatus.NOT_FOUND:
            return NotFound("There is nothing here.")
        if kind := _FRAMEWORK.get(raised.status_code):
            allow = Headers(raised.headers or {}).get("allow")
            return kind(allow=allow) if allow else kind()
        log.error("http.unmapped", status=raised.status_code, detail=raised.detail)
    return BailiwickError()


def _fault(found: Mapping[str, Any]) -> dict[str, str]:
    where, *path = found["loc"]
    place = pointer(path) if where == "body" else f"{where}:{'.'.join(str(part) for part in path)}"
    return {"pointer": place, "message": str(found["msg"])}


def pointer(path: Sequence[object]) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


# What the description of a route says ----------------------------------------------------------------------


def responses(*kinds: type[BailiwickError]) -> dict[int | str, dict[str, Any]]:
    """For FastAPI's ``responses=``: each status, the kinds of problem behind it, and an example."""
    described: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        status = status_of(kind)
        entry = described.setdefault(
            int(status),
            {
                "description": status.phrase,
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}},
            },
        )
        example = answer({"state": {"request_id": "req_06g2kq8v3m4n5p6r7s8t9v0w1"}}, kind())
        entry["content"][MEDIA_TYPE]["examples"][kind.code] = {"summary": title_of(kind), "value": _json(example)}
        if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
            entry["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    return described


def _json(response: Response) -> dict[str, Any]:

    value: dict[str, Any] = json.loads(bytes(response.body))
    return value

"""How a run is interrupted, and what of an error is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import httpx
import stamina

from core.errors import BailiwickError, ChildFailed, StepFailed, Unavailable
from core.runs.execution import Paused

MAX_MESSAGE = 2_000

Result = TypeVar("Result")


class Parked(BaseException):
    """The run waits. A ``BaseException``, so that no ``except Exception`` of a workflow stops it."""


class HandedOver(BaseException):
    """The worker is to stop: the run goes on with another one. No ``except Exception`` of a workflow stops it."""


async def written(write: Callable[[], Awaitable[Result]]) -> Result:
    """Write to our own records, as often as it takes: a database that restarts fails no step of a run.

    Every write of ``RunExecution`` may be repeated. If the database stays away, so does our heartbeat, and the
    run is another worker's as soon as it is back. Raises ``Parked`` when somebody has paused the run.
    """
    try:
        with contextlib.suppress(Unavailable):
            return await write()
        async for attempt in stamina.retry_context(on=Unavailable, attempts=None, timeout=None, wait_max=5.0):
            with attempt:
                return await write()
    except Paused:
        raise Parked from None
    raise AssertionError("stamina makes at least one attempt")


def retryable(error: Exception) -> bool:
    """Whether trying the same step again may help."""
    if isinstance(error, BailiwickError):
        return error.retryable
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in (408, 425, 429) or error.response.status_code >= 500
    return isinstance(error, (httpx.TransportError, TimeoutError, ConnectionError))


def describe(error: Exception) -> dict[str, Any]:
    """An error as JSON: what people and programs need of it, no stack. What is no text in its message becomes ``?``."""
    if isinstance(error, BailiwickError):
        return {"code": error.code, "message": _text(error.message), "details": dict(error.details)}
    message = str(error) or type(error).__name__
    return {"code": "step_failed", "message": _text(f"{type(error).__name__}: {message}"), "details": {}}


def _text(message: str) -> str:
    return message[:MAX_MESSAGE].encode("utf-8", "replace").decode("utf-8")


def step_failed(name: str, error: dict[str, Any]) -> StepFailed:
    """The error that a workflow sees when a step has failed for good."""
    if error["code"] == ChildFailed.code:
        return ChildFailed(error["message"], **error["details"])
    return StepFailed(f"Step {name}: {error['message']}", step=name, cause=error["code"])

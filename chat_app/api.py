"""How every route of the API begins: who calls, may they, and what did they send. In this order.

So a request without identity learns nothing about its body's faults, and one without the right nothing about
the objects behind it. Routes name the right they need with ``needs``; services check it again.
"""

from __future__ import annotations

import asyncio
import email.message
import json
import math
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.types import Receive, Scope

from chat_app.auth import Authenticator
from chat_app.feeds import RunFeeds
from chat_app.problems import UnsupportedMediaType, responses
from core.bootstrap import Platform
from core.errors import (
    BailiwickError,
    Forbidden,
    InvalidInput,
    PayloadTooLarge,
    RateLimited,
    Unauthenticated,
    Unavailable,
    WrongRegion,
)
from core.ids import TenantId
from core.ports import MemoryPort
from core.tenancy import Scope as Right
from core.tenancy import TenantContext
from core.tenants.model import Identity

PREFIX = "/api/v1"
MAX_DEPTH = 64
MAX_STREAMS = 100
BODY_TIMEOUT_S = 30.0
API_LIMIT = "api"
"""Name of the rate limit in a tenant's policy that its requests to the API count against."""

ALWAYS: tuple[type[BailiwickError], ...] = (Unauthenticated, Forbidden, WrongRegion, RateLimited, Unavailable)
WITH_BODY: tuple[type[BailiwickError], ...] = (InvalidInput, PayloadTooLarge, UnsupportedMediaType)


class Streams:
    """How many event streams each tenant holds open here: a process has room for few, and for all."""

    def __init__(self) -> None:
        self._open: Counter[TenantId] = Counter()

    def check(self, tenant_id: TenantId) -> None:
        """Raise ``RateLimited`` when the tenant holds its 100 already."""
        if self._open[tenant_id] >= MAX_STREAMS:
            raise RateLimited(f"At most {MAX_STREAMS} event streams are open at a time.", limit=MAX_STREAMS)

    @contextmanager
    def open(self, tenant_id: TenantId) -> Iterator[None]:
        """Count one while the block runs."""
        self._open[tenant_id] += 1
        try:
            yield
        finally:
            self._open[tenant_id] -= 1
            if not self._open[tenant_id]:
                del self._open[tenant_id]


@dataclass(frozen=True, slots=True)
class ApiServices:
    """What the routes stand on; in ``app.state.services``."""

    platform: Platform
    memory: MemoryPort
    auth: Authenticator
    stopping: asyncio.Event
    streams: Streams
    feeds: RunFeeds


def api_services(request: Request) -> ApiServices:
    """The services of the application that a request came to."""
    found: ApiServices = request.app.state.services
    return found


def _caller(request: Request) -> TenantContext:
    found: TenantContext = request.state.caller
    return found


def _person(request: Request) -> Identity | None:
    found: Identity | None = request.state.person
    return found


Services = Annotated[ApiServices, Depends(api_services)]
Caller = Annotated[TenantContext, Depends(_caller)]
Person = Annotated[Identity | None, Depends(_person)]
Id = Annotated[str, Path(min_length=1, max_length=200, description="As an earlier answer named it.")]


class ApiRoute(APIRoute):
    """Identity, then right, then rate, then body; then the route."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler, which would read the body first."""
        handle = super().get_route_handler()
        right = (self.openapi_extra or {}).get("x-right")
        takes_body = self.body_field is not None

        async def guarded(request: Request) -> Response:
            services = api_services(request)
            ctx, person = await services.auth.caller(request)
            request.state.caller, request.state.person = ctx, person
            if right is not None:
                ctx.require(Right(right))
            await take_turn(services, ctx)
            return await handle(await read_json(request) if takes_body else request)

        return guarded


def api_router(tag: str) -> APIRouter:
    """A router whose routes are ``ApiRoute``."""
    return APIRouter(tags=[tag], route_class=ApiRoute)


def needs(
    right: Right | None,
    *errors: type[BailiwickError],
    body: bool = False,
    also: Mapping[int | str, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Arguments of a route: the right it needs, and what it may answer besides the usual: problems, successes."""
    extra: dict[str, Any] = {"x-right": right.value} if right is not None else {}
    kinds = (*ALWAYS, *(WITH_BODY if body else (InvalidInput,)), *errors)
    return {"openapi_extra": extra, "responses": {**(also or {}), **responses(*dict.fromkeys(kinds))}}


async def take_turn(services: ApiServices, ctx: TenantContext) -> None:
    """The tenant's own limit on requests, where its policy has one. Without Redis it is not counted."""
    rate = ctx.policy.rate_limits.get(API_LIMIT)
    if rate is None:
        return
    try:
        wait_s = await services.platform.limits.take(ctx, API_LIMIT, rate, services.platform.clock.now())
    except Unavailable:
        return
    if wait_s > 0:
        raise RateLimited(
            f"At most {rate.limit} requests in {rate.window_s} s.", retry_after_s=wait_s, limit=rate.limit
        )


# Bodies ---------------------------------------------------------------------------------------------------


class JsonRequest(Request):
    """A request whose body has been read and checked."""

    def __init__(self, scope: Scope, receive: Receive, content: bytes, value: Any) -> None:
        super().__init__(scope, receive)
        self._content = content
        self._value = value

    async def body(self) -> bytes:
        """The bytes."""
        return self._content

    async def json(self) -> Any:
        """The value."""
        return self._value


async def read_json(request: Request) -> JsonRequest:
    """Read a JSON body strictly.

    Raises ``UnsupportedMediaType``, ``PayloadTooLarge``, and ``InvalidInput`` for what is not JSON or what no
    database of ours could hold: NUL characters, lone surrogates, infinite numbers, nesting over 64.
    """
    kind = email.message.Message()
    kind["content-type"] = request.headers.get("content-type", "")
    if kind.get_content_type() != "application/json" or str(kind.get_param("charset", "utf-8")).lower() != "utf-8":
        raise UnsupportedMediaType("Send JSON: Content-Type: application/json.")
    content = await read_body(request)
    return JsonRequest(request.scope, request.receive, content, parse_json(content))


async def read_body(request: Request) -> bytes:
    """The body as it came. Raises ``PayloadTooLarge``, and ``InvalidInput`` when it does not arrive in time."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await request.body()
    except TimeoutError:
        raise InvalidInput(f"The body did not arrive within {BODY_TIMEOUT_S:g} s.") from None


def parse_json(content: bytes) -> Any:
    """The value of a JSON text. Raises ``InvalidInput``; see ``read_json``."""
    try:
        value = json.loads(content.decode("utf-8"), parse_constant=_no_constant)
    except RecursionError:
        raise InvalidInput(f"The body is nested deeper than {MAX_DEPTH}.") from None
    except ValueError as error:
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise InvalidInput(f"The body is not JSON in UTF-8{where}.") from None
    _check(value)
    return value


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _check(value: Any) -> None:
    """Walk a parsed value without recursion."""
    level = [value]
    depth = 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise InvalidInput(f"The body is nested deeper than {MAX_DEPTH}.")
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += item.keys()
                below += item.values()
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str):
                _check_text(item)
            elif isinstance(item, float) and not math.isfinite(item):
                raise InvalidInput("The body holds a number that is too large.")
        level = below


def _check_text(text: str) -> None:
    if "\x00" in text:
        raise InvalidInput("The body holds a NUL character.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidInput("The body holds half of a surrogate pair.") from None

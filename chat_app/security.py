"""The front door: every request of the web process comes and leaves through here.

    request ──► id, log context, span ──► host? path? size? ──► routes
            ◄── strict headers, count, log line ◄── answer, or the problem it ended with

Whatever is raised further inside, and by whatever, leaves as a problem (``chat_app.problems``). A body is
refused when it declares more than its limit, and cut off when it delivers more without having declared it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import structlog
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import SpanKind, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chat_app.problems import UnknownHost
from core.clock import Clock
from core.errors import BailiwickError, InvalidInput, NotFound, PayloadTooLarge
from core.ids import new_id
from core.settings import Settings

MAX_BODY_BYTES = 1024 * 1024
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host")
NOTHING = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
"""The policy of an answer that is not a page."""

_API = "/api/v1"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_FOR_A_YEAR = "max-age=31536000; includeSubDomains"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Area:
    """Paths with rules of their own."""

    prefix: str
    policy: str = NOTHING
    max_body_bytes: int = MAX_BODY_BYTES
    cache: str = "no-store"


class Activity:
    """When somebody last asked for something; probes and files do not count."""

    def __init__(self) -> None:
        self._last = float("-inf")

    def touch(self) -> None:
        """Now."""
        self._last = asyncio.get_running_loop().time()

    def within(self, seconds: float) -> bool:
        """Whether it was at most that long ago."""
        return asyncio.get_running_loop().time() - self._last <= seconds


class HttpMetrics:
    """What the web process counts about its requests: names of routes, never of tenants."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "bailiwick_http_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "bailiwick_http_request_seconds",
            "Time until the answer began.",
            ["route"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self.open = Gauge("bailiwick_http_requests_open", "Requests being answered now.", registry=registry)


class FrontDoor:
    """ASGI middleware around the whole application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: Settings,
        clock: Clock,
        metrics: HttpMetrics,
        tracer: Tracer,
        activity: Activity,
        respond: Callable[[Scope, BailiwickError], Response],
        areas: tuple[Area, ...] = (),
    ) -> None:
        self._app = app
        self._clock = clock
        self._metrics = metrics
        self._tracer = tracer
        self._activity = activity
        self._respond = respond
        self._areas = (*areas, Area("/static", cache="public, max-age=3600"), Area(""))
        self._hosts = settings.hosts()
        self._headers = _HEADERS | ({"Strict-Transport-Security": _FOR_A_YEAR} if settings.secure_cookies() else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or websocket."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        number = new_id("req", self._clock.now())
        scope.setdefault("state", {})["request_id"] = number
        with structlog.contextvars.bound_contextvars(request_id=number):
            if scope["type"] == "http":
                await self._request(scope, receive, send)
            elif self._knows_host(scope):
                await self._app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 4403})

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        area = next(area for area in self._areas if _within(scope["path"], area.prefix))
        own = {"Content-Security-Policy": area.policy, "Cache-Control": area.cache}
        body = _Body(receive, area.max_body_bytes)
        reply = _Reply(send, body, {**self._headers, **own, "X-Request-ID": scope["state"]["request_id"]})
        parent = TraceContextTextMapPropagator().extract(scope, getter=_INCOMING)
        self._metrics.open.inc()
        try:
            with self._tracer.start_as_current_span(
                scope["method"], context=parent, kind=SpanKind.SERVER, record_exception=False
            ) as span:
                await self._answer(scope, body, reply)
                span.update_name(f"{scope['method']} {_route(scope)}")
                span.set_attributes({"http.route": _route(scope), "http.response.status_code": reply.status})
                span.set_attribute("bailiwick.request_id", scope["state"]["request_id"])
        finally:
            self._metrics.open.dec()
            self._tell(scope, reply)

    async def _answer(self, scope: Scope, body: _Body, reply: _Reply) -> None:
        error: BailiwickError | None = None
        try:
            self._check(scope, body)
            await self._app(scope, body.receive, reply.send)
        except BailiwickError as raised:
            error = raised
        except ClientDisconnect:
            return
        except Exception:
            log.exception("http.failed", path=scope["path"])
            error = BailiwickError()
            if reply.started:
                raise
        if body.too_large:
            error = body.refusal()
        if error is not None and not reply.started:
            await self._respond(scope, error)(scope, body.receive, reply.send_own)

    def _check(self, scope: Scope, body: _Body) -> None:
        """What is refused before any route sees it."""
        if scope["path"] not in PROBES and not self._knows_host(scope):
            raise UnknownHost
        if scope["path"] == "/metrics" and any(name in Headers(scope=scope) for name in _FORWARDED):
            raise NotFound("Metrics name tenants: they are for those inside, not for whom a proxy lets in.")
        if any(character < " " or character == "\x7f" for character in scope["path"]):
            raise NotFound("There is nothing here.")
        if b"%00" in scope.get("query_string", b""):
            raise InvalidInput("A query holds no NUL characters.")
        body.check_declared(Headers(scope=scope).get("content-length"))

    def _knows_host(self, scope: Scope) -> bool:
        host = Headers(scope=scope).get("host", "").lower()
        name, _, port = host.rpartition(":")
        return (name if name and port.isdigit() else host) in self._hosts

    def _tell(self, scope: Scope, reply: _Reply) -> None:
        route, path, status = _route(scope), scope["path"], reply.status or HTTPStatus.INTERNAL_SERVER_ERROR
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.requests.labels(method, route, int(status)).inc()
        self._metrics.seconds.labels(route).observe(reply.seconds)
        if path in PROBES or route == "/static":
            return
        self._activity.touch()
        caller = scope["state"].get("caller")
        who = {"tenant": caller.tenant_id, "actor": caller.actor} if caller is not None else {}
        log.info(
            "http.request", method=method, path=path, status=int(status), ms=round(reply.seconds * 1_000, 1), **who
        )


class _Body:
    """The body of a request, cut off at its limit."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._got = 0
        self.too_large = False

    def check_declared(self, length: str | None) -> None:
        """Raise ``PayloadTooLarge`` for what need not be read to be refused."""
        if length is not None and length.isdigit() and int(length[:20]) > self._limit:
            self.too_large = True
            raise self.refusal()

    async def receive(self) -> Message:
        """The next part."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._got += len(message.get("body", b""))
            if self._got > self._limit:
                self.too_large = True
                raise self.refusal()
        return message

    def refusal(self) -> PayloadTooLarge:
        """What the caller is told."""
        return PayloadTooLarge(f"A body here has at most {self._limit} bytes.", limit=self._limit)


class _Reply:
    """The answer on its way out: with our headers, and with its status and time remembered."""

    def __init__(self, send: Send, body: _Body, headers: Mapping[str, str]) -> None:
        self._send = send
        self._body = body
        self._headers = headers
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self.started = False
        self.status = 0
        self.seconds = 0.0

    async def send(self, message: Message) -> None:
        """From the routes. What they say about a body that was cut off is not sent."""
        if self.started or not self._body.too_large:
            await self.send_own(message)

    async def send_own(self, message: Message) -> None:
        """From us."""
        if message["type"] == "http.response.start":
            self.started = True
            self.status = int(message["status"])
            self.seconds = self._loop.time() - self._began
            headers = MutableHeaders(scope=message)
            for name, value in self._headers.items():
                headers.setdefault(name, value)
        await self._send(message)


class _Incoming(Getter[MutableMapping[str, Any]]):
    """Reads the caller's trace from the headers of a scope."""

    def get(self, carrier: MutableMapping[str, Any], key: str) -> list[str] | None:
        """All values of one header."""
        return Headers(scope=carrier).getlist(key) or None

    def keys(self, carrier: MutableMapping[str, Any]) -> list[str]:
        """The names of all headers."""
        return Headers(scope=carrier).keys()


_INCOMING = _Incoming()


def _within(path: str, prefix: str) -> bool:
    return not prefix or path == prefix or path.startswith(prefix + "/")


def _route(scope: Scope) -> str:
    """The route's template: its names are few, those of paths are not."""
    template = getattr(scope.get("route"), "path", None)
    if isinstance(template, str):
        inside = _within(scope["path"], _API) and not template.startswith(_API)
        return f"{_API}{template}" if inside else template
    return next((area for area in ("/chat", "/static") if _within(scope["path"], area)), "unmatched")

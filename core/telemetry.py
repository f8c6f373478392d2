"""Logs, metrics and traces of a process, and the small HTTP server on which it shows how it is.

- Logs: one line per event on stderr, JSON or for reading. Whatever looks like a secret, by the name of its
  field or by its form, is replaced before it is written; so are the logs of every library.
- Metrics: a Prometheus registry per process; there is none for all.
- Traces: sent to ``settings.otlp_endpoint`` by OTLP over HTTP; without one spans cost nothing.
- ``/healthz`` says that the process turns, ``/readyz`` that what it needs answers, ``/metrics`` what it counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import structlog
import uvicorn
from opentelemetry.trace import NoOpTracer, Tracer
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Info, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from structlog.types import EventDict, Processor

from core.errors import BailiwickError, SetupError
from core.settings import Settings

Check = Callable[[], Awaitable[object]]
"""Returns when a part answers, raises when it does not."""

CHECK_TIMEOUT_S = 2.0
_FRESH_S = 1.0
_MAX_TEXT = 20_000
_MAX_DEPTH = 8
_HIDDEN = "***"

_SECRET_NAME = re.compile(
    r"passw(or)?d|secret|authorization|cookie|credential|api[_-]?key|private[_-]?key|(^|[_-])(token|dsn)$",
    re.IGNORECASE,
)
_SECRET_FORMS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\bbw_([0-9a-z]+)_[\w-]{8,}"), r"bw_\1_***"),
    (re.compile(r"(bailiwick_session=)[^;,\s'\"]+"), r"\1***"),
    (re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{6,}", re.IGNORECASE), r"\1 ***"),
    (re.compile(r"\bsk-[\w-]{10,}"), "sk-***"),
    (re.compile(r"\beyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]*"), "***"),
    (re.compile(r"(\b[a-z][\w+.-]*://[^\s:/@'\"]*):[^\s/@'\"]+@", re.IGNORECASE), r"\1:***@"),
    (
        re.compile(
            r"\b((?:\w+_)?(?:password|passwd|secret|token|api_?key)['\"]?\s*[=:]\s*['\"]?)[^\s'\",;&}\])]+",
            re.IGNORECASE,
        ),
        r"\1***",
    ),
)


_CHATTY = ("apscheduler", "asyncio", "chainlit", "httpcore", "httpx", "httpx2", "neo4j.notifications", "openai.agents")


# Logs -----------------------------------------------------------------------------------------------------


def redact_text(text: str) -> str:
    """The text with everything hidden that has the form of a secret, and no longer than 20,000 characters."""
    for form, hidden in _SECRET_FORMS:
        text = form.sub(hidden, text)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}… ({len(text)} characters)"


def redact(value: Any, depth: int = 0) -> Any:
    """A copy fit for logs: secrets hidden by name and form, foreign objects as text, nesting bounded."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return redact_text(value)
    if depth >= _MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {
            str(name): _HIDDEN if _SECRET_NAME.search(str(name)) else redact(item, depth + 1)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(item, depth + 1) for item in value]
    return redact_text(str(value) if isinstance(value, BailiwickError) else repr(value))


def configure_logging(settings: Settings, process: str) -> None:
    """Send our logs and those of all libraries to stderr in the form that the settings name.

    Call it once, first thing in a process. Fields bound with ``structlog.contextvars`` are on every line.
    """

    def named(_: Any, __: str, event: EventDict) -> EventDict:
        return {**event, "process": process}

    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        named,
    ]
    structlog.configure(
        processors=[
            *before,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.log_level.upper())),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=before, processors=_at_the_end(settings.log_format))
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _at_the_end(form: str) -> list[Processor]:
    """Tracebacks become text (without local variables), then everything is redacted, then written."""

    def clean(_: Any, __: str, event: EventDict) -> MutableMapping[str, Any]:
        return {name: _HIDDEN if _SECRET_NAME.search(name) else redact(value) for name, value in event.items()}

    written: Processor = (
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, sort_keys=False
        )
        if form == "console"
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    return [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        clean,
        written,
    ]


# Metrics and traces ---------------------------------------------------------------------------------------


def product_version() -> str:
    """Version of the installed package; ``0`` when it runs from its sources without being installed."""
    try:
        return version("bailiwick")
    except PackageNotFoundError:
        return "0"


def new_registry(process: str) -> CollectorRegistry:
    """A Prometheus registry that already tells the process's CPU, memory, garbage collection and version."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    Info("bailiwick_build", "What runs here.", registry=registry).info(
        {"process": process, "version": product_version()}
    )
    return registry


@contextmanager
def open_tracer(settings: Settings, process: str) -> Iterator[Tracer]:
    """A tracer whose spans go to the collector of the settings, or nowhere. Sends the rest when it closes."""
    if settings.otlp_endpoint is None:
        yield NoOpTracer()
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": f"bailiwick-{process}", "cloud.region": settings.region})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    endpoint = settings.otlp_endpoint.rstrip("/") + "/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=5)))
    try:
        yield provider.get_tracer("bailiwick", product_version())
    finally:
        provider.shutdown()


# Health ---------------------------------------------------------------------------------------------------


class Readiness:
    """Asks all checks at once, each for at most two seconds; an answer serves everybody for one second.

    So whoever asks however often costs the servers behind the checks one question a second.
    """

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks
        self._asked_at = float("-inf")
        self._answer: dict[str, str] = {}
        self._lock = asyncio.Lock()

    async def failures(self) -> dict[str, str]:
        """What does not answer, and why, in words fit for strangers. Empty: ready."""
        async with self._lock:
            loop = asyncio.get_running_loop()
            if loop.time() - self._asked_at > _FRESH_S:
                found = await asyncio.gather(*(self._ask(check) for check in self._checks.values()))
                self._answer = {name: said for name, said in zip(self._checks, found, strict=True) if said}
                self._asked_at = loop.time()
            return self._answer

    @staticmethod
    async def _ask(check: Check) -> str | None:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                await check()
        except TimeoutError:
            return f"no answer within {CHECK_TIMEOUT_S:g} s"
        except BailiwickError as error:
            return error.message
        except Exception as error:
            return type(error).__name__
        return None


def ops_routes(
    checks: Mapping[str, Check], registry: CollectorRegistry, *, losable: Mapping[str, Check] | None = None
) -> Sequence[Route]:
    """``/healthz``, ``/readyz`` and ``/metrics``, for a process that serves HTTP anyway.

    ``losable``: parts without which the process is still worth asking; they are named, and it stays ready.
    """
    losable = losable or {}
    names = [*checks, *losable]
    readiness = Readiness({**checks, **losable})

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        failures = await readiness.failures()
        unready = any(name in failures for name in checks)
        said = "not ready" if unready else "degraded" if failures else "ready"
        body = {"status": said, "checks": {name: failures.get(name, "ok") for name in names}}
        # For probes, not for callers of the API: no problem body.
        return JSONResponse(body, HTTPStatus.SERVICE_UNAVAILABLE if unready else HTTPStatus.OK)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)]


class Server(uvicorn.Server):
    """A server inside a process that handles signals itself."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serve_ops(
    port: int, checks: Mapping[str, Check], registry: CollectorRegistry | None = None, *, host: str = "127.0.0.1"
) -> AsyncIterator[None]:
    """Answer health, readiness and metrics on a port while the block runs.

    Raises ``SetupError`` when the port is taken. Without a registry ``/metrics`` tells the process only.
    """
    app = Starlette(routes=ops_routes(checks, registry or new_registry("process")))
    config = uvicorn.Config(
        app, log_config=None, access_log=False, ws="none", lifespan="off", timeout_graceful_shutdown=1
    )
    async with serving(config, listener(host, port)):
        yield


def listener(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ``SetupError`` with one clear line when the port is taken."""
    try:
        return socket.create_server((host, port), backlog=2048)
    except OSError as error:
        raise SetupError(f"Port {port} of {host} cannot be used: {error.strerror}.", port=port) from error


@asynccontextmanager
async def serving(config: uvicorn.Config, listening: socket.socket) -> AsyncIterator[Server]:
    """Answer on a socket while the block runs; then finish what is under way, within the configured time."""
    server = Server(config)
    with contextlib.closing(listening):
        task = asyncio.create_task(server.serve(sockets=[listening]), name="http-server")
        ready = asyncio.create_task(server.ready.wait())
        try:
            await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
            yield server
        finally:
            ready.cancel()
            server.should_exit = True
            await task

"""The web process: API, login, home and (mounted by ``chat_app.__main__``) the chat, behind one front door.

    chat_app.__main__ ──opens──► platform, memory ──► create_app ──► FrontDoor ─► /            pages
                                                                              ├─► /api/v1      routes
                                                                              ├─► /chat        Chainlit
                                                                              └─► /healthz …   probes

Stateless: sessions, runs and limits live in Postgres and Redis; any number of these processes may run
(with sticky routing for the chat's sockets).
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from fastapi import FastAPI, Request
from opentelemetry.trace import Tracer
from starlette.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from chat_app.api import PREFIX, ApiServices, Streams
from chat_app.auth import Authenticator
from chat_app.feeds import RunFeeds
from chat_app.problems import HANDLED, translate
from chat_app.routes import (
    blobs,
    bulk,
    control,
    memories,
    pollers,
    reviews,
    run_events,
    runs,
    schedules,
    tenant,
    triggers,
    versions,
)
from chat_app.routes.pages import Docs, Pages, Site
from chat_app.security import Activity, Area, FrontDoor, HttpMetrics
from core.blobs.model import MAX_BLOB_BYTES
from core.bootstrap import Platform
from core.conversations.model import MAX_CONTENT_BYTES
from core.db.pool import Database
from core.errors import Forbidden, RateLimited, Unauthenticated, Unavailable, WrongRegion
from core.ports import MemoryPort
from core.runs.model import MAX_INPUT_BYTES
from core.telemetry import Check, ops_routes
from core.triggers.model import HOOKS

CHAT = "/chat"
# Chainlit's page holds inline scripts, and compiles our cards (React) in the browser: hence the two "unsafe".
# What people and models write is rendered as Markdown without HTML (.chainlit/config.toml), so nothing of
# theirs becomes a script.
CHAT_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' blob:; connect-src 'self'; "
    "worker-src 'self' blob:; manifest-src 'self'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
AREAS = (
    # Strangers send these: no more is read of them than a run could take.
    Area(HOOKS, max_body_bytes=MAX_INPUT_BYTES),
    Area(f"{PREFIX}/blobs", max_body_bytes=MAX_BLOB_BYTES),
    Area(f"{CHAT}/assets", cache="public, max-age=31536000, immutable"),
    Area("/assets", CHAT_POLICY, cache="public, max-age=31536000, immutable"),
    Area(f"{CHAT}/public", cache="public, max-age=300"),
    # Files travel as multipart: a little more than the file itself.
    Area(CHAT, CHAT_POLICY, max_body_bytes=MAX_CONTENT_BYTES + 64 * 1024),
)
IDLE_AFTER_S = 60.0
REFUSALS = (Unauthenticated, Forbidden, WrongRegion, RateLimited)
"""What the audit tells of: who was not let in, or not let do it."""


def create_app(platform: Platform, memory: MemoryPort, tracer: Tracer, stopping: asyncio.Event) -> FastAPI:
    """The application without the chat. ``stopping`` ends event streams when the process is told to stop."""
    settings = platform.settings
    auth = Authenticator(platform.tenants, settings, platform.clock)
    pages = Pages(settings)
    activity = Activity()
    feeds = RunFeeds(platform.bus, platform.runs.log, platform.clock, stopping)
    # One slash more or less is another address: nothing is redirected, and no description is served unasked.
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.services = ApiServices(platform, memory, auth, stopping, Streams(), feeds)

    async def handle(request: Request, error: Exception) -> Response:
        ours = translate(error)
        if isinstance(ours, REFUSALS) and request.url.path.startswith(PREFIX):
            route = getattr(request.scope.get("route"), "path", "")
            caller = getattr(request.state, "caller", None)
            platform.tenants.refusals.request(caller, ours.code, f"{request.method} {route}")
        return pages.respond(request.scope, ours)

    for kind in HANDLED:
        app.add_exception_handler(kind, handle)
    app.add_middleware(
        FrontDoor,
        settings=settings,
        clock=platform.clock,
        metrics=HttpMetrics(platform.metrics),
        tracer=tracer,
        activity=activity,
        respond=pages.respond,
        areas=AREAS,
    )
    for room in (
        runs,
        control,
        bulk,
        run_events,
        reviews,
        schedules,
        pollers,
        triggers,
        memories,
        blobs,
        tenant,
        versions,
    ):
        app.include_router(room.router, prefix=PREFIX)
    app.include_router(triggers.hooks, prefix=PREFIX)
    app.include_router(tenant.keys, prefix=PREFIX)
    app.include_router(Site(pages, auth, platform.tenants, settings).router())
    app.include_router(Docs(app, pages).router())
    checks = {"postgres": PostgresCheck(platform.db, activity)}
    app.router.routes.extend(ops_routes(checks, platform.metrics, losable={"redis": _redis_check(platform)}))
    app.add_api_route(CHAT, _into_the_chat, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=Path(__file__).with_name("static")))
    return app


async def _into_the_chat() -> Response:
    return RedirectResponse(f"{CHAT}/", 307)


class PostgresCheck:
    """Whether Postgres answers; while nobody asks us for anything, whether it did when somebody last did.

    Probes come every few seconds for ever: they alone must not keep a serverless database awake.
    """

    def __init__(self, db: Database, activity: Activity) -> None:
        self._db = db
        self._activity = activity
        self._answered = False

    async def __call__(self) -> None:
        """Raise ``Unavailable`` when it does not."""
        if self._answered and not self._activity.within(IDLE_AFTER_S):
            return
        self._answered = False
        try:
            async with self._db.control_transaction():
                pass
        except Unavailable as error:
            raise Unavailable("Postgres does not answer.") from error
        self._answered = True


def _redis_check(platform: Platform) -> Check:
    async def redis() -> None:
        if not await platform.bus.healthy():
            raise Unavailable("Redis does not answer.")

    return redis

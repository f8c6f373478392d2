"""The web server around the dashboard: Streamlit's ASGI application, ours in front of it.

    request ──► Gate ──► /healthz /readyz /metrics        open to all
                 ├─────► a page, without a session ──303──► the web process's /login, and back afterwards
                 └─────► Streamlit (pages, assets, websocket), under strict headers

The gate saves people a detour; what protects the data is that every script run identifies the session again.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlencode, urlsplit

import streamlit as st
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import BailiwickError, Unauthenticated, Unavailable
from core.settings import Port, Settings
from core.telemetry import ops_routes
from ops_dashboard.bridge import Bridge
from ops_dashboard.theme import THEME

COOKIE = "bailiwick_session"
"""The HttpOnly cookie that the web process sets at login."""

IDLE_AFTER_S = 60.0
"""Without a look at the dashboard for this long, probes ask Postgres nothing."""

SCRIPT = Path(__file__).with_name("main.py")
_PROBES = ("/healthz", "/readyz", "/metrics")
_NOT_PAGES = ("/_stcore", "/static", "/media", "/component")
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
}


def application(settings: Settings, bridge: Bridge) -> st.App:
    """The dashboard as an ASGI application; it serves until its server stops."""
    platform = bridge.platform

    async def redis() -> None:
        if not await bridge.run_here(platform.bus.healthy()):
            raise Unavailable("Redis does not answer.")

    routes = ops_routes({"postgres": PostgresCheck(bridge)}, platform.metrics, losable={"redis": redis})
    return st.App(SCRIPT, routes=routes, middleware=[Middleware(Gate, settings=settings, bridge=bridge)])


def serve(settings: Settings, bridge: Bridge) -> None:
    """Serve until SIGTERM or SIGINT. The port must be free."""
    application(settings, bridge).run(config=_configuration(settings))


def login_url(settings: Settings, back_to: str) -> str:
    """Where to log in, with the page to come back to, as the browser knows it."""
    if settings.dashboard_url is not None:
        page = urlsplit(back_to)
        back_to = f"{settings.dashboard_url}{page.path or '/'}" + (f"?{page.query}" if page.query else "")
    return f"{web_url(settings, back_to)}/login?{urlencode({'next': back_to})}"


def web_url(settings: Settings, here: str) -> str:
    """The web process: its public address, else under the host name of the page ``here``, as the cookie is."""
    if settings.public_url is not None:
        return settings.public_url
    host = urlsplit(here).hostname
    known = host is not None and host in settings.hosts()
    return f"http://{host}:{settings.port(Port.WEB)}" if known else settings.web_url()


def _configuration(settings: Settings) -> dict[str, object]:
    return {
        "server.address": settings.bind_host,
        "server.port": settings.port(Port.DASHBOARD),
        "server.headless": True,
        "server.fileWatcherType": "none",
        "server.allowedHosts": sorted(settings.hosts()),
        "server.enableXsrfProtection": True,
        "server.enableCORS": True,
        "server.maxUploadSize": 1,
        "browser.gatherUsageStats": False,
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
        "client.showErrorLinks": False,
        "runner.magicEnabled": False,
        "logger.level": "warning",
        **THEME,
    }


class PostgresCheck:
    """Whether Postgres answers; while nobody looks at the dashboard, whether it did when somebody last looked.

    Probes come every few seconds for ever: they alone must not keep a serverless database awake.
    """

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._answered = False

    async def __call__(self) -> None:
        """Raise ``Unavailable`` when it does not."""
        if self._answered and self._bridge.idle_s > IDLE_AFTER_S:
            return
        self._answered = False
        await self._bridge.run_here(self._ask())
        self._answered = True

    async def _ask(self) -> None:
        async with self._bridge.platform.db.control_transaction():
            pass


class Gate:
    """Sends people without a session to the login, refuses unknown hosts, and sets the headers."""

    def __init__(self, app: ASGIApp, settings: Settings, bridge: Bridge) -> None:
        self._app = app
        self._settings = settings
        self._bridge = bridge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or websocket."""
        if scope["type"] != "http" or scope["path"] in _PROBES:
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        if request.url.hostname not in self._settings.hosts():
            await PlainTextResponse("This host is not served here.", status_code=421)(scope, receive, send)
            return
        if request.method == "GET" and _is_page(request.url.path) and not await self._knows(request):
            await RedirectResponse(login_url(self._settings, str(request.url)), 303)(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)

    async def _knows(self, request: Request) -> bool:
        token = request.cookies.get(COOKIE)
        if not token:
            return False
        try:
            await self._bridge.run_here(self._bridge.platform.tenants.identify_session(token))
        except Unauthenticated:
            return False
        except BailiwickError:
            return True  # Postgres is away: the page says so, a login would not help
        return True


def _is_page(path: str) -> bool:
    return "." not in path.rpartition("/")[2] and not path.startswith(_NOT_PAGES)

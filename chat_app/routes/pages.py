"""The pages of the web process: home, login, logout, the API's description. No script runs on any of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

import structlog
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.responses import Response
from starlette.types import Scope

from chat_app import openapi
from chat_app.auth import HOME, Authenticator, safe_next, session_token
from chat_app.logins import LoginGate
from chat_app.problems import DESCRIPTIONS, UnsupportedMediaType, answer, describe
from core.errors import BailiwickError, InvalidInput, Unauthenticated
from core.settings import Port, Settings
from core.tenancy import Role
from core.tenancy import Scope as Right
from core.tenants.model import Identity, Login
from core.tenants.service import TenantService

LOGIN, LOGOUT = "/login", "/logout"
_TEMPLATES = Path(__file__).parents[1] / "templates"
_FORM = "application/x-www-form-urlencoded"
_MAX_EMAIL = 320

log = structlog.get_logger(__name__)


class Pages:
    """Templates, and the rules that every page shares."""

    def __init__(self, settings: Settings) -> None:
        self._offline = settings.model_url is None
        self._dashboard_url = settings.dashboard_url
        self._dashboard_port = settings.port(Port.DASHBOARD)
        self._templates = Environment(
            loader=FileSystemLoader(_TEMPLATES),
            autoescape=select_autoescape(),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def dashboard(self, request: Request) -> str:
        """The dashboard: its public address, else its port on the host that the browser knows."""
        if self._dashboard_url is not None:
            return f"{self._dashboard_url}/"
        host = request.url.hostname or "127.0.0.1"
        return f"{request.url.scheme}://{f'[{host}]' if ':' in host else host}:{self._dashboard_port}/"

    def render(self, request: Request, name: str, **values: Any) -> Response:
        """A page."""
        text = self._templates.get_template(name).render(offline=self._offline, **values)
        # The login may be answered by a redirection to the dashboard; browsers check that against form-action.
        policy = (
            "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; "
            f"form-action 'self' {self.dashboard(request)}"
        )
        return HTMLResponse(text, headers={"Content-Security-Policy": policy})

    def failed(self, request: Request, error: BailiwickError, name: str = "problem.html", **values: Any) -> Response:
        """A page that says what went wrong, with the status and headers of the problem."""
        problem, headers = describe(request.scope, error)
        response = self.render(request, name, problem=problem, **values)
        response.status_code = problem.status
        response.headers.update({key: value for key, value in headers.items() if key != "WWW-Authenticate"})
        return response

    def respond(self, scope: Scope, error: BailiwickError) -> Response:
        """What went wrong: as a page for browsers that asked for one, or the login when that is what is missing."""
        if not wants_page(scope):
            return answer(scope, error)
        request = Request(scope)
        if isinstance(error, Unauthenticated):
            return RedirectResponse(f"{LOGIN}?next={quote(scope['path'])}", 303)
        return self.failed(request, error)


def wants_page(scope: Scope) -> bool:
    """Whether a browser asks for a page, and not a program for the API."""
    request = Request(scope)
    return (
        scope["method"] == "GET"
        and not scope["path"].startswith("/api/v")
        and "text/html" in request.headers.get("accept", "")
    )


class Site:
    """Home, login and logout."""

    def __init__(self, pages: Pages, auth: Authenticator, tenants: TenantService, settings: Settings) -> None:
        self._pages = pages
        self._auth = auth
        self._tenants = tenants
        self._settings = settings
        self._gate = LoginGate(tenants)

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(include_in_schema=False)
        router.add_api_route(HOME, self.home)
        router.add_api_route(LOGIN, self.show_login)
        router.add_api_route(LOGIN, self.login, methods=["POST"])
        router.add_api_route(LOGOUT, self.show_logout)
        router.add_api_route(LOGOUT, self.logout, methods=["POST"])
        return router

    async def home(self, request: Request) -> Response:
        """Where to go from here."""
        person = await self._who(request)
        return self._pages.render(
            request,
            "home.html",
            person=person,
            may_chat=person is not None and Right.CHAT in person.ctx.scopes,
            operator=person is not None and Role.OPERATOR in person.roles,
            dashboard=self._pages.dashboard(request),
            region=self._settings.region,
        )

    async def show_login(self, request: Request, next: str | None = None) -> Response:  # noqa: A002 - as in the address
        """The login; whoever is logged in already goes on."""
        target = self._target(next)
        try:
            if await self._who(request) is not None:
                return RedirectResponse(target, 303)
        except BailiwickError as error:
            return self._form(request, target, error)
        return self._form(request, target)

    async def login(self, request: Request) -> Response:
        """Check the password, set the cookie, go on."""
        form = await read_form(request)
        target = self._target(form.get("next"))
        email = form.get("email", "").strip()
        try:
            self._auth.check_form(request, form.get("csrf", ""))
            opened = await self._open(email, form.get("password", ""), form.get("tenant", "").strip())
        except BailiwickError as error:
            log.info("login.refused", code=error.code)
            return self._form(request, target, error, email)
        if (before := session_token(request.headers)) is not None:
            await self._tenants.logout(before)
        response = RedirectResponse(target, 303)
        self._auth.open_session(response, opened)
        return response

    async def show_logout(self, request: Request) -> Response:
        """Ask first: a link on another site must not log anybody out."""
        token = session_token(request.headers)
        person = await self._who(request)
        if token is None or person is None:
            return RedirectResponse(LOGIN, 303)
        return self._pages.render(request, "logout.html", person=person, csrf=self._auth.csrf_token(token))

    async def logout(self, request: Request) -> Response:
        """End the session everywhere: chat, API and dashboard."""
        form = await read_form(request)
        self._auth.check_act(request, form.get("csrf", ""))
        response = RedirectResponse(LOGIN, 303)
        await self._auth.logout(request, response)
        return response

    def _target(self, asked: str | None) -> str:
        ports = (self._settings.port(Port.WEB), self._settings.port(Port.DASHBOARD))
        return safe_next(asked, self._settings, ports)

    async def _who(self, request: Request) -> Identity | None:
        try:
            return await self._auth.identity_from_cookie(request.headers)
        except Unauthenticated:
            return None

    async def _open(self, email: str, password: str, tenant: str) -> Login:
        if not email or len(email) > _MAX_EMAIL or not (email + tenant).isprintable() or not password:
            raise Unauthenticated("E-mail or password is wrong.")
        return await self._gate.login(email, password, tenant or None)

    def _form(self, request: Request, target: str, error: BailiwickError | None = None, email: str = "") -> Response:
        cookie = self._auth.form_cookie(request)
        values = {"csrf": self._auth.form_token(cookie), "next": target, "email": email}
        if error is None:
            response = self._pages.render(request, "login.html", problem=None, **values)
        else:
            response = self._pages.failed(request, error, "login.html", **values)
        self._auth.keep_form_cookie(response, cookie)
        return response


class Docs:
    """The API's description, for programs and for people."""

    def __init__(self, app: FastAPI, pages: Pages) -> None:
        self._app = app
        self._pages = pages

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(include_in_schema=False)
        router.add_api_route(openapi.DOCUMENT, self.document)
        router.add_api_route(DESCRIPTIONS, self.docs)
        return router

    async def document(self) -> Response:
        """For programs."""
        return JSONResponse(openapi.describe(self._app))

    async def docs(self, request: Request) -> Response:
        """For people."""
        return self._pages.render(
            request,
            "docs.html",
            groups=openapi.groups(openapi.describe(self._app)),
            problems=openapi.problems(),
            document=openapi.DOCUMENT,
        )


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a posted form. Raises ``UnsupportedMediaType``, ``InvalidInput``."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _FORM:
        raise UnsupportedMediaType("Send the form as it was served.")
    try:
        text = (await request.body()).decode("ascii")
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=20))
    except ValueError:
        raise InvalidInput("This is not a form.") from None

"""Who is asking: a session's cookie or an API key, and proof that a form or a script is ours.

One cookie, ``bailiwick_session``, logs a person into chat, API and dashboard: cookies belong to a host, not
to a port. It holds 256 random bits; what they mean is in the database. Two things keep other sites from
using a browser that carries it: ``SameSite=Lax``, and for every act a token that only our pages can know
(an HMAC of the session, or before the login of a random cookie).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, Request, cookie_parser
from starlette.responses import Response

from core.clock import Clock
from core.errors import Forbidden, SetupError, Unauthenticated
from core.settings import Settings
from core.tenancy import TenantContext
from core.tenants.model import Identity, Login
from core.tenants.service import TenantService

SESSION_COOKIE = "bailiwick_session"
FORM_COOKIE = "bailiwick_form"
CSRF_HEADER = "X-CSRF-Token"
TENANT_HEADER = "X-Tenant-ID"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
HOME = "/"

_KEY = re.compile(r"bearer +(bw_[0-9a-z]{1,64}_[\w-]{1,128})", re.IGNORECASE | re.ASCII)
_TOKEN = re.compile(r"[\w-]{20,128}", re.ASCII)
_PATH = r"[\x21-\x5b\x5d-\x7e]*"  # printable ASCII without the backslash, which browsers read as a slash
_LOCAL = re.compile(rf"/(?!/){_PATH}")
_ADDRESS = re.compile(rf"https?://([a-z0-9.-]+|\[[0-9a-f:]+\]):([0-9]{{1,5}})(?:/{_PATH})?", re.IGNORECASE | re.ASCII)

_PUBLIC = re.compile(
    rf"(https?://(?:[a-z0-9.-]+|\[[0-9a-f:]+\])(?::[0-9]{{1,5}})?)(?:/{_PATH})?", re.IGNORECASE | re.ASCII
)


class Authenticator:
    """Turns the headers of a request into who is asking. One per web process."""

    def __init__(self, tenants: TenantService, settings: Settings, clock: Clock) -> None:
        if settings.secret_key is None:
            raise SetupError(
                "BAILIWICK_SECRET_KEY is not set. `bailiwick up` sets it; a process started alone needs it."
            )
        self._tenants = tenants
        self._clock = clock
        self._secure = settings.secure_cookies()
        self._domain = settings.cookie_domain()
        self._origins = settings.public_origins()
        self._key = hmac.digest(settings.secret_key.get_secret_value().encode(), b"csrf", hashlib.sha256)

    # Who ------------------------------------------------------------------------------------------------

    async def identity_from_cookie(self, headers: Headers) -> Identity:
        """The person whose session the cookie holds. Raises ``Unauthenticated``, ``WrongRegion``."""
        token = session_token(headers)
        if token is None:
            raise Unauthenticated("Log in first.")
        return await self._tenants.identify_session(token)

    async def caller(self, request: HTTPConnection) -> tuple[TenantContext, Identity | None]:
        """Who calls the API: by key, or by session (then also the person).

        Raises ``Unauthenticated``; ``Forbidden`` when ``X-Tenant-ID`` names another tenant, or when an act by
        session comes without its proof; ``WrongRegion``.
        """
        identity = None
        if authorization := request.headers.get("authorization"):
            key = _KEY.fullmatch(authorization.strip())
            if key is None:
                raise Unauthenticated("Send an API key: Authorization: Bearer bw_…")
            ctx = await self._tenants.identify_key(key[1])
        else:
            identity = await self.identity_from_cookie(request.headers)
            ctx = identity.ctx
            if request.scope["method"] not in SAFE_METHODS:
                self.check_act(request)
        named = request.headers.get(TENANT_HEADER)
        if named is not None and named != ctx.tenant_id:
            raise Forbidden(f"{TENANT_HEADER} names another tenant than the identity belongs to.")
        return ctx, identity

    # Proof that an act comes from our own pages ------------------------------------------------------------

    def csrf_token(self, session: str) -> str:
        """What acts by this session must carry in ``X-CSRF-Token`` (or the form field ``csrf``)."""
        return hmac.new(self._key, b"session:" + session.encode(), hashlib.sha256).hexdigest()

    def check_act(self, request: HTTPConnection, given: str | None = None) -> None:
        """Raise ``Forbidden`` unless an act by session carries its token and comes from this host."""
        check_origin(request.headers, self._origins)
        expected = self.csrf_token(session_token(request.headers) or "")
        if not _same(given if given is not None else request.headers.get(CSRF_HEADER, ""), expected):
            raise Forbidden(f"An act by session needs the header {CSRF_HEADER}; GET /api/v1/me tells its value.")

    def form_token(self, cookie: str) -> str:
        """What the login form must carry, made from the browser's random cookie."""
        return hmac.new(self._key, b"form:" + cookie.encode(), hashlib.sha256).hexdigest()

    def check_form(self, request: Request, given: str) -> None:
        """Raise ``Forbidden`` unless the login form was served to this browser, by this host."""
        check_origin(request.headers, self._origins)
        cookie = request.cookies.get(FORM_COOKIE, "")
        if not _TOKEN.fullmatch(cookie) or not _same(given, self.form_token(cookie)):
            raise Forbidden("The form is too old. Try again.")

    def form_cookie(self, request: Request) -> str:
        """The browser's random cookie, or a new one."""
        cookie = request.cookies.get(FORM_COOKIE, "")
        return cookie if _TOKEN.fullmatch(cookie) else secrets.token_urlsafe(24)

    # Cookies ----------------------------------------------------------------------------------------------

    def keep_form_cookie(self, response: Response, cookie: str) -> None:
        """Give the browser its random cookie, for as long as it is open."""
        response.set_cookie(FORM_COOKIE, cookie, httponly=True, samesite="strict", secure=self._secure)

    def open_session(self, response: Response, login: Login) -> None:
        """Log the browser in."""
        left_s = int((login.identity.expires_at - self._clock.now()).total_seconds())
        response.set_cookie(
            SESSION_COOKIE,
            login.token,
            max_age=left_s,
            domain=self._domain,
            httponly=True,
            samesite="lax",
            secure=self._secure,
        )

    async def logout(self, request: Request, response: Response) -> None:
        """End the session of the request and take the cookie out of the browser."""
        token = session_token(request.headers)
        if token is not None:
            await self._tenants.logout(token)
        response.delete_cookie(SESSION_COOKIE, domain=self._domain, httponly=True, samesite="lax", secure=self._secure)


def session_token(headers: Headers) -> str | None:
    """The session's token as the cookie holds it, when it has the form of one."""
    for header in headers.getlist("cookie"):
        token = cookie_parser(header).get(SESSION_COOKIE, "")
        if _TOKEN.fullmatch(token):
            return token
    return None


def check_origin(headers: Mapping[str, str], ours: frozenset[str] = frozenset()) -> None:
    """Raise ``Forbidden`` for an act that a page of another site sent. Programs name no origin.

    ``ours``: origins that are this site whatever ``Host`` a proxy sends.
    """
    origin = headers.get("origin")
    if origin is not None and origin not in ours and urlsplit(origin).netloc != headers.get("host"):
        raise Forbidden("Requests from other sites are refused.")
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Forbidden("Requests from other sites are refused.")


def safe_next(target: str | None, settings: Settings, own_ports: tuple[int, ...]) -> str:
    """Where to go after the login: a path of this host, or a page on another of our ports; else home.

    An address is ours when it begins with one of the public addresses, or when its scheme is http(s), its host
    one of ours and its port one of ``own_ports``; anything else could lead a person who has just logged in to a
    stranger's copy.
    """
    if not target or len(target) > 2_000:
        return HOME
    if _LOCAL.fullmatch(target):
        return target
    public = _PUBLIC.fullmatch(target)
    if public and public[1].lower() in settings.public_origins():
        return target
    address = _ADDRESS.fullmatch(target)
    if address and address[1].strip("[]").lower() in settings.hosts() and int(address[2]) in own_ports:
        return target
    return HOME


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())

"""Who sits at a connection of the chat, and the gate in front of it.

Chainlit knows users by one string in a token of its own. Here nothing is trusted but the login's cookie: the
gate identifies it at every request and every new socket, and hands Chainlit a token made from it. So a
logout, a disabled account or a changed role is felt at the next request, and at the next message of an open
socket (``Seat.renew``).

    request ──► gate ── no login ──► page: to /login · anything else: 401
                  │ ─── other site ─► 403
                  │ ─── other region ► 421, with the address to go to
                  │ ─── operator ──► 403: conversations are not theirs to see
                  └──► seat (a ContextVar, inherited by the tasks of this request or socket) ──► Chainlit
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from core.errors import BailiwickError, Forbidden, Unauthenticated
from core.tenancy import Scope as Right
from core.tenancy import TenantContext
from core.tenants.model import Identity

ISSUER = "local"
COOKIE = "access_token"
"""Chainlit's own cookie; what a browser sends under this name is replaced."""

Identify = Callable[[Headers], Awaitable[Identity]]
"""Who is logged in, from the headers of a request. Raises ``Unauthenticated``."""

_OPEN = ("/assets/", "/public/", "/favicon", "/logo", "/avatars/", "/health")
_CLOSED = (
    "/mcp",
    "/auth/jwt",
    "/copilot",
    "/project/element",
    "/project/share",
    "/project/thread/share",
    "/slack",
    "/teams",
)
_NO_CHAT = "Your account has no conversations. Its work is in the dashboard: the way there is on the home page."
_SOCKET = "/ws/socket.io"
_SAFE_METHODS = frozenset({"GET", "HEAD"})
_FOREIGN_COOKIE = "oauth_state"


@dataclass(frozen=True, slots=True)
class Seat:
    """A logged-in person at one connection."""

    identity: Identity
    headers: Headers
    identify: Identify

    @property
    def ctx(self) -> TenantContext:
        """The context as it was when the connection was made; ``renew`` before acting on it."""
        return self.identity.ctx

    async def renew(self) -> Identity:
        """Who it is now. Raises ``Unauthenticated`` when the login is over or belongs to somebody else."""
        now = await self.identify(self.headers)
        if now.user_id != self.identity.user_id:
            raise Unauthenticated("Somebody else is logged in now. Reload the page.")
        return now


_seat: ContextVar[Seat | None] = ContextVar("seat", default=None)


def current_seat() -> Seat:
    """The person at this connection. Raises ``Unauthenticated`` outside of one."""
    seat = _seat.get()
    if seat is None:
        raise Unauthenticated("Log in first.")
    return seat


def sit(seat: Seat | None) -> None:
    """Take the seat for the rest of this task and the tasks it starts."""
    _seat.set(seat)


def identifier_of(identity: Identity) -> str:
    """The one string by which Chainlit knows a person: the same e-mail in two tenants is two people."""
    return f"{identity.tenant_id}:{ISSUER}:{identity.user_id}"


class Gate:
    """ASGI middleware in front of Chainlit.

    ``mint`` makes Chainlit's token for an identity; ``respond`` words an error; ``origins`` are ours whatever ``Host``
    a proxy sends.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        identify: Identify,
        mint: Callable[[Identity], str],
        respond: Callable[[Scope, BailiwickError], Response],
        login_path: str,
        origins: frozenset[str] = frozenset(),
    ) -> None:
        self._app = app
        self._identify = identify
        self._mint = mint
        self._respond = respond
        self._login_path = login_path
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if scope["type"] == "http" and path.startswith(_OPEN) and scope["method"] in _SAFE_METHODS:
            await self._app(_without_token(scope), receive, send)
            return
        headers = Headers(scope=scope)
        refusal: Response | BailiwickError | None = _refusal(scope, path, headers, self._origins)
        if refusal is None:
            try:
                identity = await self._identify(headers)
            except Unauthenticated as error:
                refusal = self._to_login(scope, headers, error)
            except BailiwickError as error:
                refusal = error
            else:
                if Right.CHAT in identity.ctx.scopes:
                    sit(Seat(identity, headers, self._identify))
                    await self._app(_with_token(scope, self._mint(identity)), receive, send)
                    return
                refusal = Forbidden(_NO_CHAT)
        if scope["type"] == "websocket":  # there is no page on which to say why
            await send({"type": "websocket.close", "code": 4403})
            return
        if isinstance(refusal, BailiwickError):
            refusal = self._respond(scope, refusal)
        await refusal(scope, receive, send)

    def _to_login(self, scope: Scope, headers: Headers, error: Unauthenticated) -> Response:
        if scope["type"] == "http" and scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            return RedirectResponse(f"{self._login_path}?next={quote(scope['path'])}", status_code=303)
        return JSONResponse({"detail": error.message}, status_code=401)


def _refusal(scope: Scope, path: str, headers: Headers, origins: frozenset[str]) -> Response | None:
    """What nobody may do, whoever they are: other sites, other transports, parts of Chainlit not used here."""
    unsafe = scope["type"] == "websocket" or scope["method"] not in _SAFE_METHODS
    origin = headers.get("origin")
    if unsafe and origin is not None and origin not in origins and urlsplit(origin).netloc != headers.get("host"):
        return JSONResponse({"detail": "Requests from other sites are refused."}, status_code=403)
    if scope["type"] == "http" and path.startswith(_SOCKET):
        return JSONResponse({"detail": "Only the websocket transport is served."}, status_code=400)
    if path.startswith(_CLOSED) or (path.rstrip("/") == "/login" and unsafe):
        return JSONResponse({"detail": "Not found"}, status_code=404)
    return None


def _with_token(scope: Scope, token: str) -> Scope:
    return _replace_cookies(scope, [f"{COOKIE}={token}"])


def _without_token(scope: Scope) -> Scope:
    return _replace_cookies(scope, [])


def _replace_cookies(scope: Scope, own: list[str]) -> Scope:
    kept = list(own)
    headers = []
    for name, value in scope["headers"]:
        if name == b"cookie":
            parts = (part.strip() for part in value.decode("latin-1").split(";"))
            kept += [part for part in parts if part and not part.startswith((COOKIE, _FOREIGN_COOKIE))]
        else:
            headers.append((name, value))
    if kept:
        headers.append((b"cookie", "; ".join(kept).encode("latin-1")))
    # A bearer token is Chainlit's second way in.
    headers = [(name, value) for name, value in headers if name != b"authorization"]
    return {**scope, "headers": headers}

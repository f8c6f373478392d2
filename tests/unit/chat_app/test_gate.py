"""The gate in front of the chat: who passes, as whom, and what nobody may do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from chat_app.routes.pages import Pages
from chat_app.session import Gate, Seat, current_seat, identifier_of, sit
from core.errors import Unauthenticated
from core.ids import TenantId, UserId
from core.settings import Settings
from core.tenancy import ActorKind, Policy, Role, TenantContext, scopes_of
from core.tenants.model import Identity


def person(name: str, role: Role = Role.MEMBER) -> Identity:
    ctx = TenantContext(
        tenant_id=TenantId("bank"),
        user_id=UserId(name),
        actor_kind=ActorKind.USER,
        actor_id=name,
        scopes=scopes_of((role,)),
        policy=Policy(),
        policy_version=1,
        org_id="org",
        region="us-east-1",
    )
    return Identity(
        UserId(name),
        TenantId("bank"),
        "Bank",
        f"{name}@bank.example",
        name,
        (role,),
        ctx,
        datetime(2030, 1, 1, tzinfo=UTC),
    )


PAGES = Pages(Settings())
PEOPLE = {"session=mia": person("mia"), "session=olga": person("olga", Role.OPERATOR)}


async def identify(headers: Headers) -> Identity:
    for part in headers.get("cookie", "").split("; "):
        if part in PEOPLE:
            return PEOPLE[part]
    raise Unauthenticated("Log in first.")


class Inside:
    """The application behind the gate: remembers whom it saw."""

    def __init__(self) -> None:
        self.seat: Seat | None = None
        self.headers: Headers | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers = Headers(scope=scope)
        try:
            self.seat = current_seat()
        except Unauthenticated:
            self.seat = None


class Visit:
    """One request or socket at the gate, and what came back."""

    def __init__(self, inside: Inside, sent: list[Message]) -> None:
        self.inside = inside
        self.sent = sent

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def location(self) -> str:
        location: bytes = dict(self.sent[0]["headers"])[b"location"]
        return location.decode()

    @property
    def passed(self) -> bool:
        return self.inside.headers is not None


async def visit(path: str, *, method: str = "GET", kind: str = "http", **headers: str) -> Visit:
    sit(None)
    inside = Inside()
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope: dict[str, Any] = {
        "type": kind,
        "path": f"/chat{path}",
        "root_path": "/chat",
        "headers": [
            (name.replace("_", "-").encode(), value.encode()) for name, value in {"host": "here:1", **headers}.items()
        ],
    }
    if kind == "http":
        scope["method"] = method
    gate = Gate(
        inside,
        identify=identify,
        mint=identifier_of,
        respond=PAGES.respond,
        login_path="/login",
    )
    await gate(scope, receive, send)
    return Visit(inside, sent)


async def test_a_person_passes_with_a_token_made_from_the_login_alone() -> None:
    seen = await visit(
        "/user", cookie="access_token=forged; session=mia; access_token_0=x", authorization="Bearer forged"
    )

    assert seen.inside.seat is not None
    assert seen.inside.seat.identity.user_id == "mia"
    assert seen.inside.headers is not None
    assert seen.inside.headers["cookie"] == "access_token=bank:local:mia; session=mia"
    assert "authorization" not in seen.inside.headers


async def test_without_a_login_a_page_leads_to_it_and_anything_else_is_refused() -> None:
    page = await visit("/thread/1", accept="text/html,*/*")
    assert (page.status, page.location) == (303, "/login?next=/chat/thread/1")
    assert (await visit("/user", accept="application/json")).status == 401
    socket = await visit("/ws/socket.io/", kind="websocket")
    assert socket.sent[0]["type"] == "websocket.close"
    assert not socket.passed


async def test_an_operator_has_no_chat() -> None:
    assert (await visit("/", cookie="session=olga", accept="text/html")).status == 403
    socket = await visit("/ws/socket.io/", kind="websocket", cookie="session=olga")
    assert (socket.passed, socket.sent) == (False, [{"type": "websocket.close", "code": 4403}])


@pytest.mark.parametrize("origin", ["http://elsewhere:1", "http://here:2", "null"])
async def test_another_site_can_neither_act_nor_open_a_socket(origin: str) -> None:
    assert (await visit("/project/action", method="POST", cookie="session=mia", origin=origin)).status == 403
    assert not (await visit("/ws/socket.io/", kind="websocket", cookie="session=mia", origin=origin)).passed


async def test_our_own_page_can() -> None:
    assert (await visit("/project/action", method="POST", cookie="session=mia", origin="http://here:1")).passed
    assert (await visit("/ws/socket.io/", kind="websocket", cookie="session=mia", origin="http://here:1")).passed


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/mcp", "POST"),
        ("/auth/jwt", "POST"),
        ("/login", "POST"),
        ("/project/element", "PUT"),
        ("/project/share/1", "GET"),
        ("/project/thread/share", "PUT"),
        ("/copilot/index.js", "GET"),
    ],
)
async def test_parts_that_are_not_used_are_not_there(path: str, method: str) -> None:
    seen = await visit(path, method=method, cookie="session=mia")
    assert seen.status == 404
    assert not seen.passed


async def test_only_the_websocket_transport_is_served() -> None:
    assert (await visit("/ws/socket.io/", cookie="session=mia")).status == 400


async def test_files_of_the_page_itself_need_no_login_and_carry_none() -> None:
    seen = await visit("/assets/index.js", cookie="access_token=forged")
    assert seen.passed
    assert seen.inside.seat is None
    assert seen.inside.headers is not None
    assert "cookie" not in seen.inside.headers


async def test_a_seat_is_lost_when_the_login_ends_or_somebody_else_logs_in() -> None:
    async def gone(_: Headers) -> Identity:
        raise Unauthenticated("The session is over.")

    async def other(_: Headers) -> Identity:
        return PEOPLE["session=olga"]

    for now in (gone, other):
        with pytest.raises(Unauthenticated):
            await Seat(PEOPLE["session=mia"], Headers({}), now).renew()

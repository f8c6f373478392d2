"""A process serves one region: whoever belongs to another is told 421 and where to go, wherever they knock."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime

import httpx
from standardwebhooks import Webhook

from core.bootstrap import open_platform
from core.embedded.process import Reaper
from core.settings import Port, Settings
from core.tenancy import ROLE_SCOPES, Role
from core.triggers.model import HOOKS, TriggerKind
from core.triggers.service import Made
from tests.fixtures.people import PEOPLE_PASSWORD, People
from tests.fixtures.serving import serving

SECRETS = ("database_app_url", "redis_url", "secret_key", "graph_password")
HOME, ADDRESS = "us-east-1", "https://us.bailiwick.example"
MAILBOX = "mia@bank.example"


def elsewhere(answer: httpx.Response, where: str) -> None:
    """It is a problem that names the region and its address."""
    assert (answer.status_code, answer.headers["content-type"]) == (421, "application/problem+json"), where
    body = answer.json()
    assert (body["code"], body["details"]) == ("wrong_region", {"region": HOME, "address": ADDRESS}), where


def page_elsewhere(answer: httpx.Response, where: str) -> None:
    """The same for people: a link that leads there."""
    assert (answer.status_code, answer.headers["content-type"]) == (421, "text/html; charset=utf-8"), where
    assert f'<a href="{ADDRESS}">Go to {HOME}</a>' in html.unescape(answer.text), where


def signed(hook: Made) -> dict[str, str]:
    """What its sender adds to an empty body."""
    now = datetime.now(UTC)
    signature = Webhook(hook.secret or "").sign("msg_1", now, "{}")
    named = {"webhook-id": "msg_1", "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}
    return {**named, "content-type": "application/json"}


async def routes(http: httpx.AsyncClient) -> list[tuple[str, str]]:
    """Method and path of every route that asks who calls."""
    document = (await http.get("/api/openapi.json")).json()
    return [
        (method, re.sub(r"{\w+}", "x" * 29, path))
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if operation.get("security") != []
    ]


async def test_every_route_and_the_chat_send_a_tenant_of_another_region_to_its_own(
    settings: Settings, reaper: Reaper
) -> None:
    async with open_platform(settings, process="test") as platform:
        token, mia = await People(platform.tenants).login(MAILBOX, "bank", Role.ADMIN)
        key = await platform.tenants.issue_key(mia.ctx, "t", tuple(ROLE_SCOPES[Role.ADMIN]))
        hook = await platform.triggers.create(mia.ctx, kind=TriggerKind.WEBHOOK, name="t", workflow="event-received")
    moved = settings.model_copy(update={"region": "eu-west-1", "region_urls": {HOME: ADDRESS}})
    session = {"Cookie": f"bailiwick_session={token}"}
    page = {"Accept": "text/html"}
    async with (
        serving(moved, "chat_app", Port.WEB, reaper, secrets=SECRETS),
        httpx.AsyncClient(base_url=settings.web_url(), timeout=30, trust_env=False) as http,
    ):
        asked = await routes(http)
        assert len(asked) > 40
        for method, path in asked:
            for who in ({"Authorization": f"Bearer {key}", "Accept": "text/event-stream"}, session):
                elsewhere(await http.request(method, path, headers=who), f"{method} {path}")
        elsewhere(
            await http.post(f"{HOOKS}/{hook.trigger.trigger_id}", content="{}", headers=signed(hook)), "a webhook"
        )
        for path in ("/chat/", "/chat/thread/x", "/", "/login"):
            page_elsewhere(await http.get(path, headers={**session, **page}), path)
        for path in ("/chat/user", "/chat/project/threads"):
            elsewhere(await http.get(path, headers=session), path)
        fields = dict(re.findall(r'name="(csrf|next)" value="([^"]*)"', (await http.get("/login?next=/chat/")).text))
        given = {**fields, "email": MAILBOX, "password": PEOPLE_PASSWORD}
        login = await http.post("/login", data=given, headers=page)
        page_elsewhere(login, "the login")
        assert "bailiwick_session" not in login.cookies
        wrong = await http.post("/login", data={**given, "password": "wrong"}, headers=page)
        assert (wrong.status_code, ADDRESS in wrong.text) == (401, False)  # who has no account here learns nothing

"""Login and logout in the browser's words: cookies, forms, redirections."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import islice

import asyncpg
import httpx
import pytest

from chat_app.logins import IN_LINE
from core.clock import FakeClock
from core.settings import Port, Settings
from core.tenancy import Role
from tests.fixtures.people import PEOPLE_PASSWORD
from tests.fixtures.web import Web, web_in

EMAIL = "mia@bank.example"


@pytest.fixture
def clock() -> FakeClock:
    """Time stands still unless a test moves it."""
    return FakeClock(datetime(2026, 1, 5, 9, 0, tzinfo=UTC))


@pytest.fixture
async def web(settings: Settings, clock: FakeClock) -> AsyncIterator[Web]:
    """The application, and a member of the bank."""
    async with web_in(settings.model_copy(update={"cookie_secure": False}), clock) as served:
        await served.people.login(EMAIL, "bank", Role.MEMBER)
        yield served


async def form_of(http: httpx.AsyncClient, path: str = "/login") -> dict[str, str]:
    """The hidden fields of a page's form."""
    page = await http.get(path)
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page.text))


async def log_in(http: httpx.AsyncClient, password: str = PEOPLE_PASSWORD, **fields: str) -> httpx.Response:
    """Fill the form in and send it."""
    return await http.post("/login", data={**await form_of(http), "email": EMAIL, "password": password, **fields})


async def test_a_login_opens_a_session_and_a_logout_ends_it_everywhere(web: Web) -> None:
    async with web.client() as http:
        page = await http.get("/login?next=/chat")
        assert "Offline model" in page.text
        assert 'value="/chat"' in page.text
        answer = await log_in(http, next="/chat")
        assert (answer.status_code, answer.headers["location"]) == (303, "/chat")
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("bailiwick_session=")
        assert {"HttpOnly", "SameSite=lax", "Path=/", "Max-Age=43200"} <= set(cookie.split("; "))
        assert "Domain" not in cookie
        token = http.cookies["bailiwick_session"]
        assert (await http.get("/api/v1/me")).json()["email"] == EMAIL
        assert "Hello Mia" in (await http.get("/")).text
        assert (await http.get("/login?next=/api/docs")).headers["location"] == "/api/docs"

        fields = await form_of(http, "/logout")
        out = await http.post("/logout", data=fields)
        assert (out.status_code, out.headers["location"]) == (303, "/login")
        assert "bailiwick_session" not in http.cookies
        stolen = {"Cookie": f"bailiwick_session={token}"}
        assert (await http.get("/api/v1/me", headers=stolen)).status_code == 401
        assert (await http.get("/logout", headers=stolen)).headers["location"] == "/login"


async def test_a_login_leads_to_our_own_pages_only(web: Web) -> None:
    dashboard = f"http://127.0.0.1:{web.platform.settings.port(Port.DASHBOARD)}/runs"
    for target, place in ((dashboard, dashboard), ("//evil.example", "/"), ("https://evil.example/", "/"), ("", "/")):
        async with web.client() as http:
            assert (await log_in(http, next=target)).headers["location"] == place


async def test_a_secure_installation_keeps_its_cookie_to_tls(web: Web) -> None:
    secure = web.platform.settings.model_copy(
        update={"cookie_secure": True, "port_base": web.platform.settings.port_base + Port.MODEL}
    )
    async with web_in(secure, web.platform.clock) as served, served.client() as http:
        page = await http.get("/login")
        assert "Secure" in page.headers["set-cookie"].split("; ")
        assert page.headers["strict-transport-security"].startswith("max-age=")
        fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', page.text))
        given = {"Cookie": page.headers["set-cookie"].split(";")[0]}
        answer = await http.post("/login", data={**fields, "email": EMAIL, "password": PEOPLE_PASSWORD}, headers=given)
        assert "Secure" in answer.headers["set-cookie"].split("; ")


async def test_a_form_that_we_did_not_serve_to_this_browser_is_refused(web: Web) -> None:
    async with web.client() as http, web.client() as other:
        theirs = await form_of(other)
        await http.get("/login")
        for fields in (theirs, {"csrf": ""}, {"csrf": "é"}, {}):
            answer = await http.post("/login", data={**fields, "email": EMAIL, "password": PEOPLE_PASSWORD})
            assert (answer.status_code, "set-cookie" in answer.headers) == (403, True)
            assert "bailiwick_session" not in answer.headers["set-cookie"]
        fields = {**await form_of(http), "email": EMAIL, "password": PEOPLE_PASSWORD}
        for foreign in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            assert (await http.post("/login", data=fields, headers=foreign)).status_code == 403
        assert (await http.post("/login", json=fields)).status_code == 415
        assert (
            await http.post("/login", content=b"\xff=1", headers={"Content-Type": "application/x-www-form-urlencoded"})
        ).status_code == 422
        await log_in(http)
        assert (await http.post("/logout", data={"csrf": "x"})).status_code == 403
        assert (await http.get("/api/v1/me")).status_code == 200


async def test_an_act_by_session_needs_the_proof_that_our_page_sent_it(web: Web) -> None:
    async with web.browser("ravi@bank.example", "bank", Role.REVIEWER) as browser:
        act = {"json": {"name": "signed", "key": "1"}}
        assert (await browser.post("/api/v1/events", **act)).status_code == 202  # type: ignore[arg-type]
        token = browser.headers.pop("X-CSRF-Token")
        for headers in ({}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": token[:-1]}, {"X-CSRF-Token": "é".encode()}):
            refused = await browser.post("/api/v1/events", headers=headers, **act)  # type: ignore[arg-type]
            assert refused.status_code == 403
        cross = {"X-CSRF-Token": token, "Origin": "https://evil.example"}
        assert (await browser.post("/api/v1/events", headers=cross, **act)).status_code == 403  # type: ignore[arg-type]


async def test_wrong_passwords_and_unknown_people_are_told_the_same_and_locked_out_alike(
    web: Web, clock: FakeClock
) -> None:
    async with web.client() as http:
        answers = []
        for email in (EMAIL, "nobody@bank.example"):
            for _ in range(10):
                answer = await log_in(http, "wrong", email=email)
                assert answer.status_code == 401
            answers.append(re.sub(email, "", (await log_in(http, "wrong", email=email)).text))
            locked = await log_in(http, email=email)
            assert (locked.status_code, locked.headers["retry-after"]) == (429, "900")
        csrf = re.compile(r'name="csrf" value="\w+"')
        assert csrf.sub("", answers[0]) == csrf.sub("", answers[1])
        clock.advance(16 * 60)
        for odd in ("", "a" * 400, "a\x00b", "<script>"):
            answer = await log_in(http, email=odd)
            assert answer.status_code == 401
            assert "<script>" not in answer.text
        assert (await log_in(http)).status_code == 303


async def test_more_logins_than_the_process_can_check_are_asked_to_come_back(web: Web, owner_dsn: str) -> None:
    owner = await asyncpg.connect(owner_dsn)
    try:
        async with web.client() as http:
            fields = {**await form_of(http), "email": EMAIL, "password": PEOPLE_PASSWORD}
            held_up = owner.transaction()
            await held_up.start()
            await owner.execute("lock login_failures")  # nobody gets through before all have come
            tries = [asyncio.create_task(http.post("/login", data=fields)) for _ in range(IN_LINE + 6)]
            refused = [await answer for answer in islice(asyncio.as_completed(tries), 6)]
            assert [(answer.status_code, "retry-after" in answer.headers) for answer in refused] == [(503, True)] * 6
            await held_up.rollback()
            answers = Counter(answer.status_code for answer in await asyncio.gather(*tries))
            assert answers == {303: IN_LINE, 503: 6}
    finally:
        await owner.close()


async def test_a_session_ends_by_itself(web: Web, clock: FakeClock) -> None:
    async with web.client() as http:
        await log_in(http)
        clock.advance(12 * 3600 - 1)
        assert (await http.get("/api/v1/me")).status_code == 200
        clock.advance(2)
        assert (await http.get("/api/v1/me")).status_code == 401


async def test_pages_hold_no_script_and_allow_none_and_name_no_other_site(web: Web) -> None:
    async with web.client() as http:
        await log_in(http)
        for path in ("/", "/logout", "/api/docs", "/nothing"):
            page = await http.get(path, headers={"Accept": "text/html"})
            policy = page.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; style-src 'self'; ")
            assert {"unsafe", "http:", "*"} & set(re.split(r"[ ;'-]", policy)) == set()
            assert "frame-ancestors 'none'" in policy
            assert page.headers["x-content-type-options"] == "nosniff"
            assert page.headers["cache-control"] == "no-store"
            assert "<script" not in page.text
            addresses = re.findall(r'(?:href|src|action)="(https?://[^"]+)"', page.text)
            assert [a for a in addresses if not a.startswith("http://127.0.0.1:")] == []

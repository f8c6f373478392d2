"""What the API says when it says no: one form, the right number, nothing from inside."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import structlog
from hypothesis import HealthCheck, given
from hypothesis import settings as explored
from hypothesis import strategies as st
from pydantic import SecretStr
from structlog.testing import capture_logs
from structlog.types import Processor

from core.ids import TenantId
from core.settings import Port, Settings
from core.tenancy import Policy, RateLimit, Role, Scope
from tests.fixtures.web import LOAN, Web, web_in

MIB = 1024 * 1024
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def web(settings: Settings) -> AsyncIterator[Web]:
    """The application on a database of its own."""
    async with web_in(settings) as served:
        yield served


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem, checked for everything that every problem has."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert (body["status"], body["code"], body["type"]) == (status, code, f"/api/docs#{code}")
    assert body["instance"] == f"urn:bailiwick:request:{response.headers['x-request-id']}"
    assert body["title"]
    assert body["detail"]
    assert ("retry-after" in response.headers) == (status in (429, 503))
    return body


async def test_identity_comes_before_right_and_right_before_body(web: Web) -> None:
    reader = await web.key("bank", Scope.RUNS_READ)
    writer = await web.key("bank", Scope.RUNS_WRITE)
    async with web.client() as nobody:
        refused = await nobody.post("/api/v1/runs", content=b"{", headers=JSON)
        problem(refused, 401, "unauthenticated")
        assert refused.headers["www-authenticate"].startswith("Bearer")
        for authorization in ("Bearer bw_x_y", f"Basic {reader}", f"Bearer {reader}x", "Bearer", reader):
            response = await nobody.get("/api/v1/runs", headers={"Authorization": authorization})
            problem(response, 401, "unauthenticated")
    async with web.client(reader) as http:
        body = problem(await http.post("/api/v1/runs", content=b"{", headers=JSON), 403, "forbidden")
        assert body["details"] == {"scope": "runs:write"}
    async with web.client(writer) as http:
        problem(await http.post("/api/v1/runs", content=b"{", headers=JSON), 422, "invalid_input")
        problem(await http.get("/api/v1/runs"), 403, "forbidden")


async def test_a_tenant_header_that_disagrees_with_the_key_is_refused(web: Web) -> None:
    key = await web.key("bank")
    await web.admin("union")
    async with web.client(key) as http:
        assert (await http.get("/api/v1/runs", headers={"X-Tenant-ID": "bank"})).status_code == 200
        problem(await http.get("/api/v1/runs", headers={"X-Tenant-ID": "union"}), 403, "forbidden")
        problem(await http.post("/api/v1/runs", json=LOAN, headers={"X-Tenant-ID": "union"}), 403, "forbidden")


async def test_bad_bodies_are_refused_with_a_pointer_to_every_fault(web: Web) -> None:
    async with web.client(await web.key("bank")) as http:
        body = problem(
            await http.post("/api/v1/runs", json={"workflow": "", "lane": "x", "z": 1}), 422, "invalid_input"
        )
        assert {fault["pointer"] for fault in body["errors"]} == {"/workflow", "/lane", "/z"}
        wrong = {**LOAN, "input": {**LOAN["input"], "age": -1}}
        body = problem(await http.post("/api/v1/runs", json=wrong), 422, "invalid_input")
        assert [fault["pointer"] for fault in body["errors"]] == ["/input/age"]
        body = problem(await http.post("/api/v1/runs", json={"workflow": "nothing"}), 422, "workflow_unknown")
        assert "loan-approval" in body["details"]["known"]
        batch = {"runs": [LOAN, wrong, {"workflow": "nothing"}]}
        body = problem(await http.post("/api/v1/runs/batch", json=batch), 422, "invalid_input")
        pointers = [fault["pointer"] for fault in body["errors"]]
        assert pointers == ["/runs/1/input/age", "/runs/2/workflow"]
        problem(await http.post("/api/v1/runs/batch", json={"runs": []}), 422, "invalid_input")
        problem(await http.get("/api/v1/runs", params={"limit": 0}), 422, "invalid_input")
        for cursor in ("x", "W10=", "WyIyMDI2LTAxLTAxIiwgInIiXQ==", "WyIyMDI2LTAxLTAxVDAwOjAwOjAwWiIsICJcdWQ4MDAiXQ=="):
            problem(await http.get("/api/v1/runs", params={"cursor": cursor}), 422, "invalid_input")
        problem(await http.get("/api/v1/runs?workflow=%00"), 422, "invalid_input")
        problem(await http.get("/api/v1/runs/%00"), 404, "not_found")
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", ""):
            response = await http.post("/api/v1/runs", content=json.dumps(LOAN), headers={"Content-Type": kind})
            problem(response, 415, "unsupported_media_type")
        assert (await http.get("/api/v1/runs")).json()["runs"] == []


async def test_a_body_above_its_limit_is_refused_whether_or_not_it_says_how_long_it_is(web: Web) -> None:
    key = await web.key("bank")

    async def undeclared() -> AsyncIterator[bytes]:
        for _ in range(3 * MIB // 65_536):
            yield b" " * 65_536

    async with web.client(key) as http:
        declared = await http.post("/api/v1/runs", content=b" " * (MIB + 1), headers=JSON)
        body = problem(declared, 413, "payload_too_large")
        assert body["details"] == {"limit": MIB}
        streamed = await http.post("/api/v1/runs", content=undeclared(), headers=JSON)
        problem(streamed, 413, "payload_too_large")
        assert "content-length" not in streamed.request.headers
        just_right = json.dumps(LOAN).encode().ljust(MIB)
        accepted = await http.post("/api/v1/runs", content=just_right, headers=JSON)
        assert accepted.status_code == 201
        large = {"workflow": "loan-approval", "input": {"note": "x" * 300_000}}
        problem(await http.post("/api/v1/runs", json=large), 413, "payload_too_large")


async def test_what_is_not_there_is_a_problem_too(web: Web) -> None:
    async with web.client() as http:
        problem(await http.get("/api/v1/nothing"), 404, "not_found")
        problem(await http.get("/nothing"), 404, "not_found")
        problem(await http.get("/static/nothing.css"), 404, "not_found")
        refused = await http.delete("/api/v1/runs")
        problem(refused, 405, "method_not_allowed")
        assert set(refused.headers["allow"].replace(" ", "").split(",")) & {"GET", "POST"}
        preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        refused = await http.options("/api/v1/runs", headers=preflight)
        problem(refused, 405, "method_not_allowed")
        assert "access-control-allow-origin" not in refused.headers
        problem(await http.get("/login", headers={"Host": "evil.example"}), 421, "unknown_host")
        assert (await http.get("/healthz", headers={"Host": "10.1.2.3:8100"})).status_code == 200
        page = await http.get("/nothing", headers={"Accept": "text/html,*/*"})
        assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")


async def test_quota_budget_rate_and_region_have_their_own_answers(web: Web) -> None:
    quota = await web.key("small", policy=Policy(daily_runs=1, timezone="Asia/Kolkata"))
    async with web.client(quota) as http:
        assert (await http.post("/api/v1/runs", json=LOAN)).status_code == 201
        refused = await http.post("/api/v1/runs", json=LOAN)
        assert problem(refused, 429, "quota_exceeded")["details"] == {"quota": "daily_runs", "limit": 1}
        assert 0 < int(refused.headers["retry-after"]) <= 86_400
    poor = await web.key("poor", policy=Policy(budget_month_microusd=0))
    async with web.client(poor) as http:
        problem(await http.post("/api/v1/runs", json=LOAN), 429, "budget_exceeded")
    hasty = await web.key("hasty", policy=Policy(rate_limits={"api": RateLimit(limit=2, window_s=3600)}))
    async with web.client(hasty) as http:
        assert [(await http.get("/api/v1/me")).status_code for _ in range(2)] == [200, 200]
        refused = await http.get("/api/v1/me")
        problem(refused, 429, "rate_limited")
        assert 3_500 < int(refused.headers["retry-after"]) <= 3_600


async def test_a_drained_tenant_and_a_full_queue_are_told_when_to_come_back(web: Web) -> None:
    key = await web.key("bank", policy=Policy(queue_depth=2))
    operator = await web.people.operator()
    async with web.client(key) as http:
        assert (await http.post("/api/v1/runs/batch", json={"runs": [LOAN, LOAN]})).status_code == 201
        refused = await http.post("/api/v1/runs", json=LOAN)
        full = problem(refused, 429, "quota_exceeded")
        assert full["details"] == {"quota": "queue_depth", "limit": 2, "queued": 2}
        assert "Submit again when some have started." in full["detail"]
        assert int(refused.headers["retry-after"]) == 900  # nothing has started yet: as long as is ever said
        await web.platform.tenants.drain(operator, TenantId("bank"), True)
        refused = await http.post("/api/v1/runs", json=LOAN)
        assert "what is queued goes on" in problem(refused, 503, "draining")["detail"]
        assert int(refused.headers["retry-after"]) == 60
        await web.platform.tenants.drain(operator, TenantId("bank"), False)
        problem(await http.post("/api/v1/runs", json=LOAN), 429, "quota_exceeded")


async def test_a_tenant_of_another_region_is_told_where_to_go(web: Web, settings: Settings) -> None:
    key = await web.key("bank")
    moved = settings.model_copy(
        update={
            "region": "eu-west-1",
            "region_urls": {"us-east-1": "https://us.example"},
            "port_base": settings.port_base + Port.MODEL,
        }
    )
    async with web_in(moved) as elsewhere, elsewhere.client(key) as http:
        body = problem(await http.get("/api/v1/runs"), 421, "wrong_region")
        assert body["details"] == {"region": "us-east-1", "address": "https://us.example"}


async def test_what_nobody_expected_is_logged_and_not_told(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret of the house")

    monkeypatch.setattr(type(web.platform.runs), "list", broken)
    told: list[Processor] = [structlog.contextvars.merge_contextvars, structlog.processors.format_exc_info]
    with capture_logs(processors=told) as lines:
        async with web.client(await web.key("bank")) as http:
            refused = await http.get("/api/v1/runs")
    problem(refused, 500, "internal")
    assert "secret of the house" not in refused.text
    (failure,) = [line for line in lines if line["event"] == "http.failed"]
    assert "secret of the house" in failure["exception"]
    assert failure["request_id"] == refused.headers["x-request-id"]


async def test_no_body_makes_the_server_fail(web: Web) -> None:
    key = await web.key("bank", policy=Policy(daily_runs=10_000_000))
    tricky = st.sampled_from(["loan-approval", "", "\u0000", "\ud800", "💥", "a" * 300, -1, 2**70, 1e308, None, True])
    values = st.recursive(
        tricky | st.text() | st.integers() | st.floats(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    )
    fields = ["workflow", "input", "version", "lane", "batch_id", "runs", "name", "key", "payload", "cron", "url"]
    changed = st.tuples(st.sampled_from([*fields, *LOAN["input"]]), values)
    bodies = st.one_of(
        values,
        st.dictionaries(st.sampled_from(fields), values, max_size=6),
        changed.map(lambda change: {**LOAN, change[0]: change[1]}),
        changed.map(lambda change: {**LOAN, "input": {**LOAN["input"], change[0]: change[1]}}),
        changed.map(lambda change: {"runs": [LOAN, {**LOAN, change[0]: change[1]}]}),
    )
    keys = st.none() | st.text(
        st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f"), max_size=9
    )
    paths = [f"/api/v1/{path}" for path in ("runs", "runs/batch", "events", "schedules", "pollers")]
    with httpx.Client(base_url=web.url, trust_env=False) as client:

        @explored(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
        @given(st.sampled_from(paths), bodies, keys)
        def explore(path: str, body: object, idempotency_key: str | None) -> None:
            given = {"Authorization": f"Bearer {key}", **JSON}
            if idempotency_key:
                given["Idempotency-Key"] = idempotency_key
            headers = httpx.Headers(given, encoding="latin-1")
            response = client.post(path, content=json.dumps(body).encode(), headers=headers)
            assert response.status_code < 500, response.text

        await asyncio.to_thread(explore)


async def test_without_redis_the_api_goes_on_and_without_postgres_it_says_so(settings: Settings) -> None:
    lost = settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:1/0")})
    async with web_in(lost) as web:
        key = await web.key("bank", policy=Policy(rate_limits={"api": RateLimit(limit=1, window_s=3600)}))
        async with web.client(key) as http:
            assert (await http.post("/api/v1/runs", json=LOAN)).status_code == 201
            assert (await http.get("/api/v1/runs")).status_code == 200
            ready = await http.get("/readyz")
            assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
            await web.platform.db.close()
            problem(await http.get("/api/v1/runs"), 503, "unavailable")
            assert (await http.get("/healthz")).status_code == 200
            async with asyncio.timeout(10):
                while (await http.get("/readyz")).status_code != 503:  # noqa: ASYNC110 - it has no event to wait for
                    await asyncio.sleep(0.05)
            assert (await http.get("/readyz")).json()["checks"]["postgres"] == "Postgres does not answer."
            login = await http.get("/login", headers={"Cookie": "bailiwick_session=" + "x" * 40})
            assert (login.status_code, login.headers["retry-after"]) == (503, "1")
            assert "A part the request needs does not answer." in login.text


async def test_a_role_without_the_right_gets_no_further_by_session(web: Web) -> None:
    async with web.browser("mia@bank.example", "bank", Role.MEMBER) as member:
        problem(await member.get("/api/v1/tenant"), 403, "forbidden")
        problem(await member.post("/api/v1/api-keys", json={"label": "x", "scopes": ["runs:read"]}), 403, "forbidden")
    async with web.browser("olga@platform.example", "platform", Role.OPERATOR) as operator:
        assert (await operator.get("/api/v1/me")).json()["roles"] == ["operator"]
        for path in ("/runs", "/reviews", "/memories", "/schedules"):
            problem(await operator.get(f"/api/v1{path}"), 403, "forbidden")

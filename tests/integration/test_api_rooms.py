"""Schedules, pollers, memories, keys, the tenant and the API's description of itself, over HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from chat_app.problems import STATUS
from core.settings import Settings
from core.tenancy import Policy, Role, Scope
from tests.fixtures.web import LOAN, Web, web_in


@pytest.fixture
async def web(settings: Settings, offline_model: str) -> AsyncIterator[Web]:
    """The application, with a model for memory."""
    async with web_in(settings.model_copy(update={"model_url": offline_model})) as served:
        yield served


@pytest.fixture
async def http(web: Web) -> AsyncIterator[httpx.AsyncClient]:
    """A program with every right of an admin of the bank."""
    async with web.client(await web.key("bank", policy=Policy(timezone="Europe/Berlin"))) as client:
        yield client


async def test_a_schedule_is_made_edited_paused_run_and_removed(http: httpx.AsyncClient) -> None:
    body = {"name": "Morning", "cron": "0 9 * * mon-fri", **LOAN}
    made = await http.post("/api/v1/schedules", json=body)
    assert made.status_code == 201
    schedule, path = made.json(), made.headers["location"]
    assert (schedule["timezone"], schedule["version"], schedule["paused"]) == ("Europe/Berlin", 1, False)
    assert len(schedule["next_fires"]) == 3
    assert schedule["next_fires"][0] == schedule["next_at"]
    edited = (await http.patch(path, json={"cron": "30 8 * * *", "version": 1})).json()
    assert (edited["cron"], edited["name"], edited["version"]) == ("30 8 * * *", "Morning", 2)
    assert (await http.patch(path, json={"name": "x", "version": 1})).status_code == 409
    wrong = await http.patch(path, json={"cron": "every day"})
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/cron")
    assert (await http.post(f"{path}/pause")).json()["next_at"] is None
    assert (await http.post(f"{path}/resume")).json()["next_at"] is not None
    run = await http.post(f"{path}/run-now")
    assert (run.status_code, run.json()["source"]) == (201, "schedule")
    assert (await http.get(run.headers["location"])).json()["run_id"] == run.json()["run_id"]
    assert (await http.get(f"{path}/fires")).json() == {"fires": []}
    assert [one["schedule_id"] for one in (await http.get("/api/v1/schedules")).json()["schedules"]] == [
        schedule["schedule_id"]
    ]
    assert [(await http.delete(path)).status_code for _ in range(2)] == [204, 404]


async def test_a_poller_is_made_edited_paused_and_removed_and_private_addresses_are_refused(
    http: httpx.AsyncClient,
) -> None:
    body = {"name": "Feed", "url": "https://example.org/feed", "workflow": "feed-changed", "interval_s": 60}
    made = await http.post("/api/v1/pollers", json=body)
    assert made.status_code == 201, made.text
    path = made.headers["location"]
    assert (await http.patch(path, json={"interval_s": 120})).json()["interval_s"] == 120
    assert (await http.post(f"{path}/pause")).json()["next_at"] is None
    assert (await http.post(f"{path}/run-now")).status_code == 409
    assert (await http.post(f"{path}/resume")).json()["next_at"] is not None
    assert (await http.post(f"{path}/run-now")).status_code == 202
    private = await http.post("/api/v1/pollers", json={**body, "url": "http://169.254.169.254/latest"})
    assert (private.status_code, private.json()["code"]) == (422, "address_refused")
    unfit = await http.post("/api/v1/pollers", json={**body, "workflow": "loan-approval"})
    assert unfit.status_code == 422
    assert [(await http.delete(path)).status_code for _ in range(2)] == [204, 404]


async def test_a_memory_is_found_and_forgotten(web: Web, http: httpx.AsyncClient) -> None:
    await web.memory.remember(await web.admin("bank"), "We never approve below a score of 620.", thread_id=None)
    found = (await http.get("/api/v1/memories", params={"query": "which score is needed?"})).json()["memories"]
    assert "620" in found[0]["text"]
    listed = (await http.get("/api/v1/memories")).json()["memories"]
    assert found[0]["memory_id"] in {one["memory_id"] for one in listed}
    for one in listed:
        assert (await http.delete(f"/api/v1/memories/{one['memory_id']}")).status_code == 204
    assert (await http.get("/api/v1/memories")).json() == {"memories": []}


async def test_a_key_is_issued_used_and_revoked_and_never_has_more_rights_than_its_maker(
    web: Web, http: httpx.AsyncClient
) -> None:
    issued = (await http.post("/api/v1/api-keys", json={"label": "Reader", "scopes": ["runs:read"]})).json()
    async with web.client(issued["key"]) as reader:
        me = (await reader.get("/api/v1/me")).json()
        assert (me["scopes"], me["actor"], me["csrf_token"]) == (["runs:read"], f"api_key:{issued['key_id']}", None)
        assert (await reader.get("/api/v1/runs")).status_code == 200
        assert issued["key"] not in (await http.get("/api/v1/api-keys")).text
        assert (await http.delete(f"/api/v1/api-keys/{issued['key_id']}")).status_code == 204
        assert (await reader.get("/api/v1/runs")).status_code == 401
    greedy = await http.post("/api/v1/api-keys", json={"label": "x", "scopes": ["platform:operate"]})
    assert (greedy.status_code, greedy.json()["details"]["scopes"]) == (403, ["platform:operate"])
    limited = await web.key("bank", Scope.TENANT_WRITE)
    async with web.client(limited) as writer:
        wider = await writer.post("/api/v1/api-keys", json={"label": "x", "scopes": ["runs:write"]})
        assert wider.status_code == 403


async def test_the_tenant_tells_its_policy_usage_and_budget_and_an_admin_changes_what_is_theirs(
    http: httpx.AsyncClient,
) -> None:
    await http.post("/api/v1/runs/batch", json={"runs": [LOAN] * 4})
    tenant = (await http.get("/api/v1/tenant")).json()
    assert (tenant["tenant_id"], tenant["name"], tenant["region"]) == ("bank", "Bank", "us-east-1")
    assert (tenant["usage"]["queued"], tenant["usage"]["runs_today"], tenant["usage"]["concurrency_cap"]) == (4, 4, 3)
    assert tenant["budget"]["left_microusd"] == tenant["policy"]["budget_month_microusd"] == 100_000_000
    assert (await http.get("/api/v1/tenant/estimates")).json() == {"steps": []}
    policy = {**tenant["policy"], "timezone": "Asia/Tokyo", "denied_tools": ["forget"]}
    changed = await http.put("/api/v1/tenant/policy", json=policy)
    assert (changed.status_code, changed.json()["policy_version"]) == (200, tenant["policy_version"] + 1)
    assert (await http.get("/api/v1/tenant")).json()["policy"] == policy
    refused = await http.put("/api/v1/tenant/policy", json={**policy, "weight": 1_000, "concurrency_cap": 99})
    assert (refused.status_code, set(refused.json()["details"]["fields"])) == (403, {"weight", "concurrency_cap"})
    wrong = await http.put("/api/v1/tenant/policy", json={**policy, "weight": -1, "colour": "red"})
    assert {fault["pointer"] for fault in wrong.json()["errors"]} == {"/weight", "/colour"}


async def test_a_person_is_told_who_they_are(web: Web) -> None:
    async with web.browser("rosa@bank.example", "bank", Role.MEMBER, Role.REVIEWER) as browser:
        me = (await browser.get("/api/v1/me")).json()
        assert (me["email"], me["tenant_name"], me["roles"]) == ("rosa@bank.example", "Bank", ["member", "reviewer"])
        assert "reviews:decide" in me["scopes"]


async def test_the_description_of_the_api_is_complete_and_its_examples_are_accepted(http: httpx.AsyncClient) -> None:
    document: dict[str, Any] = (await http.get("/api/openapi.json")).json()
    schemas = document["components"]["schemas"]
    assert set(document["components"]["securitySchemes"]) == {"key", "session"}
    assert "HTTPValidationError" not in schemas
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert references <= set(schemas)
    operations = [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    assert len({operation["operationId"] for _, _, operation in operations}) == len(operations) >= 37
    for method, path, operation in operations:
        where = f"{method} {path}"
        assert operation["description"], where
        signed = operation.get("security") == []
        assert ("x-right" in operation) == (path != "/api/v1/me" and not signed), where
        good = {status: one for status, one in operation["responses"].items() if status.startswith("2")}
        assert good, where
        for status, one in good.items():
            content = one.get("content", {})
            if "application/octet-stream" in content:
                continue  # a file
            assert ("$ref" in content["application/json"]["schema"]) if status != "204" else not content, where
        refusals = {status: one for status, one in operation["responses"].items() if not status.startswith("2")}
        assert {"401", "421", "422", "429", "503"} <= set(refusals), where
        assert ("403" in refusals) != signed, where
        assert ("404" in refusals) == ("{" in path and not signed), where
        for one in refusals.values():
            (form,) = one["content"].items()
            assert form[0] == "application/problem+json"
            assert all(example["value"]["code"] in STATUS for example in form[1]["examples"].values())
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
        if body is None:
            continue
        assert {"413", "415"} <= set(refusals), where
        schema = schemas[body["$ref"].rpartition("/")[2]]
        if method == "post" and "{" not in path and operation.get("x-right") != Scope.PLATFORM_OPERATE:
            for example in schema["examples"]:
                answer = await http.post(path, json=example)
                assert answer.is_success, (path, answer.text)


async def test_the_page_about_the_api_shows_every_route_and_problem(http: httpx.AsyncClient) -> None:
    document = (await http.get("/api/openapi.json")).json()
    page = (await http.get("/api/docs")).text
    for path, methods in document["paths"].items():
        assert f"<code>{path}</code>" in page
        assert all(f'id="{operation["operationId"]}"' in page for operation in methods.values())
    assert all(f'<tr id="{code}">' in page for code in STATUS)

"""Every route that takes an id, asked by another tenant: the answer is that of an id that never existed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from core.ids import RunId, WorkerId
from core.runs.execution import Executing
from core.settings import Settings
from core.tenancy import ActorKind, TenantContext
from tests.fixtures.web import LOAN, Web, web_in

OWNER, STRANGER = "bank", "union"


@pytest.fixture
async def web(settings: Settings, offline_model: str) -> AsyncIterator[Web]:
    """The application, with a model to make a memory with."""
    async with web_in(settings.model_copy(update={"model_url": offline_model})) as served:
        yield served


async def open_review(web: Web, ctx: TenantContext, run_id: RunId) -> str:
    """What a worker would write when the run asks for a decision."""
    platform, worker = web.platform, WorkerId("w1")
    await platform.queue.heartbeat(worker, 10)
    claims = await platform.queue.claim(worker, 10)
    (claim,) = [claim for claim in claims if claim.run_id == run_id]
    acting = await platform.tenants.context_for(ctx.tenant_id, actor_kind=ActorKind.RUN, actor_id=run_id)
    on = Executing(acting, run_id, claim.attempt, claim.budget_microusd, claim.batch_id, claim.thread_id)
    asked: dict[str, Any] = {"pool": "general", "title": "A case", "evidence": {}, "choices": ["approve"]}
    assert await platform.reviews.request(on, 1, **asked, sla_s=60) is None
    (review,) = await platform.reviews.open(ctx)
    return review.review_id


async def owned(web: Web, http: httpx.AsyncClient) -> dict[str, str]:
    """One object of every kind that a path can name, by the name of the parameter."""
    ctx = await web.admin(OWNER)
    run = (await http.post("/api/v1/runs", json={**LOAN, "batch_id": "batch-of-the-bank"})).json()
    schedule = {"name": "s", "cron": "0 9 * * *", "workflow": LOAN["workflow"], "input": LOAN["input"]}
    poller = {"name": "p", "url": "https://example.org/feed", "workflow": "feed-changed"}
    trigger = {"kind": "webhook", "name": "t", "workflow": "event-received"}
    (memory, *_) = await web.memory.remember(ctx, "We never approve below a score of 620.", thread_id=None)
    return {
        "run_id": run["run_id"],
        "batch_id": run["batch_id"],
        "bulk_id": (await http.post("/api/v1/bulk", json={"act": "cancel"})).json()["bulk_id"],
        "review_id": await open_review(web, ctx, run["run_id"]),
        "schedule_id": (await http.post("/api/v1/schedules", json=schedule)).json()["schedule_id"],
        "poller_id": (await http.post("/api/v1/pollers", json=poller)).json()["poller_id"],
        "trigger_id": (await http.post("/api/v1/triggers", json=trigger)).json()["trigger"]["trigger_id"],
        "memory_id": memory.memory_id,
        "blob_id": (await http.post("/api/v1/blobs", content=b"of the bank")).json()["blob_id"],
        "key_id": (await http.get("/api/v1/api-keys")).json()["keys"][0]["key_id"],
    }


async def routes(http: httpx.AsyncClient) -> list[tuple[str, str, Any]]:
    """Method, path and example body of every route of the API that asks who calls; webhooks are signed instead."""
    document = (await http.get("/api/openapi.json")).json()
    found = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if operation.get("security") == []:
                continue
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
            schema = document["components"]["schemas"].get(name, {})
            found.append((method, path, (schema.get("examples") or [None])[0]))
    return found


async def state_of(http: httpx.AsyncClient) -> list[Any]:
    """Everything the owner has, as the owner sees it."""
    lists = ("runs", "reviews?state=all", "schedules", "pollers", "triggers", "memories", "api-keys")
    return [(await http.get(f"/api/v1/{name}")).json() for name in lists]


STREAM = "/api/v1/events"
OF_OPERATORS = "/api/v1/versions"
NO_IDS = ("/api/v1/me", "/api/v1/tenant", "/api/v1/tenant/estimates")
"""What tells of the caller's organisation without naming anything it owns."""


def never(value: str) -> str:
    """An id of the same form that nothing has."""
    return value[:-1] + ("1" if value[-1] == "0" else "0")


def same(one: httpx.Response) -> bytes:
    """The answer without the number of its request."""
    number = one.headers["x-request-id"].encode()
    assert one.content.count(number) == 1
    return one.content.replace(number, b"")


async def test_what_another_tenant_owns_answers_like_what_does_not_exist(web: Web) -> None:
    async with (
        web.client(await web.key(OWNER)) as owner,
        web.client(await web.key(STRANGER)) as stranger,
    ):
        ids = await owned(web, owner)
        before = await state_of(owner)
        asked = [route for route in await routes(stranger) if "{" in route[1]]
        assert {name for name in ids if any(f"{{{name}}}" in path for _, path, _ in asked)} == set(ids)
        for method, path, body in asked:
            asked_for = [path.format(**ids), path.format(**{name: never(value) for name, value in ids.items()})]
            answers = [
                await stranger.request(method, place, json=body, headers={"Accept": accept})
                for place in asked_for
                for accept in ("*/*", "text/event-stream")
            ]
            assert {answer.status_code for answer in answers} == {404}, (method, path, answers[0].text)
            assert len({same(answer) for answer in answers}) == 1, (method, path)
            headers = [{name for name, _ in answer.headers.items()} for answer in answers]
            assert all(names == headers[0] for names in headers)
        assert await state_of(owner) == before


async def test_no_list_shows_anything_of_another_tenant(web: Web) -> None:
    async with (
        web.client(await web.key(OWNER)) as owner,
        web.client(await web.key(STRANGER)) as stranger,
    ):
        ids = await owned(web, owner)
        lists = [path for method, path, _ in await routes(stranger) if method == "get" and "{" not in path]
        lists.remove(STREAM)
        lists.remove(OF_OPERATORS)
        assert (await stranger.get(OF_OPERATORS)).status_code == 403
        assert len(lists) >= 8
        for path in lists:
            answer = await stranger.get(path)
            assert answer.status_code == 200, path
            shown = json.dumps(answer.json())
            assert [name for name, value in ids.items() if value in shown] == [], path
            seen = json.dumps((await owner.get(path)).json())
            assert any(value in seen for value in ids.values()) or path in NO_IDS
        found = await stranger.get("/api/v1/memories", params={"query": "approve below 620"})
        assert found.json() == {"memories": []}
        for filtered in ("batch_id=batch-of-the-bank", "workflow=loan-approval"):
            assert (await stranger.get(f"/api/v1/runs?{filtered}")).json()["runs"] == []


async def test_the_stream_of_a_tenant_tells_of_its_own_runs_only(web: Web) -> None:
    async with (
        web.client(await web.key(OWNER)) as owner,
        web.client(await web.key(STRANGER)) as stranger,
        owner.stream("GET", STREAM) as ours,
        stranger.stream("GET", STREAM) as theirs,
    ):
        run_id = (await owner.post("/api/v1/runs", json=LOAN)).json()["run_id"]
        async for line in ours.aiter_lines():
            if run_id in line:
                break
        own_id = (await stranger.post("/api/v1/runs", json=LOAN)).json()["run_id"]
        async for line in theirs.aiter_lines():
            assert run_id not in line
            if own_id in line:
                break


async def test_no_route_lets_a_header_or_a_missing_identity_choose_the_tenant(web: Web) -> None:
    async with (
        web.client(await web.key(OWNER)) as owner,
        web.client(await web.key(STRANGER)) as stranger,
        web.client() as nobody,
    ):
        ids = await owned(web, owner)
        before = await state_of(owner)
        for method, path, body in await routes(owner):
            place = path.format(**ids)
            named = await stranger.request(method, place, json=body, headers={"X-Tenant-ID": OWNER})
            assert (named.status_code, named.json()["code"]) == (403, "forbidden"), path
            unknown = await nobody.request(method, place, json=body, headers={"X-Tenant-ID": OWNER})
            assert (unknown.status_code, unknown.json()["code"]) == (401, "unauthenticated"), path
        assert await state_of(owner) == before


async def test_the_same_idempotency_key_means_another_run_in_another_tenant(web: Web) -> None:
    async with (
        web.client(await web.key(OWNER)) as owner,
        web.client(await web.key(STRANGER)) as stranger,
    ):
        key = {"Idempotency-Key": "row-1"}
        first = await owner.post("/api/v1/runs", json=LOAN, headers=key)
        second = await stranger.post("/api/v1/runs", json={**LOAN, "lane": "urgent"}, headers=key)
        assert (first.status_code, second.status_code) == (201, 201)
        assert first.json()["run_id"] != second.json()["run_id"]

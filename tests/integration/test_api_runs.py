"""Runs over HTTP: submit, follow, decide, cancel, retry; as a program does it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.ids import TenantId, WorkerId
from core.settings import Settings
from core.tenancy import Policy, Role, Scope
from tests.fixtures.web import LOAN, Web, web_in
from tests.fixtures.workers import SAMPLES, Site, working

POLICY = Policy(concurrency_cap=8, daily_runs=10_000, queue_depth=5_000)


@pytest.fixture
async def web(settings: Settings) -> AsyncIterator[Web]:
    """The application, with the sample workflows."""
    async with web_in(settings.model_copy(update={"workflow_modules": SAMPLES, "worker_slots": 8})) as served:
        yield served


@pytest.fixture
async def http(web: Web) -> AsyncIterator[httpx.AsyncClient]:
    """A program of the tenant ``bank``."""
    async with web.client(await web.key("bank", policy=POLICY)) as client:
        yield client


async def site(web: Web) -> Site:
    admin = await web.admin("bank")
    _, reviewer = await web.people.login("ravi@bank.example", "bank", Role.REVIEWER)
    return Site(web.platform, web.platform.settings, admin, reviewer.ctx)


async def test_a_submission_sent_again_answers_with_the_run_of_the_first(http: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "row 1"}
    both = await asyncio.gather(*(http.post("/api/v1/runs", json=LOAN, headers=key) for _ in range(8)))
    assert sorted({response.status_code for response in both} - {409}) in ([200, 201], [201])
    assert [response.status_code for response in both].count(201) == 1
    assert len({response.json()["run_id"] for response in both if response.status_code != 409}) == 1
    again = await http.post("/api/v1/runs", json=LOAN, headers=key)
    assert (again.status_code, again.headers["location"]) == (200, f"/api/v1/runs/{again.json()['run_id']}")
    other = await http.post("/api/v1/runs", json={**LOAN, "lane": "urgent"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    fresh = await http.post("/api/v1/runs", json=LOAN)
    assert (fresh.status_code, fresh.json()["state"], fresh.json()["cause"]) == (201, "queued", "no_worker")
    assert len((await http.get("/api/v1/runs")).json()["runs"]) == 2


async def test_a_batch_is_submitted_whole_once_and_found_page_by_page(http: httpx.AsyncClient) -> None:
    batch = {"runs": [{**LOAN, "lane": "background"} for _ in range(1_000)]}
    key = {"Idempotency-Key": "monday"}
    first = await http.post("/api/v1/runs/batch", json=batch, headers=key)
    assert first.status_code == 201, first.text
    again = await http.post("/api/v1/runs/batch", json=batch, headers=key)
    assert again.json()["runs"] == first.json()["runs"]
    shorter = await http.post("/api/v1/runs/batch", json={"runs": batch["runs"][:10]}, headers=key)
    assert (shorter.status_code, shorter.json()["code"]) == (409, "idempotency_conflict")
    renamed = await http.post("/api/v1/runs/batch", json={**batch, "batch_id": "monday"}, headers=key)
    assert (renamed.status_code, renamed.json()["errors"][0]["pointer"]) == (422, "/batch_id")
    too_many = await http.post("/api/v1/runs/batch", json={"runs": [LOAN] * 1_001})
    assert (too_many.status_code, too_many.json()["errors"][0]["pointer"]) == (422, "/runs")

    named = {"batch_id": "tuesday", "runs": [{**LOAN, "idempotency_key": f"t{n}"} for n in range(3)]}
    ids = [(await http.post("/api/v1/runs/batch", json=named)).json()["runs"] for _ in range(2)]
    assert ids[0] == ids[1]

    seen: list[str] = []
    query: dict[str, Any] = {"batch_id": first.json()["batch_id"], "state": "queued", "limit": 200}
    while query.get("cursor", "") is not None:
        page = (await http.get("/api/v1/runs", params=query)).json()
        seen += [run["run_id"] for run in page["runs"]]
        query["cursor"] = page["next_cursor"]
    assert sorted(seen) == sorted(run["run_id"] for run in first.json()["runs"])
    progress = (await http.get(f"/api/v1/batches/{first.json()['batch_id']}")).json()
    assert (progress["total"], progress["queued"], progress["finished"]) == (1_000, 1_000, 0)
    for query in ({"state": "running"}, {"workflow": "other"}, {"outcome": "declined"}, {"batch_id": "wednesday"}):
        assert (await http.get("/api/v1/runs", params=query)).json() == {"runs": [], "next_cursor": None}


async def test_a_queued_run_says_why_it_waits_and_when_it_starts(web: Web, http: httpx.AsyncClient) -> None:
    submitted = (await http.post("/api/v1/runs", json=LOAN)).json()
    url = f"/api/v1/runs/{submitted['run_id']}"
    run = (await http.get(url)).json()
    assert (run["cause"], run["starts_in"]) == ("no_worker", None)
    assert "no_worker" in run["waited_s"]
    await web.platform.queue.heartbeat(WorkerId("w"), 4)
    run = (await http.get(url)).json()
    assert run["starts_in"] == {"soonest_s": 0, "latest_s": 0}
    assert set(run["waited_s"]) == {"no_worker", "share"}
    assert run["waited_s"]["share"] > 0
    assert set(run) - set(submitted) == {"starts_in", "waited_s", "children"}


async def test_a_queued_run_is_cancelled_and_retried_and_says_so(http: httpx.AsyncClient) -> None:
    run = (await http.post("/api/v1/runs", json=LOAN)).json()
    path = f"/api/v1/runs/{run['run_id']}"
    assert (await http.post(f"{path}/retry")).status_code == 409
    assert (await http.post(f"{path}/cancel")).json()["state"] == "cancelled"
    refused = await http.post(f"{path}/cancel")
    assert (refused.status_code, refused.json()["details"]) == (409, {"state": "cancelled"})
    assert (await http.post(f"{path}/retry")).json()["state"] == "queued"
    events = (await http.get(f"{path}/events")).json()["events"]
    assert [event["kind"] for event in events][-2:] == ["cancelled", "retried"]
    assert (await http.get(f"{path}/events", params={"after_seq": events[-1]["seq"]})).json() == {"events": []}
    assert (await http.get(f"{path}/steps")).json() == {"steps": []}


async def test_a_queued_run_is_paused_resumed_and_forked(http: httpx.AsyncClient) -> None:
    run = (await http.post("/api/v1/runs", json=LOAN)).json()
    path = f"/api/v1/runs/{run['run_id']}"
    assert (await http.post(f"{path}/resume")).status_code == 409
    paused = (await http.post(f"{path}/pause")).json()
    assert (paused["state"], paused["cause"], paused["held"]) == ("waiting", "paused", True)
    assert (await http.post(f"{path}/pause")).status_code == 409
    assert (await http.post(f"{path}/resume")).json()["state"] == "queued"
    await http.post(f"{path}/cancel")
    far = await http.post(f"{path}/retry", params={"from_step": 2})
    assert (far.status_code, far.json()["code"]) == (422, "invalid_input")
    key = {"Idempotency-Key": "again"}
    forks = [await http.post(f"{path}/fork", json={"from_step": 1}, headers=key) for _ in range(2)]
    assert [fork.status_code for fork in forks] == [201, 200]
    assert forks[0].json()["forked_from"] == run["run_id"]
    assert (await http.post(f"{path}/fork", json={"from_step": 1, "input": {"age": "x"}})).status_code == 422


async def test_nothing_is_done_for_a_program_that_may_not_see_what_became_of_it(
    web: Web, http: httpx.AsyncClient
) -> None:
    path = f"/api/v1/runs/{(await http.post('/api/v1/runs', json=LOAN)).json()['run_id']}"
    async with web.client(await web.key("bank", Scope.RUNS_WRITE)) as blind:
        assert (await blind.post(f"{path}/cancel")).status_code == 403
        assert (await blind.post("/api/v1/bulk", json={"act": "cancel"})).status_code == 403
    assert (await http.get(path)).json()["state"] == "queued"


async def test_an_admin_says_what_a_run_may_spend_and_a_program_with_fewer_rights_does_not(
    web: Web, http: httpx.AsyncClient
) -> None:
    run = (await http.post("/api/v1/runs", json=LOAN)).json()
    path = f"/api/v1/runs/{run['run_id']}/budget"
    assert (await http.put(path, json={"budget_microusd": 60_000})).json()["budget_microusd"] == 60_000
    too_much = await http.put(path, json={"budget_microusd": 200_000})
    assert (too_much.status_code, too_much.json()["details"]["limit_microusd"]) == (422, POLICY.budget_run_microusd)
    assert (await http.put(path, json={"budget_microusd": -1})).status_code == 422
    async with web.client(await web.key("bank", Scope.RUNS_READ, Scope.RUNS_WRITE)) as lesser:
        assert (await lesser.put(path, json={"budget_microusd": 1})).status_code == 403
    assert (await http.get(path.removesuffix("/budget"))).json()["budget_microusd"] == 60_000


async def test_many_runs_are_chosen_looked_at_and_cancelled(http: httpx.AsyncClient) -> None:
    await http.post("/api/v1/runs/batch", json={"runs": [LOAN] * 3, "batch_id": "monday"})
    await http.post("/api/v1/runs", json=LOAN)
    chosen = await http.post("/api/v1/bulk", json={"act": "cancel", "runs": {"batch_id": "monday"}})
    bulk = chosen.json()
    assert (chosen.status_code, bulk["by_state"], len(bulk["sample"])) == (201, {"queued": 3}, 3)
    path = chosen.headers["location"]
    async with asyncio.timeout(30):
        while (await http.post(path)).json()["state"] != "done":
            """It answers after two seconds at most; asked again, it goes on."""
    applied = [await http.post(path) for _ in range(2)]
    assert [(each.status_code, each.json()["state"], each.json()["done"]) for each in applied] == [(202, "done", 3)] * 2
    assert (await http.get(path)).json() == applied[0].json()
    left = (await http.get("/api/v1/runs", params={"state": "queued"})).json()["runs"]
    assert len(left) == 1


class Stream:
    """Server-sent events, read one by one."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()

    async def next(self) -> dict[str, Any] | None:
        """The next event; None: the stream ended."""
        event: dict[str, str] = {}
        async for line in self._lines:
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                event[name] = value
            elif "data" in event:
                data: dict[str, Any] = json.loads(event["data"])
                assert (int(event["id"]), event["event"]) == (data["seq"], data["kind"])
                return data
            else:
                event = {}
        return None

    async def until(self, kind: str) -> list[dict[str, Any]]:
        """Everything up to an event of this kind."""
        seen = []
        while (event := await self.next()) is not None:
            seen.append(event)
            if event["kind"] == kind:
                return seen
        raise AssertionError(f"the stream ended before {kind}: {seen}")


async def test_a_stream_tells_everything_once_and_goes_on_where_it_broke_off(
    web: Web, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    stream_of = {"Accept": "text/event-stream"}
    async with asyncio.timeout(60):
        async with working(await site(web)):
            body = {"workflow": "sample-review", "input": {"log": str(tmp_path / "log"), "number": 7}}
            path = f"/api/v1/runs/{(await http.post('/api/v1/runs', json=body)).json()['run_id']}"
            async with http.stream("GET", f"{path}/events", headers=stream_of) as response:
                assert response.headers["content-type"].startswith("text/event-stream")
                before = await Stream(response).until("waiting")
            (review,) = (await http.get("/api/v1/reviews")).json()["reviews"]
            assert (await http.get(path)).json()["cause"] == "review"

            resumed = {**stream_of, "Last-Event-ID": str(before[-1]["seq"])}
            async with http.stream("GET", f"{path}/events", headers=resumed) as response:
                stream = Stream(response)
                decision = {"verdict": review["choices"][0], "comment": "seen"}
                place = f"/api/v1/reviews/{review['review_id']}/decision"
                assert (await http.post(place, json=decision)).status_code == 403  # this key submitted the run
                async with web.browser("rosa@bank.example", "bank", Role.REVIEWER) as rosa:
                    assert (await rosa.post(place, json=decision)).json()["verdict"] == review["choices"][0]
                    again = await rosa.post(place, json=decision)
                    assert (again.status_code, again.json()["details"]["verdict"]) == (409, review["choices"][0])
                after = await stream.until("succeeded")
                assert await stream.next() is None
        everything = (await http.get(f"{path}/events")).json()["events"]
        assert [event["seq"] for event in before + after] == list(range(1, len(everything) + 1))
        assert before + after == everything
        steps = (await http.get(f"{path}/steps")).json()["steps"]
        assert [step["state"] for step in steps] == ["done"] * 3
        async with http.stream("GET", f"{path}/events", headers=stream_of) as response:
            assert await Stream(response).until("succeeded") == everything


async def test_a_stream_of_changes_answers_once_it_hears_them(web: Web, http: httpx.AsyncClient) -> None:
    redis = web.platform.bus.connection
    channel = redis.keys.events(TenantId("bank"))
    async with http.stream("GET", "/api/v1/events") as answered:
        assert answered.status_code == 200
        assert [count for _, count in await redis.client.pubsub_numsub(channel)] == [1]


async def test_a_revoked_key_or_the_end_of_the_process_ends_a_stream(web: Web, http: httpx.AsyncClient) -> None:
    admin = await web.admin("bank")
    key = await web.platform.tenants.issue_key(admin, "reader", (Scope.RUNS_READ,))
    path = f"/api/v1/runs/{(await http.post('/api/v1/runs', json=LOAN)).json()['run_id']}"
    stream_of = {"Accept": "text/event-stream"}
    async with asyncio.timeout(30), web.client(key, **stream_of) as reader:
        async with reader.stream("GET", f"{path}/events") as revoked:
            lines = revoked.aiter_lines()
            while not (await anext(lines)).startswith("event: submitted"):
                pass
            await web.platform.tenants.revoke_key(admin, key.split("_")[1])
            await http.post(f"{path}/cancel")
            rest = [line async for line in lines]
        assert "data: unauthenticated" in rest
        assert not any("cancelled" in line for line in rest)
        queued = f"/api/v1/runs/{(await http.post('/api/v1/runs', json=LOAN)).json()['run_id']}"
        async with http.stream("GET", f"{queued}/events", headers=stream_of) as cut:
            stream = Stream(cut)
            await stream.until("submitted")
            web.stopping.set()
            assert await stream.next() is None


async def test_an_event_sent_twice_is_one_event_and_a_large_one_is_refused(http: httpx.AsyncClient) -> None:
    event = {"name": "signed", "key": "17", "payload": {"by": "mia"}}
    answers = [await http.post("/api/v1/events", json=event) for _ in range(2)]
    assert [(answer.status_code, answer.json()["new"]) for answer in answers] == [(202, True), (202, False)]
    large = await http.post("/api/v1/events", json=event | {"key": "18", "payload": {"by": "x" * 300_000}})
    assert (large.status_code, large.json()["code"]) == (413, "payload_too_large")


async def test_the_runs_that_a_run_spawned_are_counted_and_listed(web: Web, http: httpx.AsyncClient) -> None:
    async with working(await site(web)):
        body = {"workflow": "family-map", "input": {"count": 3, "odd": 1}}
        parent = (await http.post("/api/v1/runs", json=body)).json()
        url = f"/api/v1/runs/{parent['run_id']}"

        async def ended() -> dict[str, Any] | None:
            run: dict[str, Any] = (await http.get(url)).json()
            return run if run["finished_at"] else None

        run = await (await site(web)).until(ended)
    assert (run["error"]["code"], run["children"], run["parent_run_id"]) == (
        "child_failed",
        {"succeeded": 2, "failed": 1},
        None,
    )
    children = (await http.get("/api/v1/runs", params={"parent": parent["run_id"]})).json()["runs"]
    assert [child["parent_run_id"] for child in children] == [parent["run_id"]] * 3
    failed = (await http.get(f"/api/v1/runs/{run['error']['details']['run_id']}")).json()
    assert (failed["state"], failed["children"]) == ("failed", {})

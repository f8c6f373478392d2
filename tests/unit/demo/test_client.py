"""How a program should use the API: patient where waiting helps, plain where it does not."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from core.demo import client
from core.demo.client import ApiClient
from core.errors import StepFailed
from core.runs.model import RunEvent

BUSY = JSONResponse({"detail": "Overloaded."}, 503, {"Retry-After": "1"})
DONE = JSONResponse({"runs": [], "next_cursor": None})


@dataclass
class Api:
    """Gives its answers one after the other."""

    answers: list[Response]
    asked: list[str] = field(default_factory=list)
    after: list[str | None] = field(default_factory=list)

    def client(self, *, patience_s: float = 30) -> ApiClient:
        async def answer(request: Request) -> Response:
            self.asked.append(f"{request.method} {request.url.path} {request.headers['authorization']}")
            self.after.append(request.headers.get("last-event-id"))
            return self.answers.pop(0)

        app = Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])
        transport = httpx.ASGITransport(app)
        return ApiClient("http://api", "bw_1_2", deadline=time.monotonic() + patience_s, transport=transport)


async def ask(answers: Sequence[Response], *, patience_s: float = 30) -> Api:
    api = Api(list(answers))
    async with api.client(patience_s=patience_s) as client:
        assert await client.post("/runs/batch", {}) == {"runs": [], "next_cursor": None}
    return api


async def test_it_waits_as_long_as_it_is_told_and_sends_the_same_again() -> None:
    began = time.monotonic()
    quota = JSONResponse({"detail": "Too many."}, 429, {"Retry-After": "1"})
    api = await ask([BUSY, quota, Response(status_code=502), DONE])
    assert api.asked == ["POST /api/v1/runs/batch Bearer bw_1_2"] * 4
    assert time.monotonic() - began >= 2


async def test_a_pause_beyond_the_deadline_is_not_waited_for() -> None:
    tomorrow = JSONResponse({"detail": "The daily quota is used up."}, 429, {"Retry-After": "80000"})
    with pytest.raises(StepFailed, match="429: The daily quota is used up"):
        await ask([tomorrow])


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422])
async def test_what_waiting_does_not_help_is_told_at_once(status: int) -> None:
    with pytest.raises(StepFailed, match=f"{status}: No."):
        await ask([JSONResponse({"detail": "No."}, status)])


async def test_pages_are_read_to_the_last() -> None:
    pages = [{"runs": [{"run_id": "a"}], "next_cursor": "x"}, {"runs": [{"run_id": "b"}], "next_cursor": None}]
    api = Api([JSONResponse(page) for page in pages])
    async with api.client() as client:
        assert [run["run_id"] async for run in client.runs(batch_id="demo-1")] == ["a", "b"]


def stream(*events: tuple[int, str], problem: str = "") -> Response:
    at = "2026-01-05T12:00:00Z"
    told = [
        f'id: {seq}\nevent: {kind}\ndata: {{"seq":{seq},"at":"{at}","kind":"{kind}","data":{{}}}}\n\n'
        for seq, kind in events
    ]
    end = f"event: problem\ndata: {problem}\n\n" if problem else ""
    return Response("retry: 2000\n\n" + ": still here\n\n".join(told) + end, media_type="text/event-stream")


async def read(*answers: Response, after: int = 0) -> tuple[Api, list[RunEvent]]:
    api = Api(list(answers))
    async with api.client() as client:
        return api, [event async for event in client.events("run_1", after)]


async def test_a_stream_that_ends_before_its_run_is_taken_up_where_it_ended() -> None:
    api, events = await read(
        stream((1, "submitted"), (2, "failed"), (3, "retried")),  # the process was told to stop
        Response(status_code=502),
        stream((4, "claimed"), problem="unavailable"),
        BUSY,
        stream((5, "succeeded")),
    )
    assert [(event.seq, event.kind) for event in events] == [
        (1, "submitted"),
        (2, "failed"),
        (3, "retried"),
        (4, "claimed"),
        (5, "succeeded"),
    ]
    assert events[0].at == datetime(2026, 1, 5, 12, tzinfo=UTC)
    assert (api.after, api.answers) == (["0", "3", "3", "4", "4"], [])


async def test_a_stream_in_which_nothing_happened_for_long_is_taken_up_when_it_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = time.monotonic()
    monkeypatch.setattr(client, "time", SimpleNamespace(monotonic=lambda: now_s))
    at = '{"seq":1,"at":"2026-01-05T12:00:00Z","kind":"waiting","data":{}}'
    quiet = f"event: waiting\ndata: {at}\n\n: still here\n\nevent: problem\ndata: unavailable\n\n"
    api = Api([Response(quiet, media_type="text/event-stream"), stream((2, "succeeded"))])
    kinds = []
    async with api.client() as following:
        async for event in following.events("run_1"):
            kinds.append(event.kind)
            now_s += 600
    assert (kinds, api.after) == (["waiting", "succeeded"], ["0", "1"])


async def test_a_run_that_had_ended_before_has_nothing_more_to_tell() -> None:
    api, events = await read(stream(), JSONResponse({"state": "dead"}), after=7)
    assert events == []
    assert [asked.split()[1] for asked in api.asked] == ["/api/v1/runs/run_1/events", "/api/v1/runs/run_1"]


async def test_a_stream_that_nobody_may_read_is_told_at_once() -> None:
    with pytest.raises(StepFailed, match="404: There is no such run"):
        await read(JSONResponse({"detail": "There is no such run."}, 404))

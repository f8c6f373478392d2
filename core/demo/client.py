"""The public API as a program uses it: a key, patience when it is told to wait, errors as it words them.

A stream is followed for as long as there is something to come:

    reading ──cut, or ended too early──► pausing ──► reading what came after the last event ──the run has ended──► over

So a connection that is cut and a web process that is killed cost a pause; no event of a run is lost or given twice.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import httpx

from core.errors import SetupError, StepFailed
from core.redis.bus import RESYNC
from core.runs.model import RunEvent, RunState

PAGE = 200
STREAM = "text/event-stream"
_FIRST_ANSWER_S = 10.0
_OUTAGE_S = 60.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0


class ApiClient:
    """One tenant's view of the API. Use as ``async with``.

    A request that got no answer, or 5xx, is sent again for up to a minute (ten seconds while none was ever
    answered); 429 and 503 are obeyed as long as ``Retry-After`` ends before the deadline. So requests that
    change something carry an idempotency key.
    """

    def __init__(
        self, url: str, key: str, *, deadline: float, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """``deadline``: by the monotonic clock; no pause that the API asks for goes beyond it."""
        self._url = url
        self._deadline = deadline
        self._answered = False
        self._http = httpx.AsyncClient(
            base_url=f"{url}/api/v1",
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(60, connect=5),
            trust_env=False,
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def get(self, path: str, **query: str | int) -> dict[str, Any]:
        """The answer to a question."""
        return await self._ask("GET", path, params=query)

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to an act that is safe to repeat."""
        return await self._ask("POST", path, json=dict(body))

    async def runs(self, **query: str | int) -> AsyncIterator[dict[str, Any]]:
        """All runs that pass the filters, page by page."""
        cursor: dict[str, str | int] = {}
        while True:
            page = await self.get("/runs", limit=PAGE, **query, **cursor)
            for run in page["runs"]:
                yield run
            if page["next_cursor"] is None:
                return
            cursor = {"cursor": page["next_cursor"]}

    async def events(self, run_id: str, after: int = 0) -> AsyncIterator[RunEvent]:
        """What happens to a run after a position, each event once and in order, until the run has ended.

        Raises ``StepFailed`` as the API words it, and ``SetupError`` when a minute brings nothing but failures.
        """
        path, outage = f"/runs/{run_id}", _Outage()
        while True:
            last, whole = "", False
            try:
                async with self._stream(outage, f"{path}/events", {"Last-Event-ID": str(after)}) as parts:
                    async for _, told in parts:
                        after, last = told["seq"], told["kind"]
                        yield RunEvent(after, datetime.fromisoformat(told["at"]), last, told["data"])
                whole = True
            except httpx.TransportError as error:
                self._unanswered(outage, error)
            # It ends in order with the run, and also when the process is told to stop.
            if whole and (_ended(last) or (not last and _ended((await self.get(path))["state"]))):
                return
            await outage.pause()

    @asynccontextmanager
    async def told(self, batch_id: str) -> AsyncIterator[asyncio.Event]:
        """Set whenever a run of the batch may have changed its state, while the block runs; from the start on.

        Clear it before looking. When the API cannot be followed it stays as it is: look now and then all the same.
        """
        changed = asyncio.Event()
        changed.set()
        listening = asyncio.create_task(self._listen(batch_id, changed), name="api-changes")
        try:
            yield changed
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _listen(self, batch_id: str, changed: asyncio.Event) -> None:
        outage = _Outage()
        while True:
            try:
                async with self._stream(outage, "/events", {}) as parts:
                    changed.set()  # what happened before is told to nobody
                    async for kind, told in parts:
                        if kind == RESYNC or told.get("batch_id") == batch_id:
                            changed.set()
            except httpx.TransportError as error:
                self._unanswered(outage, error)
            await outage.pause()

    @asynccontextmanager
    async def _stream(
        self, outage: _Outage, path: str, headers: Mapping[str, str]
    ) -> AsyncIterator[AsyncIterator[tuple[str, dict[str, Any]]]]:
        """One connection's events, as kind and content. Raises ``httpx.TransportError`` when it is cut."""
        while True:
            request = self._http.build_request("GET", path, headers={"Accept": STREAM, **headers})
            response = await self._sent(outage, request, stream=True)
            if response is not None:
                try:
                    if response.is_success:
                        yield _parts(outage, response.aiter_lines())
                        return
                    await response.aread()
                    self._refused(outage, response)
                finally:
                    await response.aclose()
            await outage.pause()

    async def _ask(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        outage = _Outage()
        while True:
            response = await self._sent(outage, self._http.build_request(method, path, **content))
            if response is not None:
                if response.is_success:
                    answer: dict[str, Any] = response.json()
                    return answer
                self._refused(outage, response)
            await outage.pause()

    async def _sent(self, outage: _Outage, request: httpx.Request, *, stream: bool = False) -> httpx.Response | None:
        """The answer, or None. Raises ``SetupError`` when there was none for too long."""
        try:
            response = await self._http.send(request, stream=stream)
        except httpx.TransportError as error:
            self._unanswered(outage, error)
            return None
        self._answered = True
        return response

    def _unanswered(self, outage: _Outage, error: httpx.TransportError) -> None:
        if outage.lasted_s > (_OUTAGE_S if self._answered else _FIRST_ANSWER_S):
            raise SetupError(f"Nothing answers at {self._url}: is `make up` running? ({error!r})") from error

    def _refused(self, outage: _Outage, response: httpx.Response) -> None:
        """Pause as long as the API wants to be left alone. Raises what waiting does not help."""
        if response.is_client_error and response.status_code != HTTPStatus.TOO_MANY_REQUESTS:
            raise _refusal(response)
        asked = response.headers.get("retry-after", "")
        if asked.isdigit():
            if time.monotonic() + int(asked) > self._deadline:
                raise _refusal(response)
            outage.pause_s = float(asked)
        if response.is_server_error and outage.lasted_s > _OUTAGE_S:
            raise _refusal(response)


class _Outage:
    """A time in which nothing worked, and the pause before the next attempt."""

    def __init__(self) -> None:
        self.end()

    def end(self) -> None:
        """Something worked: what fails from now on is another one."""
        self._began, self.pause_s = time.monotonic(), _FIRST_PAUSE_S

    @property
    def lasted_s(self) -> float:
        return time.monotonic() - self._began

    async def pause(self) -> None:
        await asyncio.sleep(self.pause_s)
        self.pause_s = min(2 * self.pause_s, _LONGEST_PAUSE_S)


async def _parts(outage: _Outage, lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """The events in the lines of a stream. Raises ``httpx.RemoteProtocolError`` when it tells why it ends early."""
    kind = ""
    async for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data" and kind == "problem":
            raise httpx.RemoteProtocolError(f"The stream ended early: {value}.")
        elif name == "data":
            outage.end()
            yield kind, json.loads(value)
        elif line.startswith(":"):
            outage.end()  # there is nothing to tell, and whoever would tell it is there


def _ended(state: str) -> bool:
    return state in list(RunState) and RunState(state).final


def _refusal(response: httpx.Response) -> StepFailed:
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = response.text[:200]
    return StepFailed(f"The API answered {response.status_code}: {detail}", status=response.status_code)

"""The public API as a program uses it: a key, patience when it is told to wait, errors as it words them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import httpx

from core.errors import SetupError, StepFailed

PAGE = 200
_FIRST_ANSWER_S = 10.0
_OUTAGE_S = 60.0
_LONGEST_PAUSE_S = 5.0


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

    async def _ask(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        pause_s = 0.2
        began = time.monotonic()
        while True:
            try:
                response = await self._http.request(method, path, **request)
            except httpx.TransportError as error:
                outage_s = _OUTAGE_S if self._answered else _FIRST_ANSWER_S
                if time.monotonic() - began > outage_s:
                    raise SetupError(f"Nothing answers at {self._url}: is `make up` running? ({error!r})") from error
            else:
                self._answered = True
                if response.is_success:
                    answer: dict[str, Any] = response.json()
                    return answer
                pause_s = self._pause_asked(response) or pause_s
                if response.is_server_error and time.monotonic() - began > _OUTAGE_S:
                    raise _refusal(response)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _pause_asked(self, response: httpx.Response) -> float | None:
        """How long the API wants to be left alone; None: it did not say. Raises what waiting does not help."""
        if response.is_client_error and response.status_code != HTTPStatus.TOO_MANY_REQUESTS:
            raise _refusal(response)
        asked = response.headers.get("retry-after", "")
        if not asked.isdigit():
            return None
        if time.monotonic() + int(asked) > self._deadline:
            raise _refusal(response)
        return float(asked)


def _refusal(response: httpx.Response) -> StepFailed:
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = response.text[:200]
    return StepFailed(f"The API answered {response.status_code}: {detail}", status=response.status_code)

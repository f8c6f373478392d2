"""The one way out to a model: an HTTP transport that routes, meters, retries and records.

The clients of three libraries (openai, the agents SDK, langchain) all end in an ``httpx2`` transport, so it
is the one place none of them can go around. They are given a base URL that resolves nowhere and a key that
is none; only here does a request get an address and a key.

Per request: money is reserved → endpoints of the tenant's regions are tried in order, each behind its
breaker, with retries on 429 and 5xx (full jitter, or what Retry-After says) → the answer is passed on and
watched → the call is settled with what it used. Closing a stream closes the connection: the endpoint stops
working, and what it did is charged. One that breaks off, or falls silent, counts against the endpoint.

Errors: ``BudgetExceeded``, ``RateLimited``, ``NoModelEndpoint`` (retryable), ``InvalidInput`` when the
endpoint finds the request wrong. The libraries pass them on unchanged.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import httpx2
import stamina

from core.errors import BailiwickError, InvalidInput, NoModelEndpoint, RateLimited
from core.http import retry_after_s
from core.models.metering import Meter, OpenCall
from core.models.model import Endpoint, Tokens, cacheable, estimate_of, is_embedding, prompt_hash
from core.models.observation import Observed, StreamObserver, observe
from core.models.route import NoAnswerError, Patience, Route, Trouble
from core.redis.cache import Cache
from core.tenancy import TenantContext

BASE_URL = "http://models.invalid/v1"
"""What the libraries believe to talk to; the name can resolve nowhere (RFC 2606)."""

CACHE_TTL_S = 3600.0
_SPACE = "model"
_LONGEST_WAIT_S = 3_600.0  # whatever an endpoint says, callers ask again after it
_FORWARDED = ("content-type", "accept", "user-agent")
_RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504})


class MeteredTransport(httpx2.AsyncBaseTransport):
    """Sends the calls of one tenant for one purpose.

    Args:
        routes: those the tenant's regions allow, in order of preference.
        spawn: keeps a task alive that outlasts the request (settling an abandoned stream).
    """

    def __init__(
        self,
        ctx: TenantContext,
        meter: Meter,
        routes: tuple[Route, ...],
        cache: Cache | None,
        patience: Patience,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        now: Callable[[], datetime],
    ) -> None:
        self._ctx = ctx
        self._tenant = ctx.tenant_id
        self._meter = meter
        self._routes = routes
        self._cache = cache
        self._patience = patience
        self._spawn = spawn
        self._now = now

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one model call; see the module."""
        body = _body_of(await request.aread())
        asked = _Asked(request, body, str(body.get("model")), prompt_hash(body))
        if cached := await self._from_cache(asked):
            return cached
        if not self._routes:
            raise await self._refused(asked)
        estimate = estimate_of(asked.model, body, asked.size_bytes, self._now())
        call = await self._meter.open(asked.model, asked.sha256, estimate)
        try:
            async with asyncio.timeout(self._patience.answer_s):
                route, response = await self._send(asked)
        except TimeoutError:
            await self._meter.fail(call, "timeout")
            raise NoModelEndpoint(f"No answer within {self._patience.answer_s:.0f} s.", retry_after_s=5) from None
        except BailiwickError as problem:
            await self._meter.fail(call, problem.code)
            raise
        except BaseException as problem:
            self._spawn(self._meter.fail(call, type(problem).__name__.lower()))
            raise
        return await self._deliver(asked, call, route, response)

    async def _refused(self, asked: _Asked) -> NoModelEndpoint:
        regions = ", ".join(self._ctx.policy.regions)
        refused = NoModelEndpoint(
            f"No model endpoint is configured in {regions}, and no other region is tried.",
            regions=list(self._ctx.policy.regions),
        )
        await self._meter.refuse(refused, asked.model, asked.sha256)
        return refused

    async def _send(self, asked: _Asked) -> tuple[Route, httpx2.Response]:
        """The answer of the first endpoint that gives one."""
        problems: dict[str, str] = {}
        limited_s: float | None = None
        for route in self._routes:
            if not await route.admit(self._tenant):
                problems[route.endpoint.name] = "not asked, because it did not answer lately"
                continue
            try:
                response = await self._ask_in_place(route, asked)
            except NoAnswerError as problem:
                problems[route.endpoint.name] = problem.trouble
                if problem.trouble is Trouble.LIMITED:
                    limited_s = min(problem.told_wait_s or 5.0, _LONGEST_WAIT_S)
                route.failed(self._tenant, problem.trouble)
                continue
            except BailiwickError:
                route.answered(self._tenant)
                raise
            except BaseException:
                route.given_up(self._tenant)
                raise
            if not _is_stream(response):
                route.answered(self._tenant)
            return route, response
        if limited_s is not None:
            raise RateLimited("The model endpoint is at its rate limit.", retry_after_s=limited_s, endpoints=problems)
        raise self._none_answers(problems)

    def _none_answers(self, problems: Mapping[str, str]) -> NoModelEndpoint:
        regions = sorted({route.endpoint.region for route in self._routes})
        return NoModelEndpoint(
            f"No model endpoint in {', '.join(regions)} answers, and no other region is tried.",
            retry_after_s=max(1.0, min(route.opens_in_s(self._tenant) for route in self._routes)),
            regions=regions,
            endpoints=dict(problems),
        )

    async def _ask_in_place(self, route: Route, asked: _Asked) -> httpx2.Response:
        """The same, in one of the tenant's places at the endpoint. A stream keeps it until its end."""
        await route.enter(self._tenant, self._patience.connect_s)
        try:
            response = await self._ask(route, asked)
        except BaseException:
            route.leave(self._tenant)
            raise
        if not _is_stream(response):
            route.leave(self._tenant)
        return response

    async def _ask(self, route: Route, asked: _Asked) -> httpx2.Response:
        """One endpoint, with retries. Raises ``NoAnswerError`` when they are used up."""
        async for attempt in stamina.retry_context(
            on=_pause_before_retry, attempts=self._patience.attempts, timeout=self._patience.answer_s
        ):
            with attempt:
                return await self._attempt(route, asked, self._patience.pause_s(attempt.num))
        raise AssertionError("stamina ends with an answer or an error")

    async def _attempt(self, route: Route, asked: _Asked, pause_s: float) -> httpx2.Response:
        """Ask once. What comes back is an event stream, or an answer that is read to its end."""
        request = asked.addressed_to(route.endpoint, self._patience)
        try:
            response = await route.transport.handle_async_request(request)
            if response.is_success and _is_stream(response):
                return response
            content = await response.aread()
            await response.aclose()
        except httpx2.PoolTimeout:
            raise NoAnswerError(Trouble.BUSY, None) from None
        except httpx2.ReadTimeout:
            # Asking again would pay for the same work twice, and wait as long again.
            raise NoAnswerError(Trouble.TIMEOUT, None) from None
        except httpx2.TransportError:
            raise NoAnswerError(Trouble.UNREACHABLE, pause_s) from None
        if response.is_success:
            return response
        # A redirect is not followed either: it could lead out of the region.
        raise self._unusable(route, response, content, pause_s)

    def _unusable(self, route: Route, response: httpx2.Response, content: bytes, pause_s: float) -> Exception:
        status = response.status_code
        if status in _RETRIED:
            told_s = retry_after_s(response.headers, self._now())
            trouble = Trouble.BROKEN if status >= 500 else Trouble.LIMITED if status == 429 else Trouble.REFUSED
            return NoAnswerError(trouble, min(told_s or pause_s, self._patience.longest_pause_s), told_s)
        if status in (401, 403):
            return NoModelEndpoint(f"The model endpoint {route.endpoint.name} refuses our key.", retry_after_s=60)
        return InvalidInput(
            f"The model endpoint finds the request wrong (HTTP {status}).", status=status, problem=_problem_in(content)
        )

    async def _deliver(self, asked: _Asked, call: OpenCall, route: Route, response: httpx2.Response) -> httpx2.Response:
        endpoint = route.endpoint
        headers = {"content-type": response.headers.get("content-type", "application/json")}
        if request_id := response.headers.get("x-request-id"):
            headers["x-request-id"] = request_id
        if _is_stream(response):
            inner = cast("httpx2.AsyncByteStream", response.stream)
            stream = _Watched(inner, _Ending(self._meter, self._spawn, call, route, asked.size_bytes))
            return httpx2.Response(response.status_code, headers=headers, stream=stream)
        await self._settle_whole(asked, call, endpoint, response.content)
        return httpx2.Response(response.status_code, headers=headers, content=response.content)

    async def _settle_whole(self, asked: _Asked, call: OpenCall, endpoint: Endpoint, content: bytes) -> None:
        try:
            seen = observe(json.loads(content))
        except ValueError:
            seen = Observed()
        tokens = seen.tokens or Tokens(input=-(-asked.size_bytes // 4), output=-(-len(content) // 4))
        await self._meter.write(self._meter.charge(call, endpoint, seen, tokens, "ok", _sha256(content)))
        if self._cache is not None and cacheable(asked.body):
            await self._cache.set(self._ctx, _SPACE, self._cache_key(asked), content.decode(), ttl_s=CACHE_TTL_S)

    async def _from_cache(self, asked: _Asked) -> httpx2.Response | None:
        """An earlier answer to the same question. It costs nothing; that it was given again is audited."""
        if self._cache is None or not cacheable(asked.body):
            return None
        content = await self._cache.get(self._ctx, _SPACE, self._cache_key(asked))
        self._meter.count_cache("miss" if content is None else "hit")
        if content is None:
            return None
        self._spawn(self._meter.remembered(asked.model, asked.sha256, _sha256(content.encode())))
        return httpx2.Response(200, headers={"content-type": "application/json"}, content=content.encode())

    def _cache_key(self, asked: _Asked) -> str:
        # Another endpoint may mean something else by the same model, and its vectors do not mix with ours.
        urls = " ".join(route.endpoint.url for route in self._routes)
        return hashlib.sha256(f"{urls} {asked.sha256}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request as the library made it."""

    request: httpx2.Request
    body: dict[str, Any]
    model: str
    sha256: str

    @property
    def content(self) -> bytes:
        """What is sent: streams are asked to tell their usage, which some libraries leave out."""
        body = self.body
        if body.get("stream") and "messages" in body:
            body = {**body, "stream_options": {**(body.get("stream_options") or {}), "include_usage": True}}
        return json.dumps(body, ensure_ascii=False).encode()

    @property
    def size_bytes(self) -> int:
        """Size of what counts as input."""
        counted = self.body["input"] if is_embedding(self.body) else self.body
        return len(json.dumps(counted, ensure_ascii=False).encode())

    def addressed_to(self, endpoint: Endpoint, patience: Patience) -> httpx2.Request:
        """The same request with an address and a key."""
        path = self.request.url.path.removeprefix("/v1")
        headers = {name: self.request.headers[name] for name in _FORWARDED if name in self.request.headers}
        # Identity: the answer is watched as it passes, so it must not come compressed.
        headers |= {"authorization": f"Bearer {endpoint.api_key}", "accept-encoding": "identity"}
        timeout = httpx2.Timeout(patience.read_s, connect=patience.connect_s, pool=patience.connect_s)
        return httpx2.Request(
            "POST",
            f"{endpoint.url}{path}",
            headers=headers,
            content=self.content,
            extensions={"timeout": timeout.as_dict()},
        )


@dataclass(frozen=True, slots=True)
class _Ending:
    """How to settle a stream."""

    meter: Meter
    spawn: Callable[[Coroutine[Any, Any, None]], None]
    call: OpenCall
    route: Route
    prompt_bytes: int

    def settle(self, watched: StreamObserver, how: str) -> None:
        """Count it now, write it down in the background: whoever read the stream may be gone."""
        tokens = watched.tokens_so_far(self.prompt_bytes)
        self.route.leave(self.meter.tenant_id)
        if how == "broken":
            self.route.failed(self.meter.tenant_id, Trouble.BROKEN)
        elif watched.events:
            self.route.answered(self.meter.tenant_id)
        else:
            self.route.given_up(self.meter.tenant_id)
        charged = self.meter.charge(self.call, self.route.endpoint, watched.seen, tokens, how, watched.sha256)
        self.spawn(self.meter.write(charged))


class _Watched(httpx2.AsyncByteStream):
    """A stream of events on its way through; settles once, at its end or when it is closed."""

    def __init__(self, inner: httpx2.AsyncByteStream, ending: _Ending) -> None:
        self._inner = inner
        self._ending = ending
        self._observer = StreamObserver()
        self._settled = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for data in self._inner:
                self._observer.feed(data)
                yield data
        except httpx2.TransportError as broken:
            self._settle("broken")
            raise NoModelEndpoint("The model endpoint broke off its answer.", retry_after_s=1) from broken
        self._settle("ok")

    async def aclose(self) -> None:
        """End the connection, and with it the endpoint's work."""
        self._settle("ok" if self._observer.seen.tokens else "aborted")
        await self._inner.aclose()

    def _settle(self, how: str) -> None:
        if not self._settled:
            self._settled = True
            self._ending.settle(self._observer, how)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _is_stream(response: httpx2.Response) -> bool:
    return str(response.headers.get("content-type", "")).startswith("text/event-stream")


def _body_of(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    if not isinstance(body, dict) or not body.get("model"):
        raise InvalidInput("A model call needs a JSON body that names a model.")
    return body


def _pause_before_retry(problem: Exception) -> bool | float:
    if isinstance(problem, NoAnswerError) and problem.wait_s is not None:
        return problem.wait_s
    return False


def _problem_in(content: bytes) -> str:
    try:
        error = json.loads(content).get("error")
        return str(error.get("code") or error.get("type") or "")[:100]
    except (ValueError, AttributeError):
        return ""

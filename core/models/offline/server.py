"""The offline model's HTTP server: both OpenAI APIs, embeddings, and the usual health and metrics.

Errors have OpenAI's form. Bodies above 1 MB are refused while they are read. A client that goes away ends
its stream. Nothing of a request is logged or kept.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from core.clock import Clock
from core.models.offline import chat_wire, responses_wire
from core.models.offline.prompt import Answer, JsonObject, Prompt, answer_tokens, prompt_tokens
from core.models.offline.rules.engine import answer
from core.models.offline.wire import RequestError, Stamp, field, model_of
from core.telemetry import ops_routes

MAX_BODY_BYTES = 1_000_000
MAX_TEXTS = 512
_SSE_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

Handler = Callable[[Request, JsonObject], Awaitable[Response]]


class Embedder(Protocol):
    """Turns texts into vectors of length 1."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One row for each text."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Tokens in all texts together."""
        ...


class OfflineServer:
    """Serves one embedder and the rules.

    Args:
        embedder: called in a worker thread, one request at a time.
        models: names ``GET /v1/models`` lists; any other name is answered as well.
        api_key: demanded as bearer when given.
        clock: tells when an answer was made.
        registry: where the metrics go that ``/metrics`` shows.
    """

    def __init__(
        self,
        embedder: Embedder,
        models: tuple[str, ...],
        clock: Clock,
        registry: CollectorRegistry,
        api_key: str | None = None,
    ) -> None:
        self._embedder = embedder
        self._models = models
        self._api_key = api_key
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._registry = registry
        self._requests = Counter(
            "offline_model_requests_total",
            "Requests by route and status.",
            ["route", "status"],
            registry=self._registry,
        )
        self._tokens = Counter(
            "offline_model_tokens_total", "Tokens by direction.", ["direction"], registry=self._registry
        )

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self._guarded("chat", self._chat), methods=["POST"]),
                Route("/v1/responses", self._guarded("responses", self._responses), methods=["POST"]),
                Route("/v1/embeddings", self._guarded("embeddings", self._embeddings), methods=["POST"]),
                Route("/v1/models", self._list_models),
                *ops_routes({}, self._registry),
            ]
        )

    def _guarded(self, route: str, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """Wrap a handler: key, size, JSON, errors and counting, the same for all three APIs."""

        async def handle(request: Request) -> Response:
            try:
                self._authorise(request)
                response = await handler(request, await _read_json(request))
            except RequestError as problem:
                response = JSONResponse(problem.body(), problem.status)
            except RecursionError:
                response = JSONResponse(RequestError("The request is nested too deeply.").body(), 400)
            self._requests.labels(route, str(response.status_code)).inc()
            return response

        return handle

    def _authorise(self, request: Request) -> None:
        if self._api_key is None:
            return
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self._api_key}".encode()):
            raise RequestError("The API key is missing or wrong.", status=401, code="invalid_api_key")

    async def _chat(self, _request: Request, body: JsonObject) -> Response:
        model, prompt = model_of(body), chat_wire.parse(body)
        given = await self._decide(prompt)
        stamp = self._stamp(model, prompt)
        if not field(body, "stream", bool):
            return JSONResponse(chat_wire.completion(given, prompt, stamp))
        options = field(body, "stream_options", dict) or {}
        wants_usage = bool(options.get("include_usage"))
        return _stream(chat_wire.chunks(given, prompt, stamp, include_usage=wants_usage))

    async def _responses(self, _request: Request, body: JsonObject) -> Response:
        model, prompt = model_of(body), responses_wire.parse(body)
        given = await self._decide(prompt)
        stamp = self._stamp(model, prompt)
        if not field(body, "stream", bool):
            return JSONResponse(responses_wire.response(given, prompt, stamp))
        return _stream(responses_wire.events(given, prompt, stamp))

    async def _decide(self, prompt: Prompt) -> Answer:
        """The rules' answer; in a thread, because a long conversation takes milliseconds of matching."""
        given = await asyncio.to_thread(answer, prompt)
        self._tokens.labels("in").inc(prompt_tokens(prompt))
        self._tokens.labels("out").inc(answer_tokens(given))
        return given

    def _stamp(self, model: str, prompt: Prompt) -> Stamp:
        return Stamp(model=model, key=prompt.digest(), created_s=int(self._clock.now().timestamp()))

    async def _embeddings(self, _request: Request, body: JsonObject) -> Response:
        model = model_of(body)
        given = field(body, "input", (str, list))
        texts = [given] if isinstance(given, str) else given
        if not texts or not all(isinstance(text, str) and text for text in texts):
            raise RequestError("'input' must be a text or a list of texts, none of them empty.", param="input")
        if len(texts) > MAX_TEXTS:
            raise RequestError(f"'input' may hold at most {MAX_TEXTS} texts.", param="input")
        dimensions = field(body, "dimensions", int)
        if dimensions not in (None, 384):
            raise RequestError("This model has 384 dimensions.", param="dimensions")
        async with self._one_at_a_time:
            vectors = await asyncio.to_thread(self._embedder.embed, texts)
            tokens = await asyncio.to_thread(self._embedder.count_tokens, texts)
        self._tokens.labels("embedded").inc(tokens)
        packed = field(body, "encoding_format", str) == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": _packed(vector) if packed else vector.tolist()}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "data": data, "model": model, "usage": usage})

    async def _list_models(self, _request: Request) -> Response:
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "bailiwick"} for name in self._models]
        return JSONResponse({"object": "list", "data": data})


async def _read_json(request: Request) -> JsonObject:
    """The body as a JSON object; it is never held in memory beyond the limit."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise RequestError("The request is larger than 1 MB.", status=413, code="request_too_large")
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as problem:
        raise RequestError("The body is not valid JSON.", code="invalid_json") from problem
    if not isinstance(parsed, dict):
        raise RequestError("The body must be a JSON object.", code="invalid_json")
    return parsed


def _stream(parts: Iterable[bytes]) -> StreamingResponse:
    async def send() -> AsyncIterator[bytes]:
        for part in parts:
            yield part
            await asyncio.sleep(0)  # lets each piece leave on its own, and other requests in between

    return StreamingResponse(send(), media_type="text/event-stream", headers=_SSE_HEADERS)


def _packed(vector: NDArray[np.float32]) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()

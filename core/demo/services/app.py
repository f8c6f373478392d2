"""The HTTP side of the demo services: routes, keys, delay, errors, health and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TypeVar

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, generate_latest
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from core.clock import Clock
from core.demo.services.answers import BureauQuestion, DecisionRecord, IdentityQuestion, Question, ScreeningQuestion
from core.demo.services.feed import Feed, NewEntry
from core.demo.services.journal import Journal, KeyReusedError

MAX_BODY_BYTES = 64 * 1024
MAX_KEY_LENGTH = 200
QUESTIONS: dict[str, tuple[str, type[Question]]] = {
    "/identity/verify": ("identity", IdentityQuestion),
    "/credit-bureau/reports": ("credit-bureau", BureauQuestion),
    "/compliance/screenings": ("compliance", ScreeningQuestion),
    "/decisions/records": ("decisions", DecisionRecord),
}

Endpoint = Callable[[Request], Awaitable[Response]]
Body = TypeVar("Body", bound=BaseModel)


class _RefusalError(Exception):
    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(status, message)
        self.status, self.message = status, message


class DemoServices:
    """All services over one journal and one feed.

    Args:
        delay_s: how long an answer takes, half of it before the effect, half after.
    """

    def __init__(self, journal: Journal, feed: Feed, clock: Clock, *, delay_s: float) -> None:
        self._journal = journal
        self._feed = feed
        self._clock = clock
        self._delay_s = delay_s
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "demo_requests_total", "Requests by route and status.", ["route", "status"], registry=self._registry
        )

    def app(self) -> Starlette:
        """The ASGI application."""
        asked = [
            Route(path, self._counted(path, self._ask(service, question)), methods=["POST"])
            for path, (service, question) in QUESTIONS.items()
        ]
        return Starlette(
            routes=[
                *asked,
                Route("/feed", self._counted("/feed", self._read_feed)),
                Route("/feed/entries", self._counted("/feed/entries", self._add_entry), methods=["POST"]),
                Route("/effects", self._effects),
                Route("/healthz", self._health),
                Route("/readyz", self._health),
                Route("/metrics", self._metrics),
            ]
        )

    def _counted(self, route: str, endpoint: Endpoint) -> Endpoint:
        async def handle(request: Request) -> Response:
            try:
                response = await endpoint(request)
            except _RefusalError as refused:
                response = JSONResponse({"error": refused.message}, refused.status)
            self._requests.labels(route, str(response.status_code)).inc()
            return response

        return handle

    def _ask(self, service: str, question_type: type[Question]) -> Endpoint:
        async def handle(request: Request) -> Response:
            key = _key(request)
            question = _parse(question_type, await _body(request))
            await asyncio.sleep(self._delay_s / 2)
            try:
                answer = self._journal.carry_out(service, key, question.model_dump(mode="json"), question.answer())
            except KeyReusedError:
                raise _RefusalError(
                    HTTPStatus.UNPROCESSABLE_ENTITY, "This Idempotency-Key was used for another question."
                ) from None
            await asyncio.sleep(self._delay_s / 2)
            return JSONResponse(answer)

        return handle

    async def _read_feed(self, request: Request) -> Response:
        headers = self._feed.headers
        if self._feed.unchanged(request.headers.get("if-none-match"), request.headers.get("if-modified-since")):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(self._feed.body, media_type="application/feed+json", headers=headers)

    async def _add_entry(self, request: Request) -> Response:
        key = _key(request)
        entry = self._feed.add(_parse(NewEntry, await _body(request)), key, self._clock.now())
        return JSONResponse(entry, HTTPStatus.CREATED)

    async def _effects(self, _request: Request) -> Response:
        return JSONResponse(self._journal.effects())

    async def _health(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _metrics(self, _request: Request) -> Response:
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)


def _key(request: Request) -> str:
    key = request.headers.get("idempotency-key", "")
    if not 1 <= len(key) <= MAX_KEY_LENGTH:
        raise _RefusalError(
            HTTPStatus.BAD_REQUEST, f"The header Idempotency-Key is required, 1 to {MAX_KEY_LENGTH} characters."
        )
    return key


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _RefusalError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"At most {MAX_BODY_BYTES} bytes are taken.")
    return bytes(body)


def _parse(model: type[Body], body: bytes) -> Body:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise _RefusalError(HTTPStatus.UNPROCESSABLE_ENTITY, problems) from None

"""The model gateway: every model call of the platform goes through a ``TenantModels`` made here.

    gateway = ModelGateway(endpoints_of(settings), names_of(settings), books, cache)
    models = gateway.for_tenant(ctx, "chat")                         # one gateway per process, this per turn
    await Runner.run(agent, text, run_config=models.run_config())    # agents SDK
    vectors = await models.embed(["…"])
    llm = ChatOpenAI(**models.chat_model_args())                     # langchain

Tier, region, budget, breaker, retries, provenance and audit are applied underneath, in ``transport``; what a
caller holds can neither name an address nor a key. The agents SDK's own tracing is switched off: it would
send conversations to its maker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import httpx2
import structlog
from agents import (
    Model,
    ModelProvider,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

from core.ids import RunId
from core.models.metering import Books, Meter
from core.models.model import (
    EMBEDDING_DIMENSIONS,
    Api,
    Endpoint,
    Names,
    allowed_endpoints,
    cheapest_tier,
    tier_for,
    tier_named,
)
from core.models.route import Patience, Route
from core.models.transport import BASE_URL, MeteredTransport
from core.redis.cache import Cache
from core.shared_breaker import Reports, SharedBreaker
from core.tenancy import ModelTier, TenantContext

log = structlog.get_logger(__name__)

CALLS_PER_ENDPOINT = 64
"""Calls one process has open at one endpoint at a time; further ones wait for a connection, then fail over."""

CALLS_PER_TENANT = 32
"""How many of them may be one tenant's."""

MAX_EMBEDDED_CHARACTERS = 20_000
_EMBEDDED_AT_ONCE = 128
_NO_KEY = "added by the gateway"


class ModelGateway:
    """Endpoints with their connections and breakers. One per process; ``close`` it last.

    Args:
        cache: remembers embeddings and plain answers at temperature 0 for an hour, per tenant; None: nothing.
        reports: by which processes tell each other which endpoints do not answer; None: each learns by itself.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        names: Names,
        books: Books,
        cache: Cache | None = None,
        patience: Patience = Patience(),
        reports: Reports | None = None,
    ) -> None:
        set_tracing_disabled(True)
        self._names = names
        self._books = books
        self._cache = cache
        self._patience = patience
        self._routes = {
            endpoint: Route(
                endpoint,
                SharedBreaker(f"model {endpoint.name}", reports),
                books.metrics,
                calls=CALLS_PER_ENDPOINT,
                calls_of_tenant=CALLS_PER_TENANT,
            )
            for endpoint in endpoints
        }
        self._endings: set[asyncio.Task[None]] = set()

    def for_tenant(
        self,
        ctx: TenantContext,
        purpose: str,
        *,
        run_id: RunId | None = None,
        step: tuple[int, int] | None = None,
        tier: ModelTier | None = None,
        covered_microusd: int | None = None,
        cheapest: bool = False,
        cover_more: Callable[[int], Awaitable[None]] | None = None,
    ) -> TenantModels:
        """The models of one tenant for one purpose (a short constant, e.g. ``chat``; shown in audit and metrics).

        ``tier`` overrides what agents ask for, never above the policy's; ``cheapest``: by the cheapest model that the
        policy allows, when a budget runs low. ``covered_microusd``: the caller's step has reserved this much and will
        settle ``spent_microusd`` itself; without it each call reserves in the ledger. ``cover_more``: reserves so much
        more for the step, or raises ``BudgetExceeded``; without it calls are kept inside what is covered. ``step``: of
        the run, its number and attempt, for the audit.
        """
        meter = Meter(self._books, ctx, purpose, run_id, covered_microusd, cover_more, step)
        allowed = allowed_endpoints(tuple(self._routes), ctx.policy, ctx.region)
        transport = MeteredTransport(
            ctx,
            meter,
            tuple(self._routes[endpoint] for endpoint in allowed),
            self._cache,
            self._patience,
            self._spawn,
            self._books.clock.now,
        )
        if cheapest:
            tier = cheapest_tier(self._names, ctx.policy, self._books.clock.now())
        return TenantModels(ctx, self._names, meter, transport, tier)

    async def settled(self) -> None:
        """Wait until every ended call is in the ledger and the audit."""
        while self._endings:
            await asyncio.gather(*self._endings, return_exceptions=True)

    async def close(self) -> None:
        """Settle what has ended, then close every connection."""
        await self.settled()
        for route in self._routes.values():
            await route.close()

    def _spawn(self, ending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(ending)
        self._endings.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._endings.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            # The reservation stands until it is abandoned: money is never lost, only held.
            log.error("model.not_settled", problem=repr(problem))


class TenantModels(ModelProvider):
    """One tenant's models for one purpose; the agents SDK's ``ModelProvider``. Needs no closing."""

    def __init__(
        self,
        ctx: TenantContext,
        names: Names,
        meter: Meter,
        transport: MeteredTransport,
        tier: ModelTier | None,
    ) -> None:
        self._ctx = ctx
        self._names = names
        self._meter = meter
        self._tier = tier
        self._http = httpx2.AsyncClient(transport=transport, trust_env=False)
        self._client = AsyncOpenAI(base_url=BASE_URL, api_key=_NO_KEY, http_client=self._http, max_retries=0)

    @property
    def spent_microusd(self) -> int:
        """Cost of all calls made through this object, micro-USD."""
        return self._meter.spent_microusd

    def model_name(self, asked: ModelTier | None = None) -> str:
        """The model a call for this tier goes to, under the policy."""
        return self._names.of(tier_for(self._ctx.policy, self._tier or asked))

    def get_model(self, model_name: str | None) -> Model:
        """The model of an agent that names a tier, or nothing. Raises ``InvalidInput`` for any other name."""
        name = self.model_name(tier_named(model_name))
        if self._names.api is Api.CHAT:
            return OpenAIChatCompletionsModel(model=name, openai_client=self._client)
        return OpenAIResponsesModel(model=name, openai_client=self._client)

    def run_config(self, **more: Any) -> RunConfig:
        """What to give ``Runner.run``: this provider, and no tracing. ``more`` are further fields of RunConfig."""
        return RunConfig(model_provider=self, tracing_disabled=True, trace_include_sensitive_data=False, **more)

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector of 384 numbers for each text; texts are cut at 20,000 characters, none may be empty."""
        vectors: list[list[float]] = []
        for batch in _batches([text[:MAX_EMBEDDED_CHARACTERS] for text in texts], _EMBEDDED_AT_ONCE):
            answer = await self._client.embeddings.create(
                model=self._names.embedding, input=batch, dimensions=EMBEDDING_DIMENSIONS
            )
            vectors += [item.embedding for item in sorted(answer.data, key=lambda item: item.index)]
        return vectors

    def chat_model_args(self, asked: ModelTier | None = None) -> dict[str, Any]:
        """Keyword arguments of langchain's ``ChatOpenAI``; asynchronous calls only: others reach nothing."""
        return {
            "model": self.model_name(asked),
            "base_url": BASE_URL,
            "api_key": _NO_KEY,
            "http_async_client": self._http,
            "use_responses_api": False,
            "max_retries": 0,
        }


def _batches(texts: list[str], size: int) -> list[list[str]]:
    return [texts[start : start + size] for start in range(0, len(texts), size)]

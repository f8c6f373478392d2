"""Which model answers, where, and for how much: pure decisions of the gateway.

A call goes to an endpoint whose region the tenant's policy allows, or nowhere: there is no other place to
relax that. Prices come from genai-prices; a model it does not know is charged at a stated fallback.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

import genai_prices

from core.errors import InvalidInput
from core.settings import Port, Settings
from core.tenancy import ModelTier, Policy

EMBEDDING_DIMENSIONS = 384
ASSUMED_OUTPUT_TOKENS = 1_000
"""What an answer is estimated at when the request sets no limit."""

FALLBACK_INPUT_MICROUSD = Decimal("2.5")
FALLBACK_OUTPUT_MICROUSD = Decimal(10)
"""Per token (= USD per million tokens), for models genai-prices does not know. Deliberately not cheap."""

OFFLINE = "offline"
_LIMIT_FIELDS = ("max_output_tokens", "max_completion_tokens", "max_tokens")


class Api(StrEnum):
    """Which of OpenAI's two APIs an installation speaks."""

    RESPONSES = "responses"
    CHAT = "chat"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address that answers model calls.

    Attributes:
        name: stable, shown in audit and metrics.
        url: base URL ending in ``/v1``.
        region: where it runs; compared with the policy's regions.
    """

    name: str
    url: str
    region: str
    api_key: str = field(default="none", repr=False)


@dataclass(frozen=True, slots=True)
class Names:
    """What the models of each tier are called, and in which API they are spoken to."""

    small: str
    large: str
    embedding: str
    api: Api = Api.RESPONSES

    def of(self, tier: ModelTier) -> str:
        """The model of a tier."""
        return self.large if tier is ModelTier.LARGE else self.small


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a call used. ``cached`` are those of the input that the endpoint remembered and charges less for."""

    input: int = 0
    output: int = 0
    cached: int = 0


_TYPICAL = Tokens(input=3_000, output=1_000)


@dataclass(frozen=True, slots=True)
class Price:
    """Cost of a call in micro-USD, rounded up; ``known`` is false where the fallback was applied."""

    microusd: int
    known: bool


def endpoints_of(settings: Settings) -> tuple[Endpoint, ...]:
    """The endpoints an installation is configured with: ``model_url``, or the offline model of this machine."""
    key = settings.model_api_key.get_secret_value() if settings.model_api_key else "none"
    offline = f"http://127.0.0.1:{settings.port(Port.MODEL)}/v1"
    return (
        Endpoint(
            name=OFFLINE if settings.model_url is None else f"model-{settings.model_region}",
            url=(settings.model_url or offline).rstrip("/"),
            # The offline model runs beside this process, so it is in its region wherever that is.
            region=settings.region if settings.model_url is None else settings.model_region,
            api_key=key,
        ),
    )


def names_of(settings: Settings) -> Names:
    """The configured model names."""
    return Names(settings.model_small, settings.model_large, settings.model_embedding, Api(settings.model_api))


def allowed_endpoints(endpoints: Sequence[Endpoint], policy: Policy, home_region: str) -> tuple[Endpoint, ...]:
    """The endpoints a tenant's calls may go to, those of its own region first; never one outside ``policy.regions``."""
    inside = [one for one in endpoints if not policy.regions or one.region in policy.regions]
    return tuple(sorted(inside, key=lambda one: one.region != home_region))


def tier_for(policy: Policy, asked: ModelTier | None) -> ModelTier:
    """The tier a call gets: what was asked for, but never above the policy's; nothing asked: the policy's."""
    if asked is None or (asked is ModelTier.LARGE and policy.model_tier is ModelTier.SMALL):
        return policy.model_tier
    return asked


def cheapest_tier(names: Names, policy: Policy, now: datetime) -> ModelTier:
    """The tier, among those the policy allows, whose model answers a typical call for the least."""
    allowed = [tier for tier in ModelTier if tier_for(policy, tier) is tier]
    return min(allowed, key=lambda tier: price_of(names.of(tier), _TYPICAL, now).microusd)


def tier_named(name: str | None) -> ModelTier | None:
    """The tier an agent names as its model. Anything else would go around tier and budget: ``InvalidInput``."""
    if name is None:
        return None
    try:
        return ModelTier(name)
    except ValueError:
        raise InvalidInput(f"Agents name a tier (small, large) as their model, not {name!r}.", model=name) from None


def price_of(model: str, tokens: Tokens, now: datetime) -> Price:
    """What ``tokens`` of ``model`` cost at ``now``."""
    usage = genai_prices.Usage(
        input_tokens=tokens.input, output_tokens=tokens.output, cache_read_tokens=min(tokens.cached, tokens.input)
    )
    try:
        found = genai_prices.calc_price(usage, model, provider_id="openai", genai_request_timestamp=now)
    except LookupError:
        cost = tokens.input * FALLBACK_INPUT_MICROUSD + tokens.output * FALLBACK_OUTPUT_MICROUSD
        return Price(math.ceil(cost), known=False)
    return Price(math.ceil(found.total_price * 1_000_000), known=True)


def estimate_of(model: str, body: Mapping[str, Any], size_bytes: int, now: datetime) -> int:
    """Micro-USD to reserve before a call: four bytes to a token, and the longest answer the request allows."""
    limits = (body.get(name) for name in _LIMIT_FIELDS)
    longest = next((limit for limit in limits if isinstance(limit, int) and limit > 0), ASSUMED_OUTPUT_TOKENS)
    output = 0 if is_embedding(body) else longest
    return price_of(model, Tokens(input=-(-size_bytes // 4), output=output), now).microusd


def is_embedding(body: Mapping[str, Any]) -> bool:
    """Is this the body of an embedding request?"""
    return "input" in body and "dimensions" in body


def cacheable(body: Mapping[str, Any]) -> bool:
    """May an earlier answer to the same body be given again? Embeddings, and plain answers at temperature 0."""
    if is_embedding(body):
        return True
    return body.get("temperature") == 0 and not body.get("tools") and not body.get("stream")


def prompt_hash(body: Mapping[str, Any]) -> str:
    """SHA-256 of a request, whatever the order of its fields; stands for the content in audit and cache."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

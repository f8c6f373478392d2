"""Which endpoint, which tier, what price, when to stop asking: the gateway's pure decisions."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.breaker import Breaker, BreakerState
from core.errors import InvalidInput
from core.models.model import (
    Endpoint,
    Tokens,
    allowed_endpoints,
    cacheable,
    endpoints_of,
    estimate_of,
    price_of,
    prompt_hash,
    tier_for,
    tier_named,
)
from core.models.observation import Observed, StreamObserver
from core.models.offline.prompt import Prompt, Said, Speaker
from core.models.offline.responses_wire import events
from core.models.offline.rules.engine import answer
from core.models.offline.wire import Stamp
from core.settings import Settings
from core.tenancy import ModelTier, Policy

NOW = datetime(2026, 11, 21, tzinfo=UTC)
REGIONS = ("us-east-1", "eu-west-1", "ap-south-1")
ENDPOINTS = tuple(
    Endpoint(f"{region}-{n}", f"http://{region}.invalid/v1", region) for region in REGIONS for n in (1, 2)
)


@given(allowed=st.lists(st.sampled_from(REGIONS)), home=st.sampled_from(REGIONS))
def test_no_endpoint_outside_the_policys_regions_is_ever_a_candidate(allowed: list[str], home: str) -> None:
    found = allowed_endpoints(ENDPOINTS, Policy(regions=tuple(allowed)), home)
    assert {one.region for one in found} == (set(allowed) or set(REGIONS))
    if home in {one.region for one in found}:
        assert found[0].region == home


def test_a_policy_for_a_region_without_endpoints_has_no_candidate() -> None:
    assert allowed_endpoints(ENDPOINTS, Policy(regions=("sa-east-1",)), "us-east-1") == ()


@pytest.mark.parametrize(
    ("policy", "asked", "given_tier"),
    [
        (ModelTier.SMALL, None, ModelTier.SMALL),
        (ModelTier.SMALL, ModelTier.LARGE, ModelTier.SMALL),
        (ModelTier.LARGE, None, ModelTier.LARGE),
        (ModelTier.LARGE, ModelTier.SMALL, ModelTier.SMALL),
        (ModelTier.LARGE, ModelTier.LARGE, ModelTier.LARGE),
    ],
)
def test_a_call_never_gets_a_tier_above_the_policys(
    policy: ModelTier, asked: ModelTier | None, given_tier: ModelTier
) -> None:
    assert tier_for(Policy(model_tier=policy), asked) is given_tier


def test_an_agent_that_names_a_model_instead_of_a_tier_is_refused() -> None:
    assert tier_named("large") is ModelTier.LARGE
    assert tier_named(None) is None
    with pytest.raises(InvalidInput, match="gpt-5"):
        tier_named("gpt-5")


def test_prices_are_the_published_ones_and_unknown_models_have_a_stated_fallback() -> None:
    mini = price_of("gpt-5-mini", Tokens(input=1_000_000, output=1_000_000), NOW)
    assert (mini.microusd, mini.known) == (250_000 + 2_000_000, True)
    unknown = price_of("model-of-tomorrow", Tokens(input=1_000, output=100), NOW)
    assert (unknown.microusd, unknown.known) == (2_500 + 1_000, False)
    assert price_of("gpt-5-mini", Tokens(input=1), NOW).microusd == 1  # rounded up, never down to nothing
    cached = price_of("gpt-5-mini", Tokens(input=1_000_000, cached=1_000_000), NOW)
    assert cached.microusd < 250_000


def test_an_estimate_covers_the_prompt_and_the_longest_answer_allowed() -> None:
    short = estimate_of("gpt-5-mini", {"max_output_tokens": 10}, 400, NOW)
    assert short == price_of("gpt-5-mini", Tokens(input=100, output=10), NOW).microusd
    assert estimate_of("gpt-5-mini", {}, 400, NOW) > short
    embedding = {"input": ["x"], "dimensions": 384}
    assert estimate_of("text-embedding-3-small", embedding, 400, NOW) == 2


def test_only_answers_that_cannot_differ_are_remembered() -> None:
    assert cacheable({"input": ["x"], "dimensions": 384})
    assert cacheable({"input": "x", "temperature": 0})
    assert not cacheable({"input": "x"})
    assert not cacheable({"input": "x", "temperature": 0, "tools": [{"name": "pay"}]})
    assert not cacheable({"input": "x", "temperature": 0, "stream": True})


def test_the_hash_of_a_prompt_does_not_depend_on_the_order_of_its_fields() -> None:
    assert prompt_hash({"a": 1, "b": [2]}) == prompt_hash({"b": [2], "a": 1}) != prompt_hash({"a": 1, "b": [3]})


def test_the_offline_model_is_in_the_region_of_its_process() -> None:
    assert [(one.name, one.region) for one in endpoints_of(Settings(region="eu-west-1"))] == [("offline", "eu-west-1")]
    real = endpoints_of(Settings(region="eu-west-1", model_url="https://models.example/v1/", model_region="us-east-1"))
    assert [(one.url, one.region) for one in real] == [("https://models.example/v1", "us-east-1")]


def test_a_breaker_opens_after_failures_in_a_row_and_tries_one_call_after_the_pause() -> None:
    breaker = Breaker(failures=3, pause_s=5, longest_pause_s=15)
    for second in range(2):
        assert breaker.admit(second)
        breaker.failed(second)
    breaker.admit(2)
    breaker.succeeded()
    for second in range(3, 6):
        assert breaker.admit(second)
        breaker.failed(second)
    assert breaker.state(5) is BreakerState.OPEN
    assert not breaker.admit(9.9)
    assert breaker.opens_in_s(6) == 4
    assert breaker.admit(10)
    assert not breaker.admit(10), "one probe at a time"
    breaker.failed(10)
    assert breaker.opens_in_s(10) == 10, "the pause doubles"
    assert breaker.admit(20)
    breaker.failed(20)
    assert breaker.opens_in_s(20) == 15, "up to its limit"
    assert breaker.admit(35)
    breaker.succeeded()
    assert breaker.state(35) is BreakerState.CLOSED


def test_a_probe_whose_caller_gave_up_leaves_room_for_the_next() -> None:
    breaker = Breaker(failures=1, pause_s=5)
    breaker.admit(0)
    breaker.failed(0)
    assert breaker.admit(5)
    breaker.abandoned()
    assert breaker.admit(5)


@given(cuts=st.lists(st.integers(0, 4_000), max_size=30))
def test_a_stream_is_understood_however_its_bytes_are_cut(cuts: list[int]) -> None:
    prompt = Prompt("", (Said(Speaker.USER, "hello"),))
    whole = b"".join(events(answer(prompt), prompt, Stamp("some-model", prompt.digest(), 0)))
    observer = StreamObserver()
    places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    for start, end in pairwise(places):
        observer.feed(whole[start:end])
    assert (observer.seen.model, observer.seen.fingerprint) == ("some-model", "offline-1")
    assert observer.seen.tokens == observer.tokens_so_far(prompt_bytes=0)
    assert observer.seen.tokens is not None
    assert observer.seen.tokens.output > 5


def test_a_stream_that_broke_off_is_charged_for_the_prompt_and_the_pieces_seen() -> None:
    observer = StreamObserver()
    observer.feed(
        b'data: {"model": "m", "choices": []}\n\ndata: {"choices": [1]}\n\nnoise\ndata: not json\n\ndata: {"ch'
    )
    assert observer.seen == Observed(model="m")
    assert observer.tokens_so_far(prompt_bytes=401) == Tokens(input=101, output=3)

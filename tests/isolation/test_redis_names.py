"""Tenants in Redis: keys, channels, limits, cached values and events never meet, whatever things are called."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.clock import FakeClock
from core.ids import TenantId
from core.redis.bus import Bus
from core.redis.cache import Cache
from core.redis.keys import Keys
from core.redis.limits import Limits
from core.settings import Settings
from core.tenancy import ActorKind, Policy, RateLimit, TenantContext

ALPHA = TenantContext(
    tenant_id=TenantId("alpha"),
    user_id=None,
    actor_kind=ActorKind.SYSTEM,
    actor_id="test",
    scopes=frozenset(),
    policy=Policy(),
    policy_version=1,
    org_id="alpha",
    region="us-east-1",
)
# Names that try to look like a piece of a key.
HOSTILE = (
    "bravo",
    "{bravo}",
    "alpha}:events",
    "}:{bravo",
    "*",
    "",
    "\r\nflushall\r\n",
    "bravo:limit:1/60",
    "\x00",
    "🦊",
)

tenants = st.from_regex(r"\A[a-z0-9][a-z0-9-]{1,62}\Z").map(TenantId)
words = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=20))
spaces = st.sampled_from(["answer", "embedding"])
Namer = Callable[[Keys, TenantId], str]
namers: st.SearchStrategy[Namer] = st.one_of(
    st.just(lambda keys, tenant: keys.events(tenant)),
    st.builds(lambda name, part: lambda keys, tenant: keys.limit(tenant, name)[part], words, st.integers(0, 2)),
    st.builds(lambda space, key: lambda keys, tenant: keys.cache(tenant, space, key), spaces, words),
)
topics = st.sampled_from(["workers", "scheduler", "cancel", "bus"])


@given(tenants, tenants, namers, namers, topics)
@example(TenantId("alpha"), TenantId("alpha-"), lambda k, t: k.events(t), lambda k, t: k.events(t), "bus")
def test_no_name_of_one_tenant_is_a_name_of_another_or_of_all(
    one: TenantId, other: TenantId, name: Namer, other_name: Namer, topic: str
) -> None:
    keys = Keys("us-east-1", 0)
    if one != other:
        assert name(keys, one) != other_name(keys, other)
    assert keys.topic(topic) != name(keys, one)
    # A cluster puts what belongs to a tenant on one node; the braces hold the tenant, whole and once.
    assert name(keys, one).split("{", 1)[1].split("}", 1)[0] == one
    assert name(Keys("us-east-1", 1), one) != name(keys, one) != name(Keys("eu-west-1", 0), one)


@given(words, words)
def test_different_names_of_one_tenant_are_different_keys(one: str, other: str) -> None:
    keys = Keys("us-east-1", 0)
    alike = one == other
    mine, others = keys.limit(ALPHA.tenant_id, one), keys.limit(ALPHA.tenant_id, other)
    assert (len({*mine, *others}) == 3) is alike
    assert (keys.cache(ALPHA.tenant_id, "s", one) == keys.cache(ALPHA.tenant_id, "s", other)) is alike


@pytest.mark.parametrize("name", HOSTILE[:6])
async def test_limits_values_and_events_of_two_tenants_never_meet(settings: Settings, name: str) -> None:
    assert settings.redis_url is not None
    clock = FakeClock()
    bus = await Bus.open(settings.redis_url.get_secret_value(), clock, region=settings.region)
    bravo = replace(ALPHA, tenant_id=TenantId("bravo"))
    limits, cache, rate = Limits(bus.connection), Cache(bus.connection), RateLimit(limit=1, window_s=3600)
    try:
        assert await limits.take(ALPHA, name, rate, clock.now(), holder="h") == 0.0
        assert await limits.take(ALPHA, name, rate, clock.now(), holder="other") > 0.0
        assert await limits.take(bravo, name, rate, clock.now(), holder="h") == 0.0
        await cache.set(ALPHA, "answer", name, "alpha's", ttl_s=60)
        assert await cache.get(bravo, "answer", name) is None
        await cache.set(bravo, "answer", name, "bravo's", ttl_s=60)
        assert await cache.get(ALPHA, "answer", name) == "alpha's"
        async with bus.subscribe(ALPHA.tenant_id) as alpha_hears, bus.subscribe(bravo.tenant_id) as bravo_hears:
            await bus.publish(ALPHA.tenant_id, name, {"of": "alpha"})
            await bus.publish(bravo.tenant_id, name, {"of": "bravo"})
            for hears, of in ((alpha_hears, "alpha"), (bravo_hears, "bravo")):
                event = await asyncio.wait_for(anext(hears), 5)
                assert (event.kind, event.data) == (name, {"of": of})
    finally:
        await bus.close()


def test_a_tenant_whose_name_would_look_like_a_piece_of_a_key_gets_no_key() -> None:
    keys = Keys("us-east-1", 0)
    for hostile in ("a}:cache:x", "{a", "a b", "A", "", "-a"):
        with pytest.raises(ValueError, match="tenant"):
            keys.events(TenantId(hostile))

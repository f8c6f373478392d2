"""The model gateway with real clients, a real database and real HTTP: money, regions, faults, records."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from agents import Agent, Runner, function_tool, trace
from langchain_openai import ChatOpenAI
from prometheus_client import CollectorRegistry

from core.audit.model import AuditEntry
from core.audit.service import AuditService
from core.clock import SystemClock
from core.db.pool import Database
from core.errors import BudgetExceeded, InvalidInput, NoModelEndpoint, RateLimited
from core.models.gateway import ModelGateway, TenantModels
from core.models.metering import Books
from core.models.metrics import ModelMetrics
from core.models.model import Api, Endpoint, Names
from core.models.route import Patience
from core.redis.bus import Bus
from core.redis.cache import Cache
from core.redis.reports import EndpointReports
from core.settings import Settings
from core.tenancy import ModelTier, Policy, Role, TenantContext
from core.usage.service import UsageService
from tests.fixtures.people import People, people_in
from tests.fixtures.upstream import DROP, HANG, STALL, Upstream, upstream

SECRET = "how far is it? my secret is 4711"
IMPATIENT = Patience(connect_s=5, read_s=5, answer_s=10, attempts=3, first_pause_s=0.01, longest_pause_s=0.02)
HOME = "us-east-1"


@dataclass
class House:
    """A database with its books, and the gateways made in the test."""

    people: People
    db: Database
    registry: CollectorRegistry
    books: Books
    stack: AsyncExitStack
    cache: Cache | None = None
    reports: EndpointReports | None = None
    gateways: list[ModelGateway] = field(default_factory=list)

    def gateway(self, *endpoints: Endpoint, api: str = "responses", patience: Patience = IMPATIENT) -> ModelGateway:
        """A gateway to these endpoints."""
        names = Names("gpt-5-mini", "gpt-5", "text-embedding-3-small", Api(api))
        made = ModelGateway(endpoints, names, self.books, self.cache, patience, self.reports)
        self.gateways.append(made)
        self.stack.push_async_callback(made.close)
        return made

    async def tenant(self, name: str = "bank", **policy: Any) -> TenantContext:
        """An admin of a tenant with this policy."""
        _, identity = await self.people.login("ada@example.org", name, Role.ADMIN, policy=Policy(**policy))
        return identity.ctx

    async def audit(self, ctx: TenantContext) -> list[AuditEntry]:
        """The model calls of a tenant, oldest first, once all are written."""
        for gateway in self.gateways:
            await gateway.settled()
        return [one for one in reversed(await self.books.audit.recent(ctx)) if one.act.startswith("model.")]

    async def money(self, ctx: TenantContext) -> tuple[int, int]:
        """Reserved and spent, this month."""
        balance = await self.books.usage.balance(ctx)
        return balance.reserved_microusd, balance.spent_microusd


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[House]:
    clock = SystemClock()
    async with people_in(settings) as (db, people), AsyncExitStack() as stack:
        registry = CollectorRegistry()
        books = Books(db, UsageService(db, clock), AuditService(db, clock), clock, ModelMetrics(registry))
        yield House(people, db, registry, books, stack)


@pytest.fixture
async def endpoint() -> AsyncIterator[Upstream]:
    async with upstream() as opened:
        yield opened


def at(one: Upstream, region: str = HOME, name: str = "main") -> Endpoint:
    return Endpoint(name, one.url, region, api_key="sk-the-real-key")


def agent() -> Agent[None]:
    @function_tool
    def runs_progress() -> str:
        """Counts of runs by status."""
        return json.dumps({"total": 20, "succeeded": 12, "running": 8})

    return Agent[None](name="chat", instructions="Help.", tools=[runs_progress])


async def ask(models: TenantModels) -> str:
    return str((await Runner.run(agent(), SECRET, run_config=models.run_config())).final_output)


async def ask_streaming(models: TenantModels) -> str:
    result = Runner.run_streamed(agent(), SECRET, run_config=models.run_config())
    async for _ in result.stream_events():
        pass
    return str(result.final_output)


@pytest.mark.parametrize("api", ["responses", "chat"])
@pytest.mark.parametrize("way", [ask, ask_streaming])
async def test_an_agents_calls_are_paid_and_recorded_without_their_content(
    house: House, offline_model: str, api: str, way: Callable[[TenantModels], Any]
) -> None:
    ctx = await house.tenant()
    gateway = house.gateway(Endpoint("offline", offline_model, HOME), api=api)
    models = gateway.for_tenant(ctx, "chat")
    assert await way(models) == "Of 20 runs: succeeded 12, running 8."
    calls = await house.audit(ctx)
    assert [(call.act, call.subject) for call in calls] == [("model.call", "model:gpt-5-mini")] * 2
    told = calls[1].after
    assert told["purpose"] == "chat"
    assert (told["model"], told["fingerprint"]) == ("gpt-5-mini", "offline-1")
    assert (told["endpoint"], told["region"], told["outcome"]) == ("offline", HOME, "ok")
    assert told["input_tokens"] > told["output_tokens"] > 5
    assert len(told["prompt_sha256"]) == 64
    assert "secret" not in str([call.after for call in calls])
    assert await house.money(ctx) == (0, sum(call.after["cost_microusd"] for call in calls))
    assert models.spent_microusd == sum(call.after["cost_microusd"] for call in calls) > 0
    labels = {"tenant": "bank", "purpose": "chat", "model": "gpt-5-mini", "endpoint": "offline"}
    assert house.registry.get_sample_value("bailiwick_model_calls_total", {**labels, "outcome": "ok"}) == 2
    assert house.registry.get_sample_value("bailiwick_model_cost_microusd_total", labels) == models.spent_microusd


async def test_only_the_gateway_adds_address_and_key_and_nothing_is_traced(house: House, endpoint: Upstream) -> None:
    models = house.gateway(at(endpoint)).for_tenant(await house.tenant(), "chat")
    assert "sk-the-real-key" not in str(models.chat_model_args())
    await ask(models)
    assert {headers["authorization"] for headers, _ in endpoint.requests} == {"Bearer sk-the-real-key"}
    assert type(trace("anything")).__name__ == "NoOpTrace"


async def test_langchain_and_embeddings_are_paid_like_agents(house: House, offline_model: str) -> None:
    ctx = await house.tenant()
    models = house.gateway(Endpoint("offline", offline_model, HOME)).for_tenant(ctx, "memory")
    answer = await ChatOpenAI(**models.chat_model_args()).ainvoke("hello")
    assert "offline model" in str(answer.content)
    pieces = [str(piece.content) async for piece in ChatOpenAI(**models.chat_model_args()).astream("hello")]
    assert "".join(pieces) == answer.content
    assert [len(vector) for vector in await models.embed(["The cat sleeps", "The economy shrank"])] == [384, 384]
    calls = await house.audit(ctx)
    assert [call.subject for call in calls] == ["model:gpt-5-mini"] * 2 + ["model:text-embedding-3-small"]
    assert all(call.after["cost_microusd"] > 0 for call in calls)


async def test_an_embedding_is_remembered_for_its_own_tenant_only(
    house: House, endpoint: Upstream, settings: Settings
) -> None:
    assert settings.redis_url is not None
    bus = await Bus.open(settings.redis_url.get_secret_value(), SystemClock(), region=HOME)
    house.stack.push_async_callback(bus.close)
    house.cache = Cache(bus.connection)
    gateway = house.gateway(at(endpoint))
    bank, union = await house.tenant(), await house.tenant("union")
    first = await gateway.for_tenant(bank, "memory").embed(["one", "three"])
    assert await gateway.for_tenant(bank, "memory").embed(["one", "three"]) == first
    assert len(endpoint.requests) == 1
    await gateway.for_tenant(union, "memory").embed(["one", "three"])
    assert len(endpoint.requests) == 2
    assert house.registry.get_sample_value("bailiwick_model_cache_total", {"tenant": "bank", "result": "hit"}) == 1


async def test_a_call_the_budget_does_not_cover_is_never_sent(house: House, endpoint: Upstream) -> None:
    ctx = await house.tenant(budget_month_microusd=100)
    models = house.gateway(at(endpoint)).for_tenant(ctx, "chat")
    for way in (ask, ask_streaming):
        with pytest.raises(BudgetExceeded) as refused:
            await way(models)
        assert refused.value.details["account"] == "month"
    with pytest.raises(BudgetExceeded):
        await ChatOpenAI(**models.chat_model_args()).ainvoke("hello")
    assert endpoint.requests == []
    refusals = await house.audit(ctx)
    assert [(one.act, one.after["code"]) for one in refusals] == [("model.refused", "budget_exceeded")] * 3
    assert await house.money(ctx) == (0, 0)


async def test_a_step_pays_from_its_own_reservation_and_stays_inside_it(house: House, endpoint: Upstream) -> None:
    ctx = await house.tenant()
    gateway = house.gateway(at(endpoint))
    enough = gateway.for_tenant(ctx, "workflow", covered_microusd=20_000)
    await ask(enough)
    assert 0 < enough.spent_microusd < 20_000
    assert await house.money(ctx) == (0, 0), "the step settles, not the gateway"
    scarce = gateway.for_tenant(ctx, "workflow", covered_microusd=enough.spent_microusd)
    with pytest.raises(BudgetExceeded) as refused:
        await ask(scarce)
    assert refused.value.details["account"] == "step"
    assert scarce.spent_microusd <= enough.spent_microusd


async def test_a_learned_reservation_grows_before_each_call_that_it_does_not_cover(
    house: House, endpoint: Upstream
) -> None:
    covered, more, broke = 100, list[int](), False

    async def cover_more(amount_microusd: int) -> None:
        assert models.spent_microusd <= covered + sum(more)
        if broke:
            raise BudgetExceeded("The run's budget does not cover it.", account="run")
        more.append(amount_microusd)

    gateway = house.gateway(at(endpoint))
    models = gateway.for_tenant(await house.tenant(), "workflow", covered_microusd=covered, cover_more=cover_more)
    await asyncio.gather(ask(models), ask(models))
    # Two calls each; the second ones may be under way at once, and then need a little more than the first ones did.
    assert 2 <= len(more) <= 3
    assert all(amount > 0 for amount in more)
    assert 0 < models.spent_microusd <= covered + sum(more)

    broke = True

    async def ask_on() -> None:
        while True:
            await ask(models)

    with pytest.raises(BudgetExceeded) as refused:
        await ask_on()
    assert refused.value.details["account"] == "run"
    assert models.spent_microusd <= covered + sum(more)


async def test_tiers_decide_the_model_and_agents_cannot_name_another(house: House, endpoint: Upstream) -> None:
    gateway = house.gateway(at(endpoint))
    bank, shop = await house.tenant(model_tier=ModelTier.LARGE), await house.tenant("shop")
    assert gateway.for_tenant(bank, "chat").model_name() == "gpt-5"
    assert gateway.for_tenant(bank, "chat", tier=ModelTier.SMALL).model_name(ModelTier.LARGE) == "gpt-5-mini"
    assert gateway.for_tenant(bank, "chat", cheapest=True).model_name(ModelTier.LARGE) == "gpt-5-mini"
    large = Agent[None](name="greedy", instructions="Help.", model="large")
    await Runner.run(large, "hello", run_config=gateway.for_tenant(shop, "chat").run_config())
    assert endpoint.requests[-1][1]["model"] == "gpt-5-mini"
    named = Agent[None](name="named", instructions="Help.", model="gpt-5")
    with pytest.raises(InvalidInput):
        await Runner.run(named, "hello", run_config=gateway.for_tenant(bank, "chat").run_config())


async def test_no_endpoint_outside_the_regions_is_called_even_when_all_inside_are_down(
    house: House, settings: Settings
) -> None:
    bus = await Bus.open(settings.required("redis_url"), SystemClock(), region=HOME)
    house.stack.push_async_callback(bus.close)
    house.reports = EndpointReports(bus.connection)
    async with upstream() as american, upstream() as european:
        gateway = house.gateway(at(american, "us-east-1", "us"), at(european, "eu-west-1", "eu"))
        ctx = await house.tenant(regions=("eu-west-1",))
        models = gateway.for_tenant(ctx, "chat")
        await ask(models)
        assert len(european.requests) == 2
        european.script.extend([503] * 100)
        for _ in range(5):
            with pytest.raises(NoModelEndpoint, match="eu-west-1"):
                await ask(models)
        with pytest.raises(NoModelEndpoint) as down:
            await ask(models)
        assert down.value.retryable
        assert (down.value.retry_after_s or 0) > 1
        assert "did not answer lately" in down.value.details["endpoints"]["eu"]
        await asyncio.gather(*(route._breaker.settled() for route in gateway._routes.values()))  # others can know it
        just_started = house.gateway(at(american, "us-east-1", "us"), at(european, "eu-west-1", "eu"))
        with pytest.raises(NoModelEndpoint, match="eu-west-1"):
            await ask(just_started.for_tenant(ctx, "chat"))
        assert len(european.requests) == 2 + 5 * IMPATIENT.attempts, "the open breaker spares it"
        assert american.requests == []
    assert house.registry.get_sample_value("bailiwick_model_breaker_open", {"endpoint": "eu"}) == 1
    failures = [one for one in await house.audit(ctx) if one.act == "model.failed"]
    assert [one.after["problem"] for one in failures] == ["no_model_endpoint"] * 7
    assert (await house.money(ctx))[0] == 0


async def test_a_tenant_without_an_endpoint_in_its_regions_is_told_so(house: House, endpoint: Upstream) -> None:
    ctx = await house.tenant(regions=("ap-south-1",))
    with pytest.raises(NoModelEndpoint, match="ap-south-1"):
        await ask(house.gateway(at(endpoint)).for_tenant(ctx, "chat"))
    assert endpoint.requests == []
    assert [one.act for one in await house.audit(ctx)] == ["model.refused"]


async def test_another_endpoint_of_the_region_takes_over(house: House, endpoint: Upstream) -> None:
    async with upstream() as broken:
        broken.script.extend([500] * 100)
        gateway = house.gateway(at(broken, name="first"), at(endpoint, name="second"))
        ctx = await house.tenant()
        await ask(gateway.for_tenant(ctx, "chat"))
    assert {call.after["endpoint"] for call in await house.audit(ctx)} == {"second"}


@pytest.mark.parametrize("faults", [[429], [503, 429], [502, 500]])
async def test_a_passing_fault_is_retried_and_paid_once(house: House, endpoint: Upstream, faults: list[int]) -> None:
    endpoint.script.extend(faults)
    ctx = await house.tenant()
    models = house.gateway(at(endpoint)).for_tenant(ctx, "chat")
    assert await ask(models) == "Of 20 runs: succeeded 12, running 8."
    assert len(endpoint.requests) == len(faults) + 2
    assert len(await house.audit(ctx)) == 2
    assert await house.money(ctx) == (0, models.spent_microusd)


@pytest.mark.parametrize(
    ("faults", "error", "sent"),
    [
        ([429] * 3, RateLimited, 3),
        ([400], InvalidInput, 1),
        ([307], InvalidInput, 1),
        ([401], NoModelEndpoint, 1),
        ([500] * 3, NoModelEndpoint, 3),
    ],
)
async def test_a_lasting_fault_is_one_of_our_errors_and_costs_nothing(
    house: House, endpoint: Upstream, faults: list[int], error: type[Exception], sent: int
) -> None:
    endpoint.script.extend(faults)
    ctx = await house.tenant()
    models = house.gateway(at(endpoint)).for_tenant(ctx, "chat")
    with pytest.raises(error):
        await ask(models)
    assert len(endpoint.requests) == sent
    assert [one.act for one in await house.audit(ctx)] == ["model.failed"]
    assert await house.money(ctx) == (0, 0)


async def test_an_endpoint_that_does_not_listen_is_no_endpoint(house: House) -> None:
    nowhere = Endpoint("nowhere", "http://127.0.0.1:9/v1", HOME)
    with pytest.raises(NoModelEndpoint) as down:
        await ask(house.gateway(nowhere).for_tenant(await house.tenant(), "chat"))
    assert down.value.details["endpoints"] == {"nowhere": "not reached"}


async def test_an_endpoint_that_is_too_slow_is_not_asked_twice(house: House, endpoint: Upstream) -> None:
    endpoint.script.append(HANG)
    quick = Patience(read_s=1.0, first_pause_s=0.01)
    with pytest.raises(NoModelEndpoint) as slow:
        await ask(house.gateway(at(endpoint), patience=quick).for_tenant(await house.tenant(), "chat"))
    assert slow.value.details["endpoints"] == {"main": "too slow"}
    assert len(endpoint.requests) == 1
    await asyncio.wait_for(endpoint.gone.wait(), 30)


async def test_cancelling_a_call_closes_it_upstream_and_gives_its_money_back(house: House, endpoint: Upstream) -> None:
    endpoint.script.append(HANG)
    ctx = await house.tenant()
    models = house.gateway(at(endpoint)).for_tenant(ctx, "chat")
    task = asyncio.create_task(ask(models))
    await asyncio.wait_for(endpoint.waiting.wait(), 30)
    assert (await house.money(ctx))[0] > 0
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(endpoint.gone.wait(), 30)
    assert [(one.act, one.after["problem"]) for one in await house.audit(ctx)] == [("model.failed", "cancellederror")]
    assert await house.money(ctx) == (0, 0)


async def test_closing_a_stream_closes_it_upstream_and_charges_what_was_done(house: House, endpoint: Upstream) -> None:
    endpoint.script.append(STALL)
    ctx = await house.tenant()
    models = house.gateway(at(endpoint)).for_tenant(ctx, "chat")
    result = Runner.run_streamed(agent(), SECRET, run_config=models.run_config())
    reading = asyncio.create_task(_drain(result.stream_events()))
    await asyncio.wait_for(endpoint.waiting.wait(), 30)
    result.cancel()
    await asyncio.wait_for(endpoint.gone.wait(), 30)
    await asyncio.wait_for(reading, 30)
    calls = await house.audit(ctx)
    assert [(call.act, call.after["outcome"]) for call in calls] == [("model.call", "aborted")]
    assert calls[0].after["input_tokens"] > 20
    assert await house.money(ctx) == (0, calls[0].after["cost_microusd"])
    assert models.spent_microusd == calls[0].after["cost_microusd"] > 0


async def test_a_stream_that_breaks_off_is_an_error_and_charged(house: House, endpoint: Upstream) -> None:
    endpoint.script.extend([DROP] * 9)
    models = house.gateway(at(endpoint)).for_tenant(ctx := await house.tenant(), "chat")
    for problem in ["broke off"] * 5 + ["no other region is tried"]:
        with pytest.raises(NoModelEndpoint, match=problem):
            await ask_streaming(models)
    assert [call.after.get("outcome") for call in await house.audit(ctx)] == ["broken"] * 5 + [None]
    assert len(endpoint.requests) == 5, "the open breaker spares it"


async def _drain(events: AsyncIterator[Any]) -> None:
    async for _ in events:
        pass

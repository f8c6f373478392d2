"""Breakers and bulkheads: one tenant's failing integration neither trips nor starves another's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from core.breaker import Bulkhead, EndpointBreaker
from core.errors import EndpointDown
from core.ids import TenantId
from core.runs.model import Cause, RunState
from core.workflows import Retry, Run, Step, workflow
from core.workflows.services import CALLS_PER_TENANT, Guard, Service
from core.workflows.testing import in_memory

A, B, C = TenantId("a"), TenantId("b"), TenantId("c")


def pauses(most_s: int) -> st.SearchStrategy[float]:
    """Times that add up without rounding: whole 64ths of a second."""
    return st.integers(0, most_s * 64).map(lambda number: number / 64)


def call(breaker: EndpointBreaker, tenant: str, now_s: float, works: bool) -> bool:
    """Whether a call went out; then it is answered or not."""
    if not breaker.admit(tenant, now_s):
        return False
    if works:
        breaker.answered(tenant, now_s)
    else:
        breaker.failed(tenant, now_s)
    return True


def test_a_tenant_that_always_fails_stops_itself_and_nobody_else() -> None:
    breaker = EndpointBreaker(failures=3, pause_s=5)
    made = [call(breaker, A, second, works=False) for second in range(4)]
    assert made == [True, True, True, False]
    assert all(call(breaker, B, second, works=True) for second in range(4, 40))
    assert breaker.open_for(40) == (1, False)


def test_an_endpoint_that_fails_two_tenants_is_left_alone_by_all_until_one_call_is_answered() -> None:
    breaker = EndpointBreaker(failures=3, pause_s=5)
    for tenant in (A, B):
        for _ in range(3):
            assert call(breaker, tenant, 0, works=False)
    assert breaker.open_for(0) == (2, True)
    assert not breaker.admit(C, 4.9)
    assert breaker.opens_in_s(C, 1) == 4
    assert breaker.admit(C, 5), "who comes first tries for all"
    assert not breaker.admit(C, 5)
    assert not breaker.admit(A, 5)
    breaker.answered(C, 5.5)
    assert breaker.open_for(5.5) == (0, False)
    assert all(call(breaker, tenant, 5.5, works=True) for tenant in (A, B, C))


@given(st.lists(st.tuples(st.sampled_from([A, B]), pauses(3)), max_size=80))
def test_whoever_is_answered_is_never_kept_from_calling_by_one_who_is_not(calls: list[tuple[TenantId, float]]) -> None:
    breaker, now_s = EndpointBreaker(failures=2, pause_s=5), 0.0
    for tenant, after_s in calls:
        now_s += after_s
        made = call(breaker, tenant, now_s, works=tenant == B)
        assert made or tenant == A


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), pauses(30), st.booleans()), max_size=80))
def test_after_the_longest_pause_somebody_may_always_try_again(calls: list[tuple[TenantId, float, bool]]) -> None:
    breaker, now_s = EndpointBreaker(failures=2, pause_s=5, longest_pause_s=20), 0.0
    for tenant, after_s, works in calls:
        now_s += after_s
        call(breaker, tenant, now_s, works)
        assert breaker.opens_in_s(C, now_s) <= 20
    assert all(call(breaker, tenant, now_s + 20, works=True) for tenant in (A, B, C))


async def test_a_bulkhead_holds_each_tenant_to_its_own_places() -> None:
    bulkhead = Bulkhead(2)
    async with bulkhead.place(A, 1), bulkhead.place(A, 1):
        with pytest.raises(TimeoutError):
            await bulkhead.take(A, 0)
        async with asyncio.timeout(1):
            await bulkhead.take(B, 1)
        waiting = asyncio.create_task(bulkhead.take(A, 10))
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting
    bulkhead.give_back(A)
    bulkhead.give_back(B)
    async with bulkhead.place(A, 1), bulkhead.place(A, 1):
        pass


# Services -------------------------------------------------------------------------------------------------


def answering(handler: Callable[[httpx.Request], httpx.Response], now_s: Callable[[], float]) -> Service:
    """A service that answers so."""
    return Service("bureau", httpx.MockTransport(handler), now_s)


async def ask(service: Service, tenant: TenantId) -> int:
    """The status of an answer."""
    async with httpx.AsyncClient(transport=Guard(service, tenant), base_url="http://bureau.test") as client:
        return (await client.get("/")).status_code


async def test_refusals_trip_nothing_and_server_errors_and_lost_connections_do() -> None:
    def refuses(request: httpx.Request) -> httpx.Response:
        return httpx.Response(401 if request.url.path == "/" else 500)

    service = answering(refuses, lambda: 0.0)
    assert [await ask(service, A) for _ in range(20)] == [401] * 20

    def breaks(request: httpx.Request) -> httpx.Response:
        if len(seen) % 2:
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(503)

    seen: list[str] = []
    broken, outcomes = answering(breaks, lambda: 0.0), list[str]()
    for _ in range(8):
        try:
            outcomes.append(str(await ask(broken, A)))
            seen.append("x")
        except (httpx.ConnectError, EndpointDown) as error:
            seen.append("x")
            outcomes.append(type(error).__name__)
    assert outcomes == ["503", "ConnectError"] * 2 + ["503"] + ["EndpointDown"] * 3
    assert await ask(service, B) == 401


async def test_one_tenants_open_calls_leave_room_for_anothers_and_their_places_come_back() -> None:
    release, arrived = asyncio.Event(), asyncio.Semaphore(0)

    class Slow(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            arrived.release()
            await release.wait()
            yield b"done"

    def slow(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Slow()) if request.url.path == "/slow" else httpx.Response(204)

    service = answering(slow, lambda: 0.0)
    async with httpx.AsyncClient(transport=Guard(service, A), base_url="http://bureau.test") as client:
        open_calls = [asyncio.create_task(client.get("/slow")) for _ in range(CALLS_PER_TENANT)]
        for _ in open_calls:
            await arrived.acquire()
        assert await ask(service, B) == 204
        with pytest.raises(EndpointDown):
            await client.get("/")
        release.set()
        assert [response.status_code for response in await asyncio.gather(*open_calls)] == [200] * CALLS_PER_TENANT
        assert (await client.get("/")).status_code == 204


async def test_a_call_that_is_given_up_says_nothing_unless_it_waited_long() -> None:
    now = 0.0

    async def silent(request: httpx.Request) -> httpx.Response:
        arrived.set()
        await asyncio.Event().wait()
        raise AssertionError

    arrived = asyncio.Event()
    service = Service("bureau", httpx.MockTransport(silent), lambda: now)
    for waited_s, down in ((4.9, False), (5.0, True)):
        for _ in range(5):
            arrived.clear()
            task = asyncio.create_task(ask(service, A))
            await arrived.wait()
            now += waited_s
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert (service.opens_in_s(A) > 0) is down


class Given(BaseModel):
    """Nothing to say."""


@workflow("asks-a-service", version="1")
async def asks(run: Run, given: Given) -> str:
    """A call that is tried often."""
    return await run.call("bureau", score, given, retry=Retry(attempts=9, initial_s=0.01, max_s=0.01))


async def score(step: Step, _: Given) -> str:
    """Ask for it."""
    return (await step.http("bureau").get("/")).raise_for_status().text


async def test_a_run_waits_for_a_service_that_is_down_and_goes_on_when_it_is_back() -> None:
    def down_for_a_minute(request: httpx.Request) -> httpx.Response:
        asked.append((run_of.clock.now() - began).total_seconds())
        return httpx.Response(503 if asked[-1] < 60 else 200, text="700")

    asked: list[float] = []
    async with in_memory(asks, services={"bureau": down_for_a_minute}) as run_of:
        began = run_of.clock.now()
        run = await run_of(Given())
    assert (run.state, run.output) == (RunState.SUCCEEDED, "700")
    assert {wait.cause for wait in run.waits} == {Cause.ENDPOINT}
    assert asked[-1] >= 60
    assert [step.state for step in run.steps] == ["failed"] * (len(asked) - 1) + ["done"]
    assert len(asked) <= 9, "waiting gives no more attempts"

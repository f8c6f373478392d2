"""Breakers of several processes that tell each other what their calls came to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx
from hypothesis import given
from hypothesis import strategies as st

from core.breaker import EndpointBreaker
from core.errors import EndpointDown, Unavailable
from core.ids import TenantId
from core.shared_breaker import PROBE_S, READ_EVERY_S, Report, SharedBreaker
from core.workflows.services import Guard, Service

A, B, C = TenantId("a"), TenantId("b"), TenantId("c")
PAUSE_S = 5.0


@dataclass
class Board:
    """Reports in memory, on a clock of its own."""

    now_s: float = 0.0
    there: bool = True
    told: list[tuple[float, Report]] = field(default_factory=list)
    leases: dict[str | None, float] = field(default_factory=dict)
    exchanges: int = 0

    async def exchange(self, endpoint: str, told: Sequence[Report]) -> list[Report]:
        """One endpoint is enough."""
        self._look()
        self.exchanges += 1
        self.told += [(self.now_s - one.ago_s, one) for one in told]
        return [Report(one.tenant, one.works, self.now_s - at_s, one.probe) for at_s, one in self.told]

    async def take_probe(self, endpoint: str, tenant: str | None, lease_s: float) -> bool:
        """First come."""
        self._look()
        if self.leases.get(tenant, 0.0) > self.now_s:
            return False
        self.leases[tenant] = self.now_s + lease_s
        return True

    async def end_probe(self, endpoint: str, tenant: str | None) -> None:
        """Next."""
        self._look()
        self.leases.pop(tenant, None)

    def process(self) -> SharedBreaker:
        """A process that has just started."""
        return SharedBreaker("bureau", self, lambda: self.now_s, lambda: EndpointBreaker(failures=3, pause_s=PAUSE_S))

    def _look(self) -> None:
        if not self.there:
            raise Unavailable("Gone.")


async def call(process: SharedBreaker, tenant: str, *, works: bool) -> bool:
    """Whether a call went out; then it is answered or not, and that is told."""
    if not await process.admit(tenant):
        return False
    if works:
        process.answered(tenant)
    else:
        process.failed(tenant)
    await process.settled()
    return True


async def test_failures_of_many_short_lived_processes_count_as_those_of_one() -> None:
    board = Board()
    made = [await call(board.process(), tenant, works=False) for tenant in [A, A, A, A, B, B, B]]
    assert made == [True, True, True, False, True, True, True]
    assert not await call(board.process(), C, works=True), "it is left alone by all, and a new process knows"


async def test_one_process_tries_for_all_and_its_answer_counts_for_all() -> None:
    board = Board()
    old = board.process()
    for tenant in (A, A, A, B, B, B):
        assert await call(old, tenant, works=False)
    board.now_s = PAUSE_S
    trying, waiting = board.process(), board.process()
    assert await trying.admit(C)
    assert not await waiting.admit(C)
    assert not await old.admit(A)
    trying.failed(C)
    await trying.settled()
    board.now_s = 3 * PAUSE_S - 0.1
    assert not await waiting.admit(C), "the pause has doubled for all"
    board.now_s = 3 * PAUSE_S
    assert await waiting.admit(B)
    waiting.answered(B)
    await waiting.settled()
    board.now_s += READ_EVERY_S
    assert await call(old, A, works=True)
    assert old.open_for() == board.process().open_for() == (0, False)


async def test_a_try_whose_process_died_is_left_to_others_after_a_while() -> None:
    board = Board()
    for tenant in (A, A, A, B, B, B):
        await call(board.process(), tenant, works=False)
    board.now_s = PAUSE_S
    assert await board.process().admit(A), "and nothing is ever heard of it again"
    board.now_s += PROBE_S - 0.1
    assert not await board.process().admit(A)
    board.now_s += 0.1
    assert await board.process().admit(A)


async def test_whoever_is_answered_elsewhere_speaks_against_two_tenants_of_whom_each_fails_by_itself() -> None:
    board = Board()
    healthy, failing = board.process(), board.process()
    assert await call(healthy, C, works=True)
    for tenant in (A, A, A):
        assert await call(failing, tenant, works=False)
    board.now_s = 0.5
    assert await call(healthy, C, works=True), "it has not heard of the failures"
    for tenant in (B, B, B):
        assert await call(failing, tenant, works=False)
    assert failing.open_for() == (2, True)
    board.now_s = READ_EVERY_S
    assert await call(healthy, C, works=True)
    assert board.process().open_for() == (0, False)
    assert (await call(board.process(), A, works=True), await call(board.process(), C, works=True)) == (True, True)


async def test_while_nothing_fails_a_process_reads_once_a_second_and_writes_nothing() -> None:
    board = Board()
    process = board.process()
    for number in range(100):
        board.now_s = number / 10
        assert await call(process, (A, B, C)[number % 3], works=True)
    assert (board.exchanges, board.told) == (10, [])


async def test_a_tenant_that_fails_for_ever_does_not_make_others_talk_all_the_time() -> None:
    board = Board()
    broken, healthy = board.process(), board.process()
    for number in range(300):
        board.now_s = float(number)
        await call(broken, A, works=False)
        assert await call(healthy, B, works=True)
    failures = sum(not report.works for _, report in board.told)
    assert len(board.told) <= 2 * failures < 40


async def test_without_reports_a_process_learns_by_itself_and_tells_what_it_saw_when_they_are_back() -> None:
    board = Board(there=False)
    process = board.process()
    assert [await call(process, A, works=False) for _ in range(4)] == [True, True, True, False]
    assert await call(process, B, works=True)
    board.there, board.now_s = True, 4.0
    assert await board.process().admit(A), "nobody has told it"
    board.now_s = 7.0
    assert await process.admit(C)
    assert board.process().open_for() == (0, False), "read at its first call"
    newer = board.process()
    assert await newer.admit(C)
    assert newer.open_for() == (1, False)
    board.there = False
    board.now_s = 30.0
    assert await newer.admit(A), "a try that nobody can coordinate is made"


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from([A, B]), st.integers(0, 64 * 4).map(lambda n: n / 64)), max_size=60
    )
)
def test_whoever_is_always_answered_may_always_call_and_all_processes_agree(
    calls: list[tuple[int, TenantId, float]],
) -> None:
    async def play() -> None:
        board = Board()
        processes = [board.process() for _ in range(4)]
        for number, tenant, after_s in calls:
            board.now_s += after_s
            assert await call(processes[number], tenant, works=tenant == B) or tenant == A
        board.now_s += READ_EVERY_S
        stands = []
        for process in [*processes, board.process()]:
            assert await call(process, B, works=True)
            stands.append((process.open_for(), process.opens_in_s(A)))
        assert len(set(stands)) == 1

    asyncio.run(play())


async def test_refused_credentials_of_two_tenants_keep_nobody_from_a_service() -> None:
    board = Board()

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(int(request.url.path.strip("/")))

    def process() -> Service:
        return Service("bureau", httpx.MockTransport(answer), lambda: board.now_s, reports=board)

    async def ask(service: Service, tenant: TenantId, status: int) -> int:
        async with httpx.AsyncClient(transport=Guard(service, tenant), base_url="http://bureau.test") as client:
            try:
                return (await client.get(f"/{status}")).status_code
            except EndpointDown:
                return 0
            finally:
                await service.close()

    for status in (400, 401, 403, 404, 409, 422, 429):
        for tenant in (A, B):
            assert [await ask(process(), tenant, status) for _ in range(6)] == [status] * 6
    assert board.told == []
    for tenant in (A, B):
        assert [await ask(process(), tenant, 503) for _ in range(5)] == [503] * 5
    assert await ask(process(), C, 200) == 0

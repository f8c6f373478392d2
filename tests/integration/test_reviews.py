"""Reviews against real Postgres: one winner among many, no self-approval, no case lost, nothing seen by strangers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from core.bootstrap import Platform, open_platform
from core.clock import FakeClock
from core.errors import BailiwickError, Conflict, Forbidden, InvalidInput, NotFound, StepFailed
from core.ids import WorkerId
from core.queue.model import Topic
from core.reviews.model import Expiry, Level, OnExpiry, ReviewView, Terms, Verdict
from core.runs.execution import Executing
from core.runs.model import RunRequest, RunState
from core.settings import Settings
from core.tenancy import ROLE_SCOPES, ActorKind, Policy, Role, TenantContext
from scheduler.deadlines import Deadlines
from tests.fixtures.people import People

FORM = {
    "type": "object",
    "properties": {"amount": {"type": "number", "maximum": 100}, "note": {"type": "string", "default": ""}},
    "required": ["amount"],
}


@dataclass(slots=True)
class Desk:
    """A tenant whose runs ask, and the people who decide."""

    platform: Platform
    clock: FakeClock
    people: People
    ada: TenantContext
    executing: dict[str, Executing] = field(default_factory=dict)

    async def person(self, name: str, *roles: Role, tenant: str = "bank") -> TenantContext:
        """Somebody; a reviewer unless told otherwise."""
        roles = roles or (Role.REVIEWER,)
        return (await self.people.login(f"{name}@{tenant}.example", tenant, *roles))[1].ctx

    async def ask(
        self, terms: Terms = Terms(), by: TenantContext | None = None, sla_s: float = 600, *, parks: bool = True
    ) -> ReviewView:
        """A run that waits for a decision; or still executes, when it has asked."""
        by = by or self.ada
        run, _ = await self.platform.runs.submit(by, RunRequest("sample-plain", {"log": "/dev/null", "number": 1}))
        worker = WorkerId("w")
        await self.platform.queue.heartbeat(worker, 1_000)
        claims = {claim.run_id: claim for claim in await self.platform.queue.claim(worker, 100)}
        claim = claims[run.run_id]
        acting = await self.platform.tenants.context_for(by.tenant_id, actor_kind=ActorKind.RUN, actor_id=run.run_id)
        on = Executing(acting, run.run_id, claim.attempt, claim.budget_microusd, None, None)
        self.executing[run.run_id] = on
        assert await self.answer(run.run_id, terms, sla_s) is None
        if parks:
            assert await self.platform.execution.park(on) is RunState.WAITING
        (review,) = await self.platform.reviews.find(self.ada, of_run=run.run_id)
        return review

    async def answer(self, run_id: str, terms: Terms = Terms(), sla_s: float = 600) -> Verdict | None:
        """What the run is told when it asks (again)."""
        return await self.platform.reviews.request(
            self.executing[run_id],
            1,
            pool="general",
            title="A case",
            evidence={"score": 640},
            choices=["approve", "decline"],
            sla_s=sla_s,
            terms=terms,
        )

    async def reclaimed(self, run_id: str) -> None:
        """A worker goes on with what is queued, this run included."""
        await self.platform.queue.heartbeat(WorkerId("w"), 1_000)
        for claim in await self.platform.queue.claim(WorkerId("w"), 100):
            self.executing[claim.run_id] = replace(self.executing[claim.run_id], claim=claim.attempt)
        assert run_id in self.executing

    async def acts(self, review: ReviewView) -> list[str]:
        """What the run's log tells of its review."""
        events = await self.platform.runs.events(self.ada, review.run_id)
        return [event.data["act"] for event in events if event.kind == "review"]


@pytest.fixture
async def desk(settings: Settings) -> AsyncIterator[Desk]:
    """The bank, on a clock that stands still."""
    clock = FakeClock()
    given = settings.model_copy(update={"workflow_modules": ("tests.fixtures.sample_workflows",)})
    async with open_platform(given, process="test", clock=clock) as platform:
        people = People(platform.tenants)
        _, ada = await people.login("ada@bank.example", "bank", Role.ADMIN, policy=Policy(concurrency_cap=100))
        yield Desk(platform, clock, people, ada.ctx)


async def tried(act: Any) -> str:
    """How an act ended."""
    try:
        await act
    except BailiwickError as error:
        return error.code
    return "done"


@pytest.mark.parametrize("needed", [1, 2])
async def test_of_twenty_who_decide_at_once_so_many_as_are_needed_are_heard(
    desk: Desk, owner_dsn: str, needed: int
) -> None:
    review = await desk.ask(Terms(needed=needed, of=needed))
    deciders = [await desk.person(f"r{number}") for number in range(20)]
    reviews = desk.platform.reviews
    ended = await asyncio.gather(
        *(
            tried(reviews.decide(one, review.review_id, ("approve", "decline")[number % 2 * (needed == 1)]))
            for number, one in enumerate(deciders)
        )
    )
    assert sorted(set(ended)) == ["conflict", "done"]
    assert ended.count("done") == needed
    decided = await reviews.get(desk.ada, review.review_id)
    assert (decided.state, len(decided.votes)) == ("decided", needed)
    owner = await asyncpg.connect(owner_dsn)
    try:
        assert await owner.fetchval("select count(*) from audit where act = 'review.decide'") == needed
        assert await owner.fetchval("select count(*) from queue_entries") == 1
    finally:
        await owner.close()
    await desk.reclaimed(review.run_id)
    told = await desk.answer(review.run_id)
    assert told is not None
    assert (told.verdict, told.decided_by) == (decided.verdict, decided.decided_by)
    assert await desk.acts(review) == ["asked", *["decide"] * needed]


async def test_nobody_decides_their_own_run_by_session_or_by_any_of_their_keys(desk: Desk) -> None:
    tenants, reviews = desk.platform.tenants, desk.platform.reviews
    bob = await desk.person("bob", Role.ADMIN)
    scopes = tuple(ROLE_SCOPES[Role.ADMIN])
    ada_key, ada_other, bob_key = [
        await tenants.identify_key(await tenants.issue_key(who, "key", scopes)) for who in (desk.ada, desk.ada, bob)
    ]
    for submitter, barred, free in (
        (desk.ada, (desk.ada, ada_key, ada_other), bob_key),
        (ada_key, (desk.ada, ada_key, ada_other), bob),
        (bob_key, (bob, bob_key), ada_other),
    ):
        review = await desk.ask(by=submitter)
        for one in barred:
            with pytest.raises(Forbidden):
                await reviews.decide(one, review.review_id, "approve")
            with pytest.raises(Forbidden):
                await reviews.claim(one, review.review_id)
        assert [one.outcome for one in await reviews.decide_many(barred[0], [review.review_id], "approve")] == [
            "forbidden"
        ]
        assert (await reviews.decide(free, review.review_id, "approve")).state == "decided"


async def test_one_person_with_a_session_and_a_key_is_one_voice(desk: Desk) -> None:
    tenants, reviews = desk.platform.tenants, desk.platform.reviews
    bob = await desk.person("bob", Role.ADMIN)
    key = await tenants.identify_key(await tenants.issue_key(bob, "key", tuple(ROLE_SCOPES[Role.REVIEWER])))
    review = await desk.ask(Terms(needed=2, of=3))
    assert (await reviews.decide(bob, review.review_id, "approve")).state == "open"
    with pytest.raises(Conflict, match="voted"):
        await reviews.decide(key, review.review_id, "approve")
    assert (await reviews.decide(await desk.person("cleo"), review.review_id, "approve")).state == "decided"


async def test_a_claim_keeps_colleagues_away_until_it_ends_and_loses_no_case(desk: Desk) -> None:
    reviews = desk.platform.reviews
    bob, cleo = await desk.person("bob"), await desk.person("cleo")
    review, other = await desk.ask(), await desk.ask()
    claimed = await reviews.claim(bob, review.review_id)
    assert [one.by for one in claimed.claims] == [bob.actor]
    assert [one.review_id for one in await reviews.mine(bob)] == [review.review_id, other.review_id]
    assert [one.review_id for one in await reviews.mine(cleo)] == [other.review_id]
    with pytest.raises(Conflict) as refused:
        await reviews.decide(cleo, review.review_id, "approve")
    assert refused.value.details["claimed_by"] == bob.actor
    await reviews.release(cleo, review.review_id)  # changes nothing: it is not hers
    assert (await reviews.get(cleo, review.review_id)).claims != []
    await reviews.release(desk.ada, review.review_id)  # an admin ends everybody's
    await reviews.claim(cleo, review.review_id)
    desk.clock.advance(30 * 60)
    assert (await reviews.get(cleo, review.review_id)).claims == []
    assert (await reviews.decide(bob, review.review_id, "approve")).decided_by == bob.actor


async def test_a_case_is_given_to_a_colleague_who_may_decide_it_and_to_nobody_else(desk: Desk) -> None:
    reviews = desk.platform.reviews
    bob, cleo, mia = await desk.person("bob"), await desk.person("cleo"), await desk.person("mia", Role.MEMBER)
    stranger = await desk.person("eve", tenant="union")
    review = await desk.ask()
    for nobody in (mia, stranger, desk.ada, bob):
        with pytest.raises(InvalidInput):
            await reviews.delegate(bob, review.review_id, str(nobody.user_id))
    given = await reviews.delegate(bob, review.review_id, str(cleo.user_id))
    assert [(one.by, one.given_by) for one in given.claims] == [(cleo.actor, bob.actor)]
    with pytest.raises(Conflict):
        await reviews.decide(bob, review.review_id, "approve")
    await reviews.decide(cleo, review.review_id, "approve")
    assert await desk.acts(review) == ["asked", "delegate", "decide"]


async def test_every_breach_escalates_within_a_second_by_a_computed_wake_up_and_ends_as_declared(desk: Desk) -> None:
    reviews, clock = desk.platform.reviews, desk.clock
    chain = (Level("seniors", 300), Level("board", 300, Role.ADMIN))
    decided = await desk.ask(Terms(chain=chain, expiry=Expiry(OnExpiry.DECIDE, "decline")))
    failing = await desk.ask(Terms(expiry=Expiry(OnExpiry.FAIL)), sla_s=500)
    quiet = await desk.ask(sla_s=900)
    bob = await desk.person("bob")
    await reviews.claim(bob, decided.review_id)
    job, asked_at, heard = Deadlines(desk.platform, CollectorRegistry()), clock.now(), []
    for _ in range(20):
        wait_s = await job.run()
        if wait_s is None:
            break
        clock.advance(wait_s)
        due = [review_id for _, review_id in await reviews.due()]
        heard.append(((clock.now() - asked_at).total_seconds(), due))
    names = {decided.review_id: "decided", failing.review_id: "failing", quiet.review_id: "quiet"}
    assert [(after_s, sorted(names[one] for one in due)) for after_s, due in heard] == [
        (500, ["failing"]),
        (600, ["decided"]),
        (900, ["decided", "quiet"]),
        (1_200, ["decided"]),
    ]
    ended = await reviews.get(bob, decided.review_id)
    assert (ended.state, ended.verdict, ended.decided_by, ended.level) == ("decided", "decline", "scheduler:reviews", 2)
    assert await desk.acts(decided) == ["asked", "claim", "escalated", "escalated", "decided"]
    assert await desk.acts(quiet) == ["asked", "overdue"]
    assert (await reviews.decide(bob, quiet.review_id, "approve")).state == "decided"
    for run_id in (decided.run_id, failing.run_id):
        assert (await desk.platform.runs.get(desk.ada, run_id)).state is RunState.QUEUED
    await desk.reclaimed(failing.run_id)
    for _ in range(2):
        with pytest.raises(StepFailed, match="in time"):
            await desk.answer(failing.run_id, Terms(expiry=Expiry(OnExpiry.FAIL)))
    # A retried run asks anew.
    await desk.platform.execution.end(
        desk.executing[failing.run_id], RunState.FAILED, error={"code": "x", "message": ""}
    )
    await desk.platform.control.retry(desk.ada, failing.run_id)
    await desk.reclaimed(failing.run_id)
    assert await desk.answer(failing.run_id) is None
    assert (await reviews.get(bob, failing.review_id)).state == "open"


async def test_the_level_of_a_role_is_for_that_role(desk: Desk) -> None:
    reviews = desk.platform.reviews
    bob, abe = await desk.person("bob"), await desk.person("abe", Role.ADMIN)
    review = await desk.ask(Terms(chain=(Level("board", 60, Role.ADMIN),)))
    desk.clock.advance(600)
    await Deadlines(desk.platform, CollectorRegistry()).run()
    with pytest.raises(Forbidden, match="role admin"):
        await reviews.decide(bob, review.review_id, "approve")
    assert (await reviews.decide(abe, review.review_id, "approve")).pool == "board"


async def test_only_what_is_due_before_the_next_idle_look_wakes_the_scheduler(desk: Desk) -> None:
    async with desk.platform.bus.listen(Topic.SCHEDULER) as signals:
        await desk.ask(sla_s=86_400)
        await desk.platform.bus.signal("settled")
        assert not await signals.wait(0.2)
        await desk.ask(sla_s=30)
        assert await signals.wait(5)


async def test_a_form_is_checked_and_its_answer_reaches_the_run(desk: Desk) -> None:
    reviews = desk.platform.reviews
    bob = await desk.person("bob")
    review = await desk.ask(Terms(form=FORM))
    assert review.form == FORM
    with pytest.raises(InvalidInput) as refused:
        await reviews.decide(bob, review.review_id, "approve", answer={"amount": 101})
    assert refused.value.details["errors"] == [{"pointer": "/answer/amount", "message": "This is at most 100."}]
    await reviews.decide(bob, review.review_id, "approve", "fine", {"amount": 50})
    await desk.reclaimed(review.run_id)
    told = await desk.answer(review.run_id)
    assert told == Verdict("approve", "fine", bob.actor, {"amount": 50, "note": ""})


async def test_a_bulk_decision_is_made_once_for_each_case_and_says_what_became_of_it(desk: Desk) -> None:
    reviews = desk.platform.reviews
    bob, cleo = await desk.person("bob"), await desk.person("cleo")
    stranger = await desk.person("eve", tenant="union")
    plain, both, held, done = [await desk.ask(Terms(needed=n, of=n)) for n in (1, 2, 1, 1)]
    await reviews.claim(cleo, held.review_id)
    await reviews.decide(cleo, done.review_id, "decline")
    ids = [one.review_id for one in (plain, both, held, done)]
    assert {one.outcome for one in await reviews.decide_many(stranger, ids, "approve")} == {"not_found"}
    twice = await asyncio.gather(*(reviews.decide_many(bob, [*ids, ids[0], "rev_none"], "approve") for _ in range(2)))
    outcomes = [tuple(sorted(pair)) for pair in zip(*([one.outcome for one in half] for half in twice), strict=True)]
    assert outcomes == [
        ("conflict", "decided"),
        ("conflict", "voted"),
        ("conflict", "conflict"),
        ("conflict", "conflict"),
        ("not_found", "not_found"),
    ]
    assert (await reviews.get(bob, done.review_id)).verdict == "decline"


async def test_strangers_see_and_change_nothing_of_a_review(desk: Desk) -> None:
    reviews = desk.platform.reviews
    review = await desk.ask()
    eve = await desk.person("eve", Role.ADMIN, tenant="union")
    for act in (
        reviews.get(eve, review.review_id),
        reviews.claim(eve, review.review_id),
        reviews.release(eve, review.review_id),
        reviews.delegate(eve, review.review_id, str(eve.user_id)),
        reviews.decide(eve, review.review_id, "approve"),
        reviews.breach(eve, review.review_id),
    ):
        with pytest.raises(NotFound):
            await act
    for found in (await reviews.find(eve), await reviews.mine(eve), await reviews.open(eve), await reviews.recent(eve)):
        assert found == []
    assert await reviews.get(desk.ada, review.review_id) == review


async def test_the_end_of_a_run_closes_what_it_asked_and_repeated_late_nothing_of_the_next_one(
    desk: Desk,
) -> None:
    reviews, execution, ravi = desk.platform.reviews, desk.platform.execution, await desk.person("ravi")
    run_id, failed = (await desk.ask()).run_id, {"code": "internal", "message": "It broke."}

    async def asked() -> ReviewView:
        (review,) = await reviews.find(desk.ada, of_run=run_id)
        return review

    await reviews.decide(ravi, (await asked()).review_id, "decline")
    await desk.reclaimed(run_id)
    assert await desk.answer(run_id) is not None
    early = desk.executing[run_id]
    assert await execution.end(early, RunState.FAILED, error=failed)
    await desk.platform.control.retry(desk.ada, run_id, from_step=1)
    await desk.reclaimed(run_id)
    assert await desk.answer(run_id) is None
    await reviews.claim(ravi, (await asked()).review_id)
    assert not await execution.end(early, RunState.FAILED, error=failed)
    assert (await asked()).state == "open"
    assert await execution.end(desk.executing[run_id], RunState.FAILED, error=failed)
    assert ((await asked()).state, (await asked()).claims) == ("cancelled", [])


async def test_a_run_that_is_cancelled_in_the_queue_asks_nothing_any_more(desk: Desk) -> None:
    review = await desk.ask(parks=False)
    assert await desk.platform.execution.hand_back(desk.executing[review.run_id])
    assert (await desk.platform.control.cancel(desk.ada, review.run_id)).state is RunState.CANCELLED
    assert (await desk.platform.reviews.get(desk.ada, review.review_id)).state == "cancelled"


async def test_a_run_that_is_cancelled_while_it_executes_asks_nothing_any_more_whoever_executes_it(desk: Desk) -> None:
    review, execution = await desk.ask(parks=False), desk.platform.execution
    await desk.platform.control.cancel(desk.ada, review.run_id)
    assert (await desk.platform.reviews.get(desk.ada, review.review_id)).state == "cancelled"
    assert await execution.hand_back(desk.executing[review.run_id])
    await desk.reclaimed(review.run_id)
    assert await execution.park(desk.executing[review.run_id]) is RunState.CANCELLED


async def test_a_decision_and_the_end_of_the_run_at_one_moment_come_one_after_the_other(desk: Desk) -> None:
    ravi, failed = await desk.person("ravi"), {"code": "internal", "message": "It broke."}
    asked = [await desk.ask(parks=False) for _ in range(10)]

    async def decided(review: ReviewView) -> str:
        try:
            return (await desk.platform.reviews.decide(ravi, review.review_id, "approve")).state
        except Conflict:
            return "cancelled"

    async def ended(review: ReviewView) -> bool:
        return await desk.platform.execution.end(desk.executing[review.run_id], RunState.FAILED, error=failed)

    stands, ends = await asyncio.gather(asyncio.gather(*map(decided, asked)), asyncio.gather(*map(ended, asked)))
    assert all(ends)
    assert [(await desk.platform.reviews.get(ravi, one.review_id)).state for one in asked] == stands


async def test_a_run_that_begins_to_undo_what_it_did_asks_nothing_any_more(desk: Desk) -> None:
    review, execution = await desk.ask(parks=False), desk.platform.execution
    on = desk.executing[review.run_id]
    attempt = await execution.begin_step(on, 2, "book", "step", undo=True)
    await execution.finish_step(on, 2, attempt, "room-7", reserved=False)
    for _ in range(2):  # the second time goes on with it
        assert await execution.compensate(on, {"end": "failed"}) == {2: "book"}
        assert (await desk.platform.reviews.get(desk.ada, review.review_id)).state == "cancelled"

"""Reviews over HTTP: listed, claimed, given away, decided one by one or many at once, and every refusal in words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from core.ids import WorkerId
from core.reviews.model import Terms
from core.runs.execution import Executing
from core.settings import Settings
from core.tenancy import ActorKind, Role, TenantContext
from tests.fixtures.web import LOAN, Web, web_in

FORM = {"type": "object", "properties": {"amount": {"type": "number", "maximum": 100}}, "required": ["amount"]}
REVIEWS = "/api/v1/reviews"


@pytest.fixture
async def web(settings: Settings) -> AsyncIterator[Web]:
    """The application."""
    async with web_in(settings) as served:
        yield served


async def asked(web: Web, submitter: TenantContext, pool: str = "general", terms: Terms | None = None) -> str:
    """A review, as a worker would open it."""
    async with web.client(await web.key("bank")) as http:
        run_id = (await http.post("/api/v1/runs", json=LOAN)).json()["run_id"]
    platform, worker = web.platform, WorkerId("w1")
    await platform.queue.heartbeat(worker, 10)
    (claim,) = await platform.queue.claim(worker, 10)
    acting = await platform.tenants.context_for(submitter.tenant_id, actor_kind=ActorKind.RUN, actor_id=run_id)
    on = Executing(acting, run_id, claim.attempt, claim.budget_microusd, claim.batch_id, claim.thread_id)
    question: dict[str, Any] = {"title": "A case", "evidence": {}, "choices": ["approve", "decline"], "sla_s": 600}
    assert await platform.reviews.request(on, 1, pool=pool, **question, terms=terms or Terms()) is None
    await platform.execution.park(on)
    (review,) = await platform.reviews.find(submitter, of_run=run_id)
    return review.review_id


async def test_a_reviewer_claims_gives_away_and_decides_and_hears_why_not(web: Web) -> None:
    admin = await web.admin("bank")
    plain = await asked(web, admin)
    formal = await asked(web, admin, "seniors", Terms(form=FORM))
    _, cleo = await web.people.login("cleo@bank.example", "bank", Role.REVIEWER)
    async with (
        web.browser("bob@bank.example", "bank", Role.REVIEWER) as bob,
        web.browser("dan@bank.example", "bank", Role.REVIEWER) as dan,
    ):
        claimed = (await bob.post(f"{REVIEWS}/{formal}/claim")).json()
        assert [claim["given_by"] for claim in claimed["claims"]] == [None]
        refused = await dan.post(f"{REVIEWS}/{formal}/claim")
        assert (refused.status_code, refused.json()["details"]["claimed_by"]) == (409, claimed["claims"][0]["by"])

        async def listed(**filters: str) -> list[str]:
            found = (await dan.get(REVIEWS, params=filters)).json()["reviews"]
            return [review["review_id"] for review in found]

        assert await listed() == [plain, formal]
        assert await listed(state="mine") == [plain]
        assert await listed(pool="seniors") == [formal]
        assert await listed(state="decided") == await listed(overdue="true") == await listed(run_id="none") == []
        assert (await dan.get(REVIEWS, params={"state": "lost"})).status_code == 422

        wrong = await bob.post(f"{REVIEWS}/{formal}/decision", json={"verdict": "approve", "answer": {"amount": 101}})
        assert (wrong.status_code, wrong.json()["errors"]) == (
            422,
            [{"pointer": "/answer/amount", "message": "This is at most 100."}],
        )
        unknown = await bob.post(f"{REVIEWS}/{formal}/delegation", json={"user_id": "usr_none"})
        assert (unknown.status_code, unknown.json()["errors"][0]["pointer"]) == (422, "/user_id")
        given = (await bob.post(f"{REVIEWS}/{formal}/delegation", json={"user_id": cleo.user_id})).json()
        assert [claim["by"] for claim in given["claims"]] == [cleo.ctx.actor]
        async with web.browser("cleo@bank.example", "bank", Role.REVIEWER) as hers:
            assert (await hers.delete(f"{REVIEWS}/{formal}/claim")).json()["claims"] == []
        body = {"verdict": "approve", "comment": "fine", "answer": {"amount": 50}}
        decided = (await dan.post(f"{REVIEWS}/{formal}/decision", json=body)).json()
        assert (decided["state"], decided["answer"], decided["votes"][0]["comment"]) == (
            "decided",
            {"amount": 50},
            "fine",
        )

        many = await bob.post(
            f"{REVIEWS}/decisions", json={"review_ids": [plain, formal, plain, "rev_none"], "verdict": "decline"}
        )
        outcomes = [(one["review_id"], one["outcome"]) for one in many.json()["results"]]
        assert outcomes == [(plain, "decided"), (formal, "conflict"), ("rev_none", "not_found")]
    async with web.browser("mia@bank.example", "bank", Role.MEMBER) as mia:
        assert (await mia.post(f"{REVIEWS}/{plain}/claim")).status_code == 403

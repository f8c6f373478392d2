"""The chat's agent on real servers and the offline model: tools, rights, memory, limits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from chat_app.feeds import RunFeeds
from chat_app.services import ChatServices, chat_services
from core.agents import chat
from core.agents.chat import MEMORY_WORKFLOW
from core.agents.guardrails import MAX_QUESTION
from core.agents.model import (
    AgentEvent,
    BatchCard,
    CardShown,
    Question,
    Recollected,
    TextDelta,
    ToolFinished,
    ToolStarted,
)
from core.bootstrap import Platform, open_platform
from core.conversations.model import Element, EntryKind, Message
from core.errors import BudgetExceeded, Forbidden, NoModelEndpoint, PayloadTooLarge
from core.ids import ThreadId
from core.settings import Settings
from core.tenancy import Policy, Role, TenantContext
from core.tenants.model import Identity
from memory.bootstrap import open_memory
from tests.fixtures.applications import bad, csv_file, good
from tests.fixtures.people import People

THREAD = ThreadId("11111111-1111-4111-8111-111111111111")


async def nobody(_: Headers) -> Identity:
    raise AssertionError("these tests log nobody in over HTTP")


async def stay(_: Request, __: Response) -> None:
    raise AssertionError("these tests log nobody out over HTTP")


@dataclass(frozen=True, slots=True)
class Site:
    """A platform without workers, its chat, and its people."""

    platform: Platform
    chat: ChatServices
    people: People

    async def context(self, email: str, tenant: str, *roles: Role, policy: Policy | None = None) -> TenantContext:
        return (await self.people.login(email, tenant, *roles, policy=policy))[1].ctx

    async def attach(self, ctx: TenantContext, content: bytes, name: str = "a.csv", thread: ThreadId = THREAD) -> None:
        element = Element(f"file-{name}-{len(content)}", thread, None, "file", name, "text/csv")
        await self.platform.conversations.save_element(ctx, element, content)

    async def ask(self, ctx: TenantContext, text: str, *files: str, thread: ThreadId = THREAD) -> Answered:
        question = Question(ctx, thread, f"message {text}", text, attachments=files, tenant_name="Bank")
        return Answered([event async for event in self.chat.agent.answer(question)])


@dataclass(frozen=True, slots=True)
class Answered:
    """Everything that came out of one turn."""

    events: list[AgentEvent]

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, TextDelta))

    @property
    def tools(self) -> list[str]:
        return [event.name for event in self.events if isinstance(event, ToolStarted)]

    @property
    def cards(self) -> list[object]:
        return [event.card for event in self.events if isinstance(event, CardShown)]

    def output(self) -> dict[str, object]:
        """The answer of the only tool."""
        (finished,) = [event for event in self.events if isinstance(event, ToolFinished)]
        answer: dict[str, object] = json.loads(finished.output)
        return answer


@asynccontextmanager
async def site_in(settings: Settings) -> AsyncIterator[Site]:
    async with open_platform(settings, process="test") as platform, open_memory(platform) as memory:
        feeds = RunFeeds(platform.bus, platform.runs.log, platform.clock, asyncio.Event())
        chat = chat_services(platform, memory, feeds, identify=nobody, logout=stay)
        yield Site(platform, chat, People(platform.tenants))


@pytest.fixture
async def site(
    settings_with_graph: Settings, offline_model: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Site]:
    monkeypatch.setattr(chat, "_RECALL_TIMEOUT_S", 30.0)  # what is known is told, also on a machine that is busy
    async with site_in(settings_with_graph.model_copy(update={"model_url": offline_model})) as site:
        yield site


async def test_a_file_becomes_one_run_per_application_and_asking_twice_starts_nothing_twice(site: Site) -> None:
    mia = await site.context("mia@bank.example", "bank")
    broken = good(4).replace("4.5", "a lot")
    await site.attach(mia, csv_file(good(1), bad(2), good(3), broken))

    first = await site.ask(mia, "Process the first 2 applications", "a.csv")
    rest = await site.ask(mia, "Start all of them", "a.csv")
    again = await site.ask(mia, "Start all of them", "a.csv")

    assert first.tools == ["start_loan_runs"]
    assert first.output()["started"] == 2
    assert "2 loan-approval runs" in first.text
    assert rest.output() | {"batch_id": ""} == {
        "started": 1,
        "already_started_before": 2,
        "batch_id": "",
        "refused": "1 of 4 rows",
        "errors": ["line 5: income: must be a number of 0 or more, not 'a lot'."],
    }
    assert again.output()["started"] == 0
    runs, _ = await site.platform.runs.list(mia, workflow="loan-approval")
    assert sorted(run.input["application_id"] for run in runs) == ["1", "2", "3"]
    (card,) = again.cards
    assert isinstance(card, BatchCard)
    assert (await site.platform.runs.batch_progress(mia, card.batch_id)).total == 3
    progress = await site.ask(mia, "How far is it?")
    assert progress.output()["queued"] == 3
    assert progress.output()["waits"] == ["3 queued: no worker is running; please tell your operator"]


async def test_what_is_remembered_is_known_in_a_new_thread_and_to_nobody_else(site: Site) -> None:
    mia = await site.context("mia@bank.example", "bank")
    stranger = await site.context("mia@union.example", "union")

    await site.ask(mia, "Remember that we never approve below 620.")
    known = await site.ask(mia, "Below which score do we never approve?", thread=ThreadId("another"))
    unknown = await site.ask(stranger, "Below which score do we never approve?", thread=ThreadId("another"))

    assert "620" in known.text
    assert any(isinstance(event, Recollected) for event in known.events)
    assert "620" not in unknown.text
    assert unknown.text


async def test_tools_are_on_offer_by_right_and_by_policy(site: Site) -> None:
    policy = Policy(denied_tools=("create_schedule", "start_loan_runs"))
    mia = await site.context("mia@bank.example", "bank", policy=policy)
    ravi = await site.context("ravi@bank.example", "bank", Role.REVIEWER)

    member = await site.ask(mia, "Every weekday at 09:00 re-check pending applications")
    reviewing = await site.ask(mia, "Approve review rev_000000000000 because it is fine")
    allowed = await site.ask(ravi, "Approve review rev_000000000000 because it is fine")

    assert member.tools == []
    assert reviewing.tools == []
    assert allowed.tools == ["decide_review"]
    assert allowed.output()["error"] == {"code": "not_found", "message": "There is no such review."}
    assert "There is no such review." in allowed.text


async def test_a_schedule_is_made_in_the_organisations_time_zone(site: Site) -> None:
    mia = await site.context("mia@bank.example", "bank", policy=Policy(timezone="America/New_York"))

    answered = await site.ask(mia, "Every weekday at 09:00 re-check pending applications")

    (schedule,) = await site.platform.schedules.list(mia)
    assert (schedule.workflow, schedule.timezone, schedule.paused) == ("loan-recheck", "America/New_York", False)
    due = answered.output()["next_due"]
    assert isinstance(due, list)
    assert all(moment.endswith("09:00") for moment in due)


async def test_a_turn_is_handed_to_memory_once(site: Site) -> None:
    mia = await site.context("mia@bank.example", "bank")
    said_at = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
    question = Question(mia, THREAD, "m1", "Our compliance officer is Dana Whitfield.", said_at=said_at)

    assert await site.chat.agent.learn(question, "Understood.", "m2")
    assert await site.chat.agent.learn(question, "Understood.", "m2")

    (run,), _ = await site.platform.runs.list(mia, workflow=MEMORY_WORKFLOW)
    assert [said["entry_id"] for said in run.input["messages"]] == ["m1", "m2"]
    assert datetime.fromisoformat(run.input["said_at"]) == said_at


async def test_the_history_is_told_to_the_model_with_its_files(site: Site) -> None:
    mia = await site.context("mia@bank.example", "bank")
    await site.attach(mia, csv_file(good(1), good(2)))
    asked = Message("m1", EntryKind.USER, "Here is the file.", ("a.csv",))
    answered = Message("m2", EntryKind.ASSISTANT, "I see a.csv. Shall I start one run for each application in it?")

    question = Question(mia, THREAD, "m3", "Yes, go ahead.", history=(asked, answered), tenant_name="Bank")
    turn = Answered([event async for event in site.chat.agent.answer(question)])

    assert turn.output()["started"] == 2


async def test_limits_and_rights_are_checked_before_the_model_is_asked(site: Site) -> None:
    mia = await site.context("mia@bank.example", "bank")
    with pytest.raises(PayloadTooLarge, match="attach longer texts"):
        await site.ask(mia, "x" * (MAX_QUESTION + 1))
    with pytest.raises(Forbidden):
        await site.ask(replace(mia, scopes=frozenset()), "Hello")
    assert (await site.platform.usage.balance(mia)).spent_microusd == 0


async def test_a_month_without_budget_ends_the_answer_with_the_reason(site: Site) -> None:
    mia = await site.context("mia@bank.example", "bank", policy=Policy(budget_month_microusd=1))
    with pytest.raises(BudgetExceeded, match="month"):
        await site.ask(mia, "What can you do?")


async def test_without_an_endpoint_the_reason_comes_out_and_no_money_is_held(settings: Settings) -> None:
    async with site_in(settings.model_copy(update={"model_url": "http://127.0.0.1:9/v1"})) as site:
        mia = await site.context("mia@bank.example", "bank")
        with pytest.raises(NoModelEndpoint):
            await site.ask(mia, "What can you do?")
        await site.platform.models.settled()
        balance = await site.platform.usage.balance(mia)
        assert (balance.reserved_microusd, balance.spent_microusd) == (0, 0)


async def test_stopping_an_answer_ends_the_call_and_settles_it(site: Site) -> None:
    mia = await site.context("mia@bank.example", "bank")
    answer = site.chat.agent.answer(Question(mia, THREAD, "m1", "What can you do?"))
    async for event in answer:
        if isinstance(event, TextDelta):
            break
    await answer.aclose()

    async with asyncio.timeout(10):
        await site.platform.models.settled()
    balance = await site.platform.usage.balance(mia)
    assert balance.reserved_microusd == 0
    assert balance.spent_microusd > 0

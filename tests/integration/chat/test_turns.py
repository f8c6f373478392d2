"""Turns at their edges: what a page is told when, and an answer that fails in a way that nobody expected."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import chainlit as cl
import pytest
from chainlit.context import init_http_context
from chainlit.emitter import BaseChainlitEmitter

from chat_app import turn
from core.agents.guardrails import MAX_QUESTION
from core.audit.service import AuditService
from core.clock import SystemClock
from core.conversations.service import ConversationService
from core.errors import BailiwickError
from core.ids import ThreadId
from core.settings import Settings
from core.tenancy import TenantContext
from tests.fixtures.people import people_in

THREAD = "6f7f7f0e-2f5b-4f37-9a3e-000000000002"
nothing = cast(Any, None)


class Broken:
    """An agent, or a room of conversations, with a fault."""

    def answer(self, _: object) -> AsyncIterator[object]:
        raise RuntimeError("secret of the house")

    async def save_entry(self, *_: object) -> None:
        raise RuntimeError("secret of the house")


class Reloading(BaseChainlitEmitter):
    """A page that is reloaded as soon as it has an address; ``found`` is what it finds there."""

    def __init__(self, conversations: ConversationService, ctx: TenantContext) -> None:
        super().__init__(nothing)
        self.found: list[str] = []
        self._conversations = conversations
        self._ctx = ctx

    async def send_window_message(self, data: Any) -> None:
        """It is told where the conversation is."""
        there = await self._conversations.conversation(self._ctx, ThreadId(data["thread_id"]))
        self.found += [entry.output for entry in there.entries]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is complained of in the chat."""
    told: list[str] = []

    async def complain(error: BailiwickError) -> None:
        told.append(error.message)

    monkeypatch.setattr(turn, "complain", complain)
    return told


async def test_what_nobody_expected_is_told_in_the_chat(told: list[str]) -> None:
    shown = turn.ShownTurn(nothing, nothing, answer=SimpleNamespace(content=""))
    await turn._answer(cast(Any, SimpleNamespace(agent=Broken())), shown)
    assert told == [turn.FAILED]


async def test_a_page_whose_message_could_not_be_kept_is_told_so_and_gets_no_address(told: list[str]) -> None:
    page = init_http_context(thread_id=THREAD).emitter = Reloading(nothing, nothing)
    services = SimpleNamespace(conversations=Broken(), clock=SystemClock())
    await turn.take_turn(cast(Any, services), cast(Any, SimpleNamespace(ctx=None)), nothing, cl.Message("Hello"))
    assert (told, page.found) == ([turn.FAILED], [])


@pytest.mark.parametrize("text", ["What can you do?", "x" * (MAX_QUESTION + 1)], ids=["taken", "too long"])
async def test_whoever_reloads_a_page_that_has_just_got_its_address_finds_what_was_said(
    settings: Settings, text: str
) -> None:
    async with people_in(settings) as (db, people):
        _, mia = await people.login("mia@bank.example", "bank")
        clock = SystemClock()
        conversations = ConversationService(db, AuditService(db, clock), clock)
        page = init_http_context(thread_id=THREAD).emitter = Reloading(conversations, mia.ctx)
        said = cl.Message(text, type="user_message", created_at="2026-01-05T12:00:00Z")
        services = SimpleNamespace(conversations=conversations, clock=clock, agent=Broken())
        await turn.take_turn(cast(Any, services), mia, nothing, said)
    assert page.found == [text]

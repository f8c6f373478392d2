"""The agent that answers in the chat: one turn at a time, streamed, metered, cancellable.

A turn: recall what may matter → instructions + history + question → the model and its tools, in a loop of at
most 12 model calls → the answer. Each model call is reserved and settled in the ledger on its own.

On failure: errors of the platform (budget, quota, no endpoint, residency) come out unchanged; a model that
misbehaves comes out as ``Unavailable``. Closing the iterator, or cancelling its task, ends the model call
upstream. Tools that ran before have acted; their runs are theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

import structlog
from agents import Agent, ModelSettings, Runner
from agents.exceptions import AgentsException, MaxTurnsExceeded
from agents.items import ToolCallItem, ToolCallOutputItem, TResponseInputItem
from agents.result import RunResultStreaming
from agents.stream_events import RawResponsesStreamEvent, RunItemStreamEvent

from core.agents.catalog import Catalog
from core.agents.guardrails import MAX_TURNS, check_question, trimmed_history
from core.agents.instructions import announced, instructions
from core.agents.model import (
    AgentEvent,
    CardShown,
    Question,
    Recollected,
    TextDelta,
    ToolFinished,
    ToolStarted,
    Turn,
)
from core.agents.toolkit import is_failure
from core.clock import Clock
from core.conversations.model import EntryKind
from core.errors import BailiwickError, Unavailable
from core.models.gateway import ModelGateway
from core.models.streams import ended
from core.ports import MemoryPort, Recalled, Utterance
from core.runs.model import Lane, RunRequest
from core.runs.service import RunService
from core.tenancy import Scope

MEMORY_WORKFLOW = "memory-extraction"
_NAME = "bailiwick-chat"
_MEMORIES = 6
_RECALL_TIMEOUT_S = 3.0

log = structlog.get_logger(__name__)


class ChatAgent:
    """Answers questions of tenant users with the tools they may use."""

    def __init__(
        self,
        models: ModelGateway,
        runs: RunService,
        memory: MemoryPort,
        catalog: Catalog,
        workflows: Sequence[str],
        clock: Clock,
    ) -> None:
        self._models = models
        self._runs = runs
        self._memory = memory
        self._catalog = catalog
        self._workflows = tuple(workflows)
        self._clock = clock

    async def answer(self, question: Question) -> AsyncGenerator[AgentEvent, None]:
        """Answer, piece by piece. Raises ``BailiwickError``; ``PayloadTooLarge`` for an over-long message."""
        question.ctx.require(Scope.CHAT)
        check_question(question.text)
        memories = await self._recollect(question)
        if memories:
            yield Recollected(tuple(memories))
        turn = Turn(question.ctx, question.thread_id, question.message_id)
        result = self._start(question, turn, memories)
        try:
            async with aclosing(_events(result, turn)) as events:
                async for event in events:
                    yield event
        except MaxTurnsExceeded:
            yield TextDelta(f"\n\nI stopped here, after {MAX_TURNS} steps. Please ask for one thing at a time.")
        except AgentsException as error:
            log.warning("chat.model_misbehaved", tenant=question.ctx.tenant_id, error=type(error).__name__)
            raise Unavailable("The model gave an answer that could not be used. Please try again.") from error
        finally:
            await ended(result)

    async def learn(self, question: Question, answer: str, answer_id: str | None = None) -> bool:
        """Hand the turn to memory, durably, as a run in the background; once per turn. False: it was refused."""
        if not question.text.strip() or Scope.MEMORY_WRITE not in question.ctx.scopes:
            return False
        messages = [
            Utterance("user", question.text, question.message_id),
            Utterance("assistant", answer, answer_id),
        ]
        request = RunRequest(
            MEMORY_WORKFLOW,
            {
                "thread_id": question.thread_id,
                "messages": [asdict(said) for said in messages],
                "said_at": question.said_at.isoformat() if question.said_at else None,
            },
            lane=Lane.BACKGROUND,
            idempotency_key=f"memory:{question.thread_id}:{question.message_id}",
            thread_id=question.thread_id,
            source="chat",
        )
        try:
            await self._runs.submit(question.ctx, request)
        except BailiwickError as error:
            log.warning("chat.turn_not_learned", tenant=question.ctx.tenant_id, code=error.code)
            return False
        return True

    async def _recollect(self, question: Question) -> Sequence[Recalled]:
        """What memory knows about the question; nothing when it is slow or away: the chat goes on without."""
        if not question.text.strip() or Scope.MEMORY_READ not in question.ctx.scopes:
            return ()
        try:
            async with asyncio.timeout(_RECALL_TIMEOUT_S):
                return await self._memory.recall(question.ctx, question.text, limit=_MEMORIES)
        except (BailiwickError, TimeoutError) as error:
            log.warning("chat.no_memories", tenant=question.ctx.tenant_id, error=type(error).__name__)
            return ()

    def _start(self, question: Question, turn: Turn, memories: Sequence[Recalled]) -> RunResultStreaming:
        agent = Agent[Turn](
            name=_NAME,
            instructions=instructions(question, memories, self._workflows, self._clock.now()),
            tools=[tool.function() for tool in self._catalog.on_offer(question.ctx)],
            model_settings=ModelSettings(include_usage=True),
        )
        models = self._models.for_tenant(question.ctx, "chat")
        return Runner.run_streamed(
            agent,
            conversation(question),
            context=turn,
            max_turns=MAX_TURNS,
            run_config=models.run_config(workflow_name=_NAME, group_id=question.thread_id),
        )


def conversation(question: Question) -> list[TResponseInputItem]:
    """The input of a turn: as much of the history as fits, then the question."""
    earlier = [
        ("user" if message.kind is EntryKind.USER else "assistant", announced(message.text, message.attachments))
        for message in question.history
    ]
    said = [*trimmed_history(earlier), ("user", announced(question.text, question.attachments))]
    return [_message(role, text) for role, text in said]


def _message(role: str, text: str) -> TResponseInputItem:
    if role == "user":
        return {"role": "user", "content": text}
    return {"role": "assistant", "content": text}


async def _events(result: RunResultStreaming, turn: Turn) -> AsyncGenerator[AgentEvent, None]:
    shown = 0
    async for event in result.stream_events():
        if isinstance(event, RawResponsesStreamEvent):
            if event.data.type == "response.output_text.delta":
                yield TextDelta(event.data.delta)
            continue
        if isinstance(event, RunItemStreamEvent) and (told := _of_item(event.item)) is not None:
            yield told
        for card in turn.cards[shown:]:
            yield CardShown(card)
        shown = len(turn.cards)


def _of_item(item: Any) -> AgentEvent | None:
    if isinstance(item, ToolCallItem):
        call = item.raw_item
        return ToolStarted(_field(call, "call_id"), _field(call, "name"), _field(call, "arguments"))
    if isinstance(item, ToolCallOutputItem):
        output = str(item.output)
        return ToolFinished(_field(item.raw_item, "call_id"), output, is_failure(output))
    return None


def _field(raw: Any, name: str) -> str:
    value = raw.get(name) if isinstance(raw, dict) else getattr(raw, name, None)
    return str(value or "")

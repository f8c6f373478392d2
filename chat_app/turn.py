"""One turn of the chat: from the user's message to the shown answer.

The answer is streamed into one message; each tool is a step above it with its arguments, answer and time;
cards come below it. Stopping ends the model call and keeps what was said so far.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chainlit as cl
import structlog
from chainlit.context import context
from chainlit.element import Element as ShownElement

from chat_app.data_layer import entry_of
from chat_app.live import LiveCards
from chat_app.rendering import REVIEW_CARD, error_in_words, pretty_json, tool_title
from chat_app.run_cards import RUNS_CARD
from chat_app.services import ChatServices
from core.agents.guardrails import attachment_name, check_question
from core.agents.model import (
    AgentEvent,
    BatchCard,
    Card,
    CardShown,
    Question,
    Recollected,
    ReviewCard,
    RunCard,
    TextDelta,
    ToolFinished,
    ToolStarted,
)
from core.conversations.model import Element
from core.errors import BailiwickError
from core.ids import ThreadId
from core.tenants.model import Identity

NO_ANSWER = "The model gave no answer. Please ask again in other words."
FAILED = (
    "Something went wrong on our side, and it is written down for your operator. What was done before stays done. "
    "Try again; if it happens once more, please tell your operator when it did."
)
STOPPED = "Stopped."
STOPPED_AFTER_TOOLS = (
    "Stopped. What was done before stays done: runs that have started go on to their end; "
    "cancel them in the dashboard, or ask me to."
)

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class ShownTurn:
    """An answer being shown. ``acted``: a tool was called, so that stopping cannot undo everything."""

    live: LiveCards
    question: Question
    answer: Any = field(default_factory=lambda: cl.Message(content=""))
    steps: dict[str, Any] = field(default_factory=dict)
    cards: list[Card] = field(default_factory=list)
    acted: bool = False

    async def show(self, event: AgentEvent) -> None:
        """Show what the agent just did."""
        match event:
            case TextDelta(text):
                await self.answer.stream_token(text)
            case ToolStarted(call_id, name, arguments):
                await self._tool_started(call_id, name, arguments)
            case ToolFinished(call_id, output, failed):
                await self._tool_finished(call_id, output, failed=failed)
            case CardShown(card):
                self.cards.append(card)
            case Recollected(memories):
                await self._recollected([memory.text for memory in memories])

    async def end(self) -> None:
        """Finish the message, and put the cards under it."""
        if self.answer.content or self.cards:
            await self.answer.send()
        for card in self.cards:
            await self._card(card)

    async def stop(self) -> None:
        """Finish with what there is, and say that it was stopped. Not part of what the model is told later."""
        for call_id in list(self.steps):
            await self._tool_finished(call_id, "Stopped before its answer was known.", failed=True)
        await self.end()
        note: Any = cl.Message(content=STOPPED_AFTER_TOOLS if self.acted else STOPPED, type="system_message")
        await note.send()

    def _step(self, name: str, *, show_input: str | bool) -> Any:
        """A piece of work beside the answer: both belong to the same run of Chainlit's."""
        step = cl.Step(name=name, type="tool", show_input=show_input, parent_id=self.answer.parent_id)
        step.metadata["icon"] = "wrench"
        return step

    def _now(self) -> str:
        return self.live.rooms.clock.now().isoformat()

    async def _tool_started(self, call_id: str, name: str, arguments: str) -> None:
        self.acted = True
        step = self._step(tool_title(name), show_input="json")
        step.start = self._now()
        step.input = pretty_json(arguments)
        self.steps[call_id] = step
        await step.send()

    async def _tool_finished(self, call_id: str, output: str, *, failed: bool) -> None:
        step = self.steps.pop(call_id, None)
        if step is None:
            return
        step.output = pretty_json(output)
        step.language = "json"
        step.is_error = failed
        step.end = self._now()
        await step.update()

    async def _recollected(self, texts: Sequence[str]) -> None:
        step = self._step("memory", show_input=False)
        step.start = step.end = self._now()
        step.output = "\n".join(f"- {text}" for text in texts)
        await step.send()

    async def _card(self, card: Card) -> None:
        paint = self.live.painter
        try:
            if isinstance(card, BatchCard):
                element = cl.CustomElement(name=RUNS_CARD, props=await paint.runs_props(card.batch_id, card.label))
            elif isinstance(card, RunCard):
                element = cl.CustomElement(name=RUNS_CARD, props=await paint.run_props(card.run_id))
            elif isinstance(card, ReviewCard):
                element = cl.CustomElement(name=REVIEW_CARD, props=await paint.review_props(card.review_id))
        except BailiwickError as error:
            log.warning("chat.card_not_shown", card=type(card).__name__, code=error.code)
            return
        await element.send(for_id=self.answer.id)
        shown: dict[str, Any] = {**element.to_dict()}
        self.live.track(shown)


async def complain(error: BailiwickError) -> None:
    """Say in the chat what went wrong. Not part of what the model is told later."""
    message: Any = cl.ErrorMessage(error_in_words(error))
    await message.send()


async def take_turn(services: ChatServices, identity: Identity, live: LiveCards, message: cl.Message) -> None:
    """Answer one message of the user; whatever goes wrong is said in the chat."""
    try:
        # Chainlit keeps it, too, but some time later: whoever reloads the page at this address finds it there.
        await services.conversations.save_entry(identity.ctx, entry_of(message.to_dict(), services.clock.now()))
        await context.emitter.send_window_message({"kind": "conversation", "thread_id": message.thread_id})
        question = await _question(services, identity, message)
    except BailiwickError as error:
        await complain(error)
        return
    except Exception:
        log.exception("chat.turn_failed")
        await complain(BailiwickError(FAILED))
        return
    await _answer(services, ShownTurn(live, question))


async def _question(services: ChatServices, identity: Identity, message: cl.Message) -> Question:
    """What the agent is asked; its files are kept with it."""
    thread_id = ThreadId(message.thread_id)
    check_question(message.content)
    attachments = [await _keep(services, identity, thread_id, message, file) for file in message.elements]
    return Question(
        ctx=identity.ctx,
        thread_id=thread_id,
        message_id=message.id,
        text=message.content,
        attachments=tuple(attachments),
        history=await services.conversations.messages(identity.ctx, thread_id, without=message.id),
        user_name=identity.name,
        tenant_name=identity.tenant_name,
        said_at=services.clock.now(),
    )


async def _answer(services: ChatServices, turn: ShownTurn) -> None:
    try:
        async with aclosing(services.agent.answer(turn.question)) as events:
            async for event in events:
                await turn.show(event)
    except asyncio.CancelledError:
        await _anyway(turn.stop)
        raise
    except BailiwickError as error:
        await turn.end()
        await complain(error)
        return
    except Exception:
        log.exception("chat.turn_failed")
        await turn.end()
        await complain(BailiwickError(FAILED))
        return
    if not turn.answer.content and not turn.cards:
        turn.answer.content = NO_ANSWER
    await turn.end()
    if turn.answer.content != NO_ANSWER:
        await services.agent.learn(turn.question, turn.answer.content, turn.answer.id)


async def _anyway(act: Callable[[], Awaitable[None]]) -> None:
    """Finish something although the task is being cancelled."""
    await asyncio.shield(asyncio.ensure_future(act()))


async def _keep(
    services: ChatServices, identity: Identity, thread_id: ThreadId, message: cl.Message, file: ShownElement
) -> str:
    """Store an attached file now: tools read it from the conversation, not from this process. Its name there."""
    content = await asyncio.to_thread(Path(file.path or "").read_bytes)
    name = attachment_name(file.name)
    element = Element(
        element_id=file.id,
        thread_id=thread_id,
        entry_id=message.id,
        kind=file.type,
        name=name,
        mime=file.mime,
        extra={"display": "inline"},
    )
    await services.conversations.save_element(identity.ctx, element, content)
    return name

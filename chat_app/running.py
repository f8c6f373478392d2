"""Answers being given right now, so that a page that comes to their conversation sees them grow.

Chainlit sends an answer to the session that asked. A reload makes a new session, to which nobody would send
anything. Here a turn remembers what it has shown; whoever resumes its conversation gets that with the
thread, everything after it as it happens, and the stop button. Lost with the process, as the turn itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

from chainlit.emitter import ChainlitEmitter
from chainlit.session import WebsocketSession
from chainlit.types import ThreadDict

from chat_app.live import CARDS, LiveCards
from chat_app.painting import Element

LINGER_S = 5.0
"""How long an ended turn is remembered: until everything it showed is in the database for certain."""

_WHOLE = frozenset({"new_message", "update_message", "stream_start"})
Shown = dict[str, dict[str, Any]]
"""By id, in the order in which it appeared."""


@dataclass(slots=True)
class RunningTurn:
    """One turn: who asked, who looks on, what was shown."""

    session: WebsocketSession
    task: asyncio.Task[Any]
    steps: Shown = field(default_factory=dict)
    elements: Shown = field(default_factory=dict)
    onlookers: list[tuple[WebsocketSession, LiveCards]] = field(default_factory=list)

    async def emit(self, event: str, data: Any) -> None:
        """Send something to everybody at this turn, and remember it."""
        self._note(event, data)
        await cast(Callable[..., Awaitable[None]], self.session.emit)(event, data)
        for session, live in list(self.onlookers):
            if WebsocketSession.get_by_id(session.id) is None:
                self.onlookers.remove((session, live))
                continue
            if event == "element" and data.get("name") in CARDS:
                live.track({**data})
            await cast(Callable[..., Awaitable[None]], session.emit)(event, data)

    async def join(self, session: WebsocketSession, live: LiveCards, thread: ThreadDict) -> None:
        """Let a session that is about to be sent ``thread`` look on; what was shown so far goes into it."""
        if not self.task.done():
            session.current_task = self.task
            await cast(Callable[..., Awaitable[None]], session.emit)("task_start", {})
        # From here to the sending of the thread nothing may wait, or a piece would be missing or doubled.
        steps: Shown = {step["id"]: cast(dict[str, Any], step) for step in thread["steps"]}
        for key, step in self.steps.items():
            steps[key] = steps.get(key, {}) | step
        thread["steps"] = cast(Any, list(steps.values()))
        known = {element["id"] for element in thread["elements"] or []}
        for key, element in self.elements.items():
            if key not in known:
                thread["elements"] = [*(thread["elements"] or []), cast(Any, element)]
                if element.get("name") in CARDS:
                    live.track({**element})
        if not self.task.done():
            self.onlookers.append((session, live))
        else:
            await cast(Callable[..., Awaitable[None]], session.emit)("task_end", {})

    def _note(self, event: str, data: Any) -> None:
        if event in _WHOLE:
            self.steps[data["id"]] = self.steps.get(data["id"], {}) | data
        elif event == "stream_token" and (step := self.steps.get(data["id"])) is not None:
            part = "input" if data.get("isInput") else "output"
            step[part] = data["token"] if data.get("isSequence") else step.get(part, "") + data["token"]
        elif event == "element":
            self.elements[data["id"]] = cast(Element, data)


class TurnEmitter(ChainlitEmitter):
    """Chainlit's emitter, for a turn: to all who look at it."""

    def __init__(self, turn: RunningTurn) -> None:
        super().__init__(turn.session)
        self._turn = turn

    @property
    def emit(self) -> Any:
        """How events are sent."""
        return self._turn.emit


class RunningTurns:
    """All turns of this process, by conversation."""

    def __init__(self) -> None:
        self._turns: dict[str, list[RunningTurn]] = {}

    def begin(self, thread_id: str, session: WebsocketSession) -> TurnEmitter:
        """Remember the current task as a turn of this conversation, until a little after its end."""
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        turn = RunningTurn(session, task)
        self._turns.setdefault(thread_id, []).append(turn)
        loop = asyncio.get_running_loop()
        task.add_done_callback(lambda _: loop.call_later(LINGER_S, self._forget, thread_id, turn))
        return TurnEmitter(turn)

    async def join(self, session: WebsocketSession, live: LiveCards, thread: ThreadDict) -> None:
        """Let a session look on at what goes on in a conversation that is hers."""
        for turn in list(self._turns.get(thread["id"], ())):
            if turn.session is not session:
                await turn.join(session, live, thread)

    def _forget(self, thread_id: str, turn: RunningTurn) -> None:
        left = [other for other in self._turns[thread_id] if other is not turn]
        if left:
            self._turns[thread_id] = left
        else:
            del self._turns[thread_id]

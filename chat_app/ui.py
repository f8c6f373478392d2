"""The chat as Chainlit sees it: which of our functions answer which of its events.

Chainlit executes this file by path, under another module name, so it holds no state: what it needs waits in
``app.state.chat`` of Chainlit's own application, put there by ``chat_app.mounting``.
"""

from __future__ import annotations

from typing import Any, cast

import chainlit as cl
import structlog
from chainlit import server
from chainlit.config import config
from chainlit.context import context
from chainlit.server import app, sio, validate_file_upload
from chainlit.session import WebsocketSession
from chainlit.socket import connection_successful
from chainlit.types import AskFileSpec, ThreadDict
from fastapi import UploadFile
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from chat_app.acting import asked_by
from chat_app.data_layer import ConversationLayer
from chat_app.live import LiveCards
from chat_app.painting import Element
from chat_app.rendering import refusal_in_words, starters
from chat_app.running import RunningTurns
from chat_app.services import ChatServices
from chat_app.session import current_seat, identifier_of
from chat_app.turn import complain, take_turn
from chat_app.writing import Writing
from core.errors import BailiwickError, Unauthenticated
from core.tenants.model import Identity

services: ChatServices = app.state.chat
kept: Any = cl.user_session
"""What a session keeps between its events; Chainlit leaves it untyped."""
turns = RunningTurns()
log = structlog.get_logger(__name__)


class SessionScreen:
    """The browser behind a Chainlit session; it may go away and come back under another socket."""

    def __init__(self) -> None:
        self._session = cast(WebsocketSession, context.session)
        self._emitter = context.emitter

    async def show(self, element: Element) -> None:
        """Show a card, or replace it by its new state. Not stored: cards are painted anew when resumed."""
        await self._emitter.emit("element", element)

    async def write(self, run_id: str, writing: Writing) -> None:
        """Tell the page what a run has written so far; ``assets/public/bailiwick.js`` keeps it for the cards."""
        said = {"kind": "writing", "run_id": run_id, "text": writing.text, "cut": writing.cut}
        await self._emitter.send_window_message(said)

    async def toast(self, text: str, *, failed: bool = False) -> None:
        """Say something in passing."""
        await self._emitter.send_toast(text, "error" if failed else "info")

    def open(self) -> bool:
        """Whether anybody may come back to this session."""
        return WebsocketSession.get_by_id(self._session.id) is not None

    def connected(self) -> bool:
        """Whether somebody looks at it now."""
        return bool(sio.manager.is_connected(self._session.socket_id, "/"))


def live_cards() -> LiveCards:
    """The cards of this session, made at its first use."""
    live = kept.get("live")
    if not isinstance(live, LiveCards):
        live = LiveCards(services, current_seat(), SessionScreen())
        kept.set("live", live)
    return live


@cl.data_layer
def data_layer() -> ConversationLayer:
    """Where conversations are kept."""
    return ConversationLayer(services.conversations, services.clock)


@cl.header_auth_callback
async def logged_in(headers: Headers) -> cl.User | None:
    """Who the login's cookie names."""
    try:
        identity = await services.identify(headers)
    except Unauthenticated:
        return None
    return cl.User(identifier=identifier_of(identity), display_name=identity.name)


@cl.on_logout
async def logged_out(request: Request, response: Response) -> None:
    """Leaving the chat is leaving the platform."""
    await services.logout(request, response)


def check_upload(file: UploadFile, spec: AskFileSpec | None = None) -> None:
    """Refuse a file that cannot be taken. Raises ``ValueError``; Chainlit itself fails at an empty one."""
    if not file.size:
        raise ValueError("The file is empty.")
    validate_file_upload(file, spec)


server.validate_file_upload = check_upload


@cl.set_starters
async def offer_starters(_user: cl.User | None) -> list[cl.Starter]:
    """First messages for an empty screen."""
    ctx = current_seat().ctx
    try:
        waiting = len(await services.reviews.open(ctx, limit=1_000))
    except BailiwickError:
        waiting = 0
    return [cl.Starter(label=starter.label, message=starter.message) for starter in starters(ctx, waiting)]


@cl.on_chat_start
async def started() -> None:
    """A new conversation: reviewers hear of new cases."""
    live_cards().follow()


async def resumed(thread: ThreadDict) -> None:
    """An old conversation, or a reload: its cards are painted from what is true now."""
    live = live_cards()
    try:
        await live.repaint(cast(list[Element], thread["elements"] or []))
    except Exception:
        log.exception("chat.cards_not_repainted")  # old cards are better than a conversation that does not open
    live.follow()
    await turns.join(cast(WebsocketSession, context.session), live, thread)


# Not by the decorator: its wrapper says afterwards that nothing is going on, and takes the stop button away.
config.code.on_chat_resume = resumed


@cl.on_message
async def said(message: cl.Message) -> None:
    """The user said something. Who they are is looked up anew: a login can end while a page is open."""
    try:
        identity = await current_seat().renew()
    except BailiwickError as error:
        await complain(error)
        return
    live = live_cards()
    context.emitter = turns.begin(message.thread_id, cast(WebsocketSession, context.session))
    await take_turn(services, identity, live, message)


@sio.on("connection_successful")  # type: ignore[untyped-decorator]
async def connected(sid: str) -> None:
    """A page's connection stands. One that broke before its conversation was sent is not one that has it already."""
    session = WebsocketSession.get(sid)
    if session is not None and session.thread_id_to_resume is not None and not session.has_first_interaction:
        session.restored = False
    await connection_successful(sid)


@sio.on("stop")  # type: ignore[untyped-decorator]
async def stop(sid: str) -> None:
    """The stop button. Replaces Chainlit's, which says that it stopped before it has, and what it cannot know.

    The turn itself says what was stopped and what goes on.
    """
    session = WebsocketSession.get(sid)
    if session is not None and session.current_task is not None:
        session.current_task.cancel()


async def acting() -> Identity | None:
    """Who presses a button of a card; nobody, told why, when the login is over."""
    try:
        return await current_seat().renew()
    except BailiwickError as error:
        await context.emitter.send_toast(refusal_in_words(error), "error")
        return None


@cl.action_callback("open_run")
async def open_run(action: cl.Action) -> bool:
    """A run's line on a card, opened or closed."""
    if await acting() is None:
        return False
    return await live_cards().open_run(str(action.payload.get("run_id", "")), action.payload.get("opened") is True)


@cl.action_callback("act_on_runs")
async def act_on_runs(action: cl.Action) -> bool:
    """A button on a card of runs."""
    asked = asked_by(action.payload)
    identity = await acting()
    return asked is not None and identity is not None and await live_cards().act(identity.ctx, asked)


@cl.action_callback("decide_review")
async def decide(action: cl.Action) -> bool:
    """A button on a review's card."""
    identity = await acting()
    if identity is None:
        return False
    payload = action.payload
    return await live_cards().decide(
        identity.ctx,
        str(payload.get("review_id", "")),
        str(payload.get("verdict", "")),
        str(payload.get("comment", ""))[:4_000],
        payload.get("answer") if isinstance(payload.get("answer"), dict) else None,
    )

"""Keeps the cards of one open conversation true while things happen elsewhere.

Cards are painted from rows, never from memory: after a reload the same code paints them again. Live events
say what to look at; they may be lost, so a card whose runs execute right now is also looked at every two
seconds, and so is one that could not be read, until it is. What happens after a card was painted and before
its events are heard is seen by one more look. Cards are painted one after the other, so what was read earlier
never replaces what was read later. A conversation with nothing that can change has no task and asks the
database nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from chat_app.acting import Asked, act_on_runs
from chat_app.feeds import RunFeeds
from chat_app.painting import Element, Painter, Sources
from chat_app.rendering import REVIEW_CARD, field_faults, refusal_in_words
from chat_app.run_cards import RUNS_CARD, executing, listed, unfinished, writing
from chat_app.session import Seat
from chat_app.writing import Writing, Writings
from core.agents.words import plural
from core.clock import Clock
from core.errors import BailiwickError, Conflict
from core.redis.bus import RESYNC, Bus, Event, Events
from core.runs.bulk import BulkControl
from core.runs.control import RunControl
from core.tenancy import TenantContext

CARDS = frozenset({RUNS_CARD, REVIEW_CARD})
_BUSY_PAUSE_S = 2.0
_QUIET_PAUSE_S = 300.0
_COALESCE_S = 0.3
_LOGIN_CHECK_S = 60.0
_OF_ATTEMPT = frozenset({"notice", "faults"})
_DECIDED = "Your decision is kept. Its card will show it in a moment."

log = structlog.get_logger(__name__)


class Rooms(Sources, Protocol):
    """What cards are painted from and listen to."""

    @property
    def control(self) -> RunControl:
        """What is done to one run."""

    @property
    def bulk(self) -> BulkControl:
        """What is done to many."""

    @property
    def feeds(self) -> RunFeeds:
        """What runs say, as they say it."""

    @property
    def bus(self) -> Bus:
        """Live events."""

    @property
    def clock(self) -> Clock:
        """The time."""


class Screen(Protocol):
    """Where cards are shown: one session of a browser."""

    async def show(self, element: Element) -> None:
        """Show a card, or replace it by its new state."""

    async def write(self, run_id: str, writing: Writing) -> None:
        """Show what a run has written so far, on every card that lists it; no text: take it away."""

    async def toast(self, text: str, *, failed: bool = False) -> None:
        """Say something in passing."""

    def open(self) -> bool:
        """Whether anybody may come back to this session."""

    def connected(self) -> bool:
        """Whether somebody looks at it now."""


@dataclass(slots=True)
class LiveCards:
    """The cards of one session. ``track`` them; the rest goes by itself."""

    rooms: Rooms
    seat: Seat
    screen: Screen
    _cards: dict[str, Element] = field(default_factory=dict)
    _dirty: set[str] = field(default_factory=set)
    _opened: set[str] = field(default_factory=set)
    _new_reviews: int = 0
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None
    _painting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _login_checked_at: float = 0.0
    painter: Painter = field(init=False)
    _writings: Writings = field(init=False)

    def __post_init__(self) -> None:
        self.painter = Painter(self.rooms, self.ctx, self._opened)
        self._writings = Writings(self.rooms.feeds, self.rooms.runs.log, self._woken.set)

    @property
    def ctx(self) -> TenantContext:
        """For whom the cards are painted."""
        return self.seat.ctx

    async def repaint(self, elements: Iterable[Element]) -> None:
        """Bring the props of a thread's cards up to date in place, and track them."""
        for element in elements:
            if element.get("type") == "custom" and element.get("name") in CARDS:
                try:
                    element["props"] = await self.painter.props(element)
                except BailiwickError as error:
                    # It keeps its last state: what it showed is gone, or cannot be read now.
                    log.warning("chat.card_not_painted", card=element["name"], code=error.code)
                self.track(element)

    def track(self, element: Element) -> None:
        """Keep a card true from now on."""
        self._cards[element["id"]] = element
        self._dirty.add(element["id"])  # something may have happened since it was painted
        self._woken.set()
        self.follow()

    def follow(self) -> None:
        """Listen, if there is anything to listen for."""
        if (self._task is None or self._task.done()) and self._anything_to_follow():
            self._task = asyncio.create_task(self._run(), name="live-cards")

    async def close(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def decide(
        self, ctx: TenantContext, review_id: str, verdict: str, comment: str, answer: dict[str, Any] | None = None
    ) -> bool:
        """Decide a review from its card; what went wrong is shown on the card. Whether it was decided."""
        notice, faults = "", {}
        try:
            await self.rooms.reviews.decide(ctx, review_id, verdict, comment, answer)
        except Conflict as error:
            notice = f"{error.message} Your decision was not needed."
        except BailiwickError as error:
            notice, faults = refusal_in_words(error), field_faults(error)
        cards = self._of_review(review_id)
        try:
            for element in cards:
                await self._show(element, notice, faults)
        except BailiwickError as error:
            log.warning("chat.card_not_painted", card=REVIEW_CARD, code=error.code)
            self._dirty |= {card["id"] for card in cards}
            self._woken.set()
            await self.screen.toast(notice or _DECIDED, failed=bool(notice))
        return not notice

    async def open_run(self, run_id: str, opened: bool) -> bool:
        """Show, or show no more, the steps of a run and what may be done to it, on the cards that list it.

        Whether they show it so; what went wrong is said in passing.
        """
        on = [card for card in self._runs_cards() if run_id in listed(card["props"])]
        (self._opened.add if opened and on else self._opened.discard)(run_id)
        try:
            for element in on:
                await self._show(element)
        except BailiwickError as error:
            (self._opened.discard if opened else self._opened.add)(run_id)  # as it is shown: they try again themselves
            await self.screen.toast(refusal_in_words(error), failed=True)
            return False
        return True

    async def act(self, ctx: TenantContext, asked: Asked) -> bool:
        """Do something to runs from their card. Whether it was done; what became of it is said in passing."""
        try:
            said, done = await act_on_runs(self.rooms.control, self.rooms.bulk, ctx, asked), True
        except BailiwickError as error:
            said, done = refusal_in_words(error), False
        await self.screen.toast(said, failed=not done)
        self._dirty |= {card["id"] for card in self._runs_cards()}
        await self._look()
        self.follow()
        return done

    # Following ------------------------------------------------------------------------------------------

    def _anything_to_follow(self) -> bool:
        return self.painter.may_decide or any(_may_change(card) for card in self._cards.values())

    async def _run(self) -> None:
        with contextlib.suppress(BailiwickError):  # the login is over, or is another region's
            # A card may come while listening is being ended: nobody else would follow it.
            while self.screen.open() and self._anything_to_follow():
                await self._listen()

    async def _listen(self) -> None:
        async with self.rooms.bus.subscribe(self.ctx.tenant_id) as events:
            if self._cards:  # something may have happened that was not heard
                self._dirty |= self._cards.keys()
                self._woken.set()
            reader = asyncio.create_task(self._read(events))
            try:
                while self.screen.open() and self._anything_to_follow():
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._pause_s()):
                            await self._woken.wait()
                    self._woken.clear()
                    if self.screen.connected() and await self._still_logged_in():
                        await self._look()
                    await asyncio.sleep(_COALESCE_S)
            finally:
                reader.cancel()
                await self._writings.close()

    async def _read(self, events: Events) -> None:
        async for event in events:
            self._note(event)

    def _note(self, event: Event) -> None:
        if event.kind == RESYNC:
            touched = set(self._cards)
        elif event.kind == "run":
            touched = {key for key, card in self._cards.items() if _shows_run(card, event.data)}
        elif event.kind == "review":
            # What a run asked is closed with it, whatever that was: such an event names the run.
            named = "review_id" if "review_id" in event.data else "run_id"
            touched = {key for key, card in self._cards.items() if _shows(card, named, event.data)}
            self._new_reviews += self.painter.may_decide and event.data.get("state") == "open"
        else:
            return
        self._dirty |= touched
        if self._dirty or self._new_reviews:
            self._woken.set()

    def _pause_s(self) -> float:
        unshown = self._dirty or self._new_reviews  # nobody looked, or it could not be read
        busy = unshown or any(executing(card["props"]) for card in self._runs_cards())
        return _BUSY_PAUSE_S if busy else _QUIET_PAUSE_S

    async def _still_logged_in(self) -> bool:
        """False: it cannot be told now. Raises what ``Seat.renew`` raises when the login is over."""
        now = asyncio.get_running_loop().time()
        if now - self._login_checked_at >= _LOGIN_CHECK_S:
            try:
                await self.seat.renew()
            except BailiwickError as error:
                if not error.retryable:
                    raise
                log.warning("chat.login_not_checked", code=error.code)
                return False
            self._login_checked_at = now
        return True

    async def _look(self) -> None:
        busy = {card["id"] for card in self._runs_cards() if executing(card["props"])}
        dirty, self._dirty = self._dirty | busy, set()
        for key in dirty:
            try:
                await self._show_again(self._cards[key])
            except BailiwickError as error:
                log.warning("chat.card_not_painted", card=self._cards[key]["name"], code=error.code)
                if error.retryable:
                    self._dirty.add(key)
        self._writings.follow(self.ctx, (run_id for card in self._runs_cards() for run_id in writing(card["props"])))
        for run_id, said in self._writings.unshown().items():
            await self.screen.write(run_id, said)
        if self._new_reviews:
            count, self._new_reviews = self._new_reviews, 0
            verb = "waits" if count == 1 else "wait"
            await self.screen.toast(f"{plural(count, 'new case')} {verb} for review. Ask: what waits for review?")

    # Painting -------------------------------------------------------------------------------------------

    async def _show(self, element: Element, notice: str = "", faults: dict[str, str] | None = None) -> None:
        async with self._painting:
            props = await self.painter.props(element, notice, faults)
            if props != element["props"]:
                element["props"] = props
                await self.screen.show(element)

    async def _show_again(self, element: Element) -> None:
        """Show it as it stands; what was wrong with the last attempt stays on it until something else changes."""
        async with self._painting:
            props, shown = await self.painter.props(element), element["props"]
            if props | {name: shown[name] for name in _OF_ATTEMPT & shown.keys()} != shown:
                element["props"] = props
                await self.screen.show(element)

    def _runs_cards(self) -> list[Element]:
        return [card for card in self._cards.values() if card["name"] == RUNS_CARD]

    def _of_review(self, review_id: str) -> list[Element]:
        return [card for card in self._cards.values() if card["props"].get("review_id") == review_id]


def _may_change(card: Element) -> bool:
    if card["name"] == RUNS_CARD:
        return unfinished(card["props"])
    return bool(card["props"].get("state") == "open")


def _shows_run(card: Element, data: Mapping[str, Any]) -> bool:
    return _shows(card, "run_id" if card["props"].get("run_id") else "batch_id", data)


def _shows(card: Element, key: str, data: Mapping[str, Any]) -> bool:
    return key in card["props"] and card["props"][key] == data.get(key)

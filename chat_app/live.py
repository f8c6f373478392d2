"""Keeps the cards of one open conversation true while things happen elsewhere.

Cards are painted from rows, never from memory: after a reload the same code paints them again. Live events
say what to look at; they may be lost, so a card whose runs execute right now is also looked at every two
seconds. What happens after a card was painted and before its events are heard is seen by one more look. Cards
are painted one after the other, so what was read earlier never replaces what was read later. A conversation
with nothing that can change has no task and asks the database nothing.
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
from chat_app.rendering import REVIEW_CARD, error_in_words, field_faults, review_card
from chat_app.run_cards import (
    LISTED_RUNS,
    RUNS_CARD,
    Seen,
    executing,
    listed,
    run_card,
    runs_card,
    unfinished,
    writing,
)
from chat_app.session import Seat
from chat_app.writing import Writing, Writings
from core.agents.words import plural
from core.clock import Clock
from core.errors import BailiwickError, Conflict, NotFound, Unauthenticated
from core.queue.estimate import StartsIn
from core.redis.bus import RESYNC, Bus, Event, Events
from core.reviews.service import ReviewService
from core.runs.bulk import BulkControl
from core.runs.control import RunControl
from core.runs.model import BatchProgress, RunState, RunView
from core.runs.service import RunService
from core.tenancy import Scope, TenantContext
from core.tenants.service import TenantService

CARDS = frozenset({RUNS_CARD, REVIEW_CARD})
_BUSY_PAUSE_S = 2.0
_QUIET_PAUSE_S = 300.0
_COALESCE_S = 0.3
_LOGIN_CHECK_S = 60.0
_OF_ATTEMPT = frozenset({"notice", "faults"})

log = structlog.get_logger(__name__)
Element = dict[str, Any]
"""A card as Chainlit's browser side knows it; ``props`` are ours."""


class Rooms(Protocol):
    """What cards are painted from and listen to."""

    @property
    def runs(self) -> RunService:
        """Batches and runs."""

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
    def reviews(self) -> ReviewService:
        """Cases and decisions."""

    @property
    def tenants(self) -> TenantService:
        """What people are called."""

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
    _writings: Writings = field(init=False)

    def __post_init__(self) -> None:
        self._writings = Writings(self.rooms.feeds, self.rooms.runs.log, self._woken.set)

    @property
    def ctx(self) -> TenantContext:
        """For whom the cards are painted."""
        return self.seat.ctx

    @property
    def may_decide(self) -> bool:
        """Whether this person decides reviews."""
        return Scope.REVIEWS_DECIDE in self.ctx.scopes

    async def repaint(self, elements: Iterable[Element]) -> None:
        """Bring the props of a thread's cards up to date in place, and track them."""
        for element in elements:
            if element.get("type") == "custom" and element.get("name") in CARDS:
                with contextlib.suppress(NotFound):  # what it showed is gone: it keeps its last state
                    element["props"] = await self._props(element)
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
            notice, faults = error.message, field_faults(error)
        for element in self._of_review(review_id):
            await self._show(element, notice, faults)
        return not notice

    async def open_run(self, run_id: str, opened: bool) -> None:
        """Show, or show no more, the steps of a run and what may be done to it, on the cards that list it."""
        on = [card for card in self._runs_cards() if run_id in listed(card["props"])]
        (self._opened.add if opened and on else self._opened.discard)(run_id)
        for element in on:
            await self._show(element)

    async def act(self, ctx: TenantContext, asked: Asked) -> bool:
        """Do something to runs from their card. Whether it was done; what became of it is said in passing."""
        try:
            said, done = await act_on_runs(self.rooms.control, self.rooms.bulk, ctx, asked), True
        except BailiwickError as error:
            said, done = error_in_words(error), False
        await self.screen.toast(said, failed=not done)
        self._dirty |= {card["id"] for card in self._runs_cards()}
        await self._look()
        self.follow()
        return done

    # Following ------------------------------------------------------------------------------------------

    def _anything_to_follow(self) -> bool:
        return self.may_decide or any(_may_change(card) for card in self._cards.values())

    async def _run(self) -> None:
        with contextlib.suppress(Unauthenticated):
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
            self._new_reviews += self.may_decide and event.data.get("state") == "open"
        else:
            return
        self._dirty |= touched
        if self._dirty or self._new_reviews:
            self._woken.set()

    def _pause_s(self) -> float:
        busy = any(executing(card["props"]) for card in self._runs_cards())
        return _BUSY_PAUSE_S if busy else _QUIET_PAUSE_S

    async def _still_logged_in(self) -> bool:
        now = asyncio.get_running_loop().time()
        if now - self._login_checked_at >= _LOGIN_CHECK_S:
            await self.seat.renew()
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
            props = await self._props(element, notice, faults)
            if props != element["props"]:
                element["props"] = props
                await self.screen.show(element)

    async def _show_again(self, element: Element) -> None:
        """Show it as it stands; what was wrong with the last attempt stays on it until something else changes."""
        async with self._painting:
            props, shown = await self._props(element), element["props"]
            if props | {name: shown[name] for name in _OF_ATTEMPT & shown.keys()} != shown:
                element["props"] = props
                await self.screen.show(element)

    async def _props(self, element: Element, notice: str = "", faults: dict[str, str] | None = None) -> dict[str, Any]:
        props = element["props"]
        if element["name"] == RUNS_CARD and props.get("run_id"):
            return await self.run_props(str(props["run_id"]))
        if element["name"] == RUNS_CARD:
            return await self.runs_props(str(props["batch_id"]), str(props["title"]))
        return await self.review_props(str(props["review_id"]), notice, faults)

    async def runs_props(self, batch_id: str, label: str) -> dict[str, Any]:
        """A batch as its card shows it. Raises ``NotFound``."""
        progress = await self.rooms.runs.batch_progress(self.ctx, batch_id)
        recent = await self._interesting(progress)
        seen = await self._seen(run for run in recent if run.run_id in self._opened)
        return runs_card(label, progress, recent, self.ctx.policy, await self._last_start(progress), seen)

    async def run_props(self, run_id: str) -> dict[str, Any]:
        """One run as its card shows it. Raises ``NotFound``."""
        run = await self.rooms.runs.get(self.ctx, run_id)
        return run_card(run, self.ctx.policy, await self._seen([run]))

    async def _seen(self, opened: Iterable[RunView]) -> Seen:
        steps = {run.run_id: await self.rooms.runs.steps(self.ctx, run.run_id) for run in opened}
        return Seen(Scope.RUNS_WRITE in self.ctx.scopes, steps)

    async def review_props(
        self, review_id: str, notice: str = "", faults: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """A review as its card shows it. Raises ``NotFound``."""
        review = await self.rooms.reviews.get(self.ctx, review_id)
        decider = ""
        if review.decided_by:
            kind, _, user_id = review.decided_by.partition(":")
            names = await self.rooms.tenants.names(self.ctx, [user_id]) if kind == "user" else {}
            decider = "you" if user_id == self.ctx.user_id else next(iter(names.values()), "")
        return review_card(
            review, self.ctx.policy, may_decide=self.may_decide, decider=decider, notice=notice, faults=faults
        )

    async def _interesting(self, progress: BatchProgress) -> list[RunView]:
        """A few runs of the batch: those that somebody opened, then those in trouble or at work.

        Read state by state: a run that moved on in between is found twice, and is as it was found last.
        """
        wanted = (
            (RunState.FAILED, progress.failed, 3),
            (RunState.DEAD, progress.dead, 3),
            (RunState.RUNNING, progress.running, 4),
            (RunState.WAITING, progress.waiting, 4),
            (RunState.CANCELLED, progress.cancelled, 2),
            (RunState.SUCCEEDED, progress.succeeded, LISTED_RUNS),
        )
        opened = await self.rooms.runs.some(self.ctx, list(self._opened)) if self._opened else ()
        mine = [run for run in opened if run.batch_id == progress.batch_id][:LISTED_RUNS]
        found = {run.run_id: run for run in mine}
        for state, count, share in wanted:
            room = min(share, LISTED_RUNS - len(found))
            if count and room > 0:
                page, _ = await self.rooms.runs.list(self.ctx, state=state, batch_id=progress.batch_id, limit=room)
                found |= {run.run_id: run for run in page}
        return list(found.values())

    async def _last_start(self, progress: BatchProgress) -> StartsIn | None:
        """When the newest queued run of the batch should start."""
        if not progress.queued:
            return None
        newest, _ = await self.rooms.runs.list(self.ctx, state=RunState.QUEUED, batch_id=progress.batch_id, limit=1)
        return (await self.rooms.runs.standing(self.ctx, newest[0])).starts_in if newest else None

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

"""Schedules and pollers: what they are, what a poller hands to its run, and the pure rules of when to try again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from core.errors import BailiwickError, Conflict, InvalidInput, NotFound
from core.ids import PollerId, RunId, ScheduleId, TenantId, UserId
from core.schedules.timing import Cron

MAX_NAME = 200
MAX_SCHEDULES = 1_000
MAX_POLLERS = 200
MIN_POLL_INTERVAL_S = 10
MAX_POLL_INTERVAL_S = 7 * 86_400
MAX_BACK_OFF_S = 6 * 3_600.0

View = TypeVar("View")


class Upcoming(StrEnum):
    """What comes next: kinds of things that have a time."""

    SCHEDULE = "schedule"
    POLLER = "poller"


@dataclass(frozen=True, slots=True)
class Due:
    """Something to be looked at by the leading scheduler at ``due_at``."""

    kind: Upcoming
    id: str
    tenant_id: TenantId
    due_at: datetime


@dataclass(frozen=True, slots=True)
class ScheduleView:
    """A schedule. ``next_at`` is the next occurrence (None: paused, or never again), in UTC.

    ``last_error`` says why the last occurrence started nothing (yet): ``{"code", "message"}``; ``retry_at`` is
    set while it is being tried again.
    """

    schedule_id: ScheduleId
    name: str
    cron: str
    timezone: str
    workflow: str
    input: dict[str, Any]
    paused: bool
    version: int
    next_at: datetime | None
    retry_at: datetime | None
    last_due_at: datetime | None
    last_run_id: RunId | None
    last_error: dict[str, Any] | None
    user_id: UserId | None
    created_by: str
    created_at: datetime
    updated_at: datetime

    @property
    def timing(self) -> Cron:
        """When it is due."""
        return Cron(self.cron, self.timezone)

    def definition(self) -> dict[str, Any]:
        """What people edit, as the audit shows it."""
        return {
            "name": self.name,
            "cron": self.cron,
            "timezone": self.timezone,
            "workflow": self.workflow,
            "input": self.input,
            "paused": self.paused,
        }


@dataclass(frozen=True, slots=True)
class FireView:
    """What became of an occurrence. ``missed_since``: the first of the missed ones that it stands for."""

    due_at: datetime
    fired_at: datetime
    missed_since: datetime | None
    run_id: RunId | None
    error: dict[str, Any] | None


class PollStatus(StrEnum):
    """How the last look at an address ended. ``first``: the content that changes are measured against."""

    FIRST = "first"
    UNCHANGED = "unchanged"
    CHANGED = "changed"
    FAILED = "failed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Seen:
    """What was at an address the last time: validators, the content's hash, and a key of each entry."""

    etag: str | None = None
    last_modified: str | None = None
    content_hash: bytes | None = None
    entry_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PollerView:
    """A poller. ``failures`` counts those in a row; ``next_at`` None: paused."""

    poller_id: PollerId
    name: str
    url: str
    interval_s: int
    workflow: str
    input: dict[str, Any]
    paused: bool
    version: int
    next_at: datetime | None
    failures: int
    last_status: PollStatus | None
    last_error: dict[str, Any] | None
    last_polled_at: datetime | None
    last_changed_at: datetime | None
    last_run_id: RunId | None
    seen: Seen
    user_id: UserId | None
    created_by: str
    created_at: datetime
    updated_at: datetime

    def definition(self) -> dict[str, Any]:
        """What people edit, as the audit shows it."""
        return {
            "name": self.name,
            "url": self.url,
            "interval_s": self.interval_s,
            "workflow": self.workflow,
            "input": self.input,
            "paused": self.paused,
        }


class FeedEntry(BaseModel):
    """One new or changed entry of a feed. ``content``: the entry's own text; of a JSON feed, its JSON."""

    model_config = ConfigDict(frozen=True)
    id: str
    title: str = ""
    link: str = ""
    content: str = ""


class FeedChange(BaseModel):
    """What a poller saw change; the field ``change`` of the input of the run that it starts.

    ``content`` is the text at the address, cut at 60,000 bytes; of a feed (Atom, RSS, JSON Feed, a JSON list
    of objects) ``entries`` holds what is new, at most 60,000 bytes, and ``content`` is empty. ``truncated``
    tells that something was cut.
    """

    model_config = ConfigDict(frozen=True)
    url: str
    content_type: str = ""
    content: str = ""
    entries: tuple[FeedEntry, ...] = Field(())
    truncated: bool = False


CHANGE_FIELD = "change"
SAMPLE_CHANGE = FeedChange(url="https://example.org/feed", entries=(FeedEntry(id="1", title="An entry"),))


def check_name(name: str) -> str:
    """The name without spaces around it. Raises ``InvalidInput`` when it is empty or too long."""
    name = name.strip()
    if not 1 <= len(name) <= MAX_NAME:
        raise InvalidInput(f"A name has 1 to {MAX_NAME} characters.", field="name")
    return name


def found(view: View | None, word: str) -> View:
    """What was found. Raises ``NotFound``, for foreign and missing alike, that calls it by this word."""
    if view is None:
        raise NotFound(f"There is no such {word}.")
    return view


def check_version(current: int, edited: int | None, word: str) -> None:
    """Raises ``Conflict`` when somebody edited another version than the current one; None: whichever it is."""
    if edited is not None and edited != current:
        raise Conflict(f"Somebody else has changed this {word} since you opened it.", version=current)


def check_interval(interval_s: int) -> int:
    """The interval. Raises ``InvalidInput`` outside its limits."""
    if not MIN_POLL_INTERVAL_S <= interval_s <= MAX_POLL_INTERVAL_S:
        raise InvalidInput(
            f"A poller looks every {MIN_POLL_INTERVAL_S} to {MAX_POLL_INTERVAL_S} seconds.", field="interval_s"
        )
    return interval_s


def passes_by_itself(error: BailiwickError) -> bool:
    """Whether the same submission may succeed later without anybody changing anything."""
    return error.retryable or error.retry_after_s is not None


def retry_delay(error: BailiwickError) -> timedelta:
    """How long to wait after a refusal that passes by itself: what it asks for, from 1 s to 1 h."""
    return timedelta(seconds=min(max(error.retry_after_s or 30.0, 1.0), 3_600.0))


def describe(error: BailiwickError) -> dict[str, Any]:
    """An error as rows and screens hold it."""
    return {"code": error.code, "message": error.message}


def poll_delay(interval_s: int, failures: int, retry_after_s: float | None, jitter: float) -> timedelta:
    """Time until the next look: the interval; after failures up to twice as long each time, at most 6 h.

    ``jitter`` in [0, 1) spreads pollers that failed together over the whole delay. What the server asks for
    (Retry-After) is never undercut, up to a day.
    """
    delay_s = float(interval_s)
    if failures:
        spread_s = min(interval_s * 2.0 ** min(failures, 20), max(MAX_BACK_OFF_S, interval_s))
        delay_s = interval_s + jitter * (spread_s - interval_s)
    if retry_after_s is not None:
        delay_s = max(delay_s, min(retry_after_s, 86_400.0))
    return timedelta(seconds=delay_s)

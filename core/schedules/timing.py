"""When a schedule is due: cron text in a time zone, pure.

Five fields (minute, hour, day of month, month, day of week), each ``*``, a value, a range ``a-b``, a step
``*/n`` or ``a-b/n``, or a list of these; months and days also by English name, Sunday is 0 or 7. Restricting
both day fields means: either matches.

Where the clocks change:
- a time that they skip is due at the moment they have moved on (02:30 → 03:00);
- a time that they repeat is due once, the first time;
- schedules of every hour (hour field ``*``) follow real time instead: nothing is moved, both hours count.

croniter and APScheduler's trigger were tried first; decision 0007 tells what they answered.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from itertools import groupby, islice
from zoneinfo import ZoneInfo, available_timezones

from core.errors import InvalidInput

MAX_TEXT = 200
_DAYS_AHEAD = 9 * 366  # the 29th of February may be eight years away
_A_DAY = timedelta(hours=26)  # no clock was ever changed by more
_BACKWARDS = (timedelta(hours=2), timedelta(days=2), timedelta(days=62), timedelta(days=800))

_MONTHS = {"jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6} | {
    "jul": 7,
    "aug": 8,
    "sep": 9,
    "oct": 10,
    "nov": 11,
    "dec": 12,
}
_WEEKDAYS = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}


@dataclass(frozen=True, slots=True)
class Cron:
    """A valid cron text in a known time zone; make one with ``parse_cron``."""

    text: str
    timezone: str

    @property
    def zone(self) -> ZoneInfo:
        """The time zone."""
        return ZoneInfo(self.timezone)


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    low: int
    high: int
    names: dict[str, int]

    def values(self, text: str) -> frozenset[int]:
        """What a field's text stands for. Raises ``InvalidInput``."""
        return frozenset().union(*(self._part(part) for part in text.split(",")))

    def _part(self, part: str) -> range:
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        if span == "*":
            low, high = self.low, self.high
        elif slash and not dash:
            raise self._wrong(part, "a step follows * or a range")
        else:
            low = self._value(first, part)
            high = self._value(last, part) if dash else low
            if self.names is _WEEKDAYS and high == 0 < low:
                high = 7  # fri-sun
        if low > high:
            raise self._wrong(part, "the range runs backwards")
        if slash and not (step.isdecimal() and len(step) < 3 and 1 <= int(step) <= self.high - self.low):
            raise self._wrong(part, f"a step is 1 to {self.high - self.low}")
        return range(low, high + 1, int(step) if slash else 1)

    def _value(self, word: str, part: str) -> int:
        value = self.names.get(word)
        if value is None:
            if not (word.isascii() and word.isdecimal() and len(word) < 3):
                raise self._wrong(part, f"{word!r} is not understood")
            value = int(word)
        if not self.low <= value <= self.high:
            raise self._wrong(part, f"{value} is out of range, {self.low} to {self.high}")
        return value

    def _wrong(self, part: str, why: str) -> InvalidInput:
        return InvalidInput(f"The field {self.name} of the cron text is wrong at {part!r}: {why}.", field="cron")


_FIELDS = (
    _Field("minute", 0, 59, {}),
    _Field("hour", 0, 23, {}),
    _Field("day of month", 1, 31, {}),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 7, _WEEKDAYS),
)


@dataclass(frozen=True, slots=True)
class _Times:
    """A parsed text: sorted minutes of the day, and which days."""

    times: tuple[tuple[int, int], ...]
    every_hour: bool
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]

    def on(self, day: datetime) -> bool:
        """Whether a day counts."""
        if day.month not in self.months:
            return False
        by_day, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        either = len(self.days) < 31 and len(self.weekdays) < 7
        return by_day or by_weekday if either else by_day and by_weekday


def parse_cron(text: str, timezone: str) -> Cron:
    """Check both. Raises ``InvalidInput`` that names the field and the fault."""
    if timezone not in _timezones():
        raise InvalidInput(f"{timezone!r} is not a time zone; write one like Europe/Berlin or UTC.", field="timezone")
    if len(text) > MAX_TEXT:
        raise InvalidInput(f"A cron text has at most {MAX_TEXT} characters.", field="cron")
    normal = " ".join(text.lower().split())
    _times(normal)
    return Cron(normal, timezone)


def next_fire(cron: Cron, after: datetime) -> datetime | None:
    """The first occurrence strictly after a moment, in UTC; None when there is none in the next nine years."""
    found = next_fires(cron, 1, after)
    return found[0] if found else None


def next_fires(cron: Cron, n: int, after: datetime) -> list[datetime]:
    """The first ``n`` occurrences strictly after a moment, in UTC; fewer when there are no more."""
    times = _times(cron.text)
    if times.every_hour:
        walks = [_moments(times, cron.zone, after, fold=fold, moved=False) for fold in (0, 1)]
    else:
        walks = [_moments(times, cron.zone, after, fold=0, moved=True)]
    later = (moment for moment, _ in groupby(heapq.merge(*walks)) if moment > after)
    return list(islice(later, n))


def latest_fire(cron: Cron, first: datetime, until: datetime) -> datetime:
    """The last occurrence from ``first`` (one itself) up to and including ``until``."""
    for span in _BACKWARDS:
        # Look back further only when the shorter look found nothing: a schedule of every minute that nobody
        # served for a month must not be walked through minute by minute.
        start = max(first, until - span)
        latest = first if start == first else None
        following = next_fire(cron, start)
        while following is not None and following <= until:
            latest, following = following, next_fire(cron, following)
        if latest is not None:
            return latest
    return first


@cache
def _timezones() -> frozenset[str]:
    # Without the machine's own: a schedule means the same everywhere.
    return frozenset(available_timezones() - {"localtime", "Factory"})


@lru_cache(1_000)
def _times(text: str) -> _Times:
    texts = text.split()
    if len(texts) != len(_FIELDS):
        names = ", ".join(field.name for field in _FIELDS)
        raise InvalidInput(f"A cron text has five fields ({names}); {text!r} has {len(texts)}.", field="cron")
    minutes, hours, days, months, weekdays = (field.values(part) for field, part in zip(_FIELDS, texts, strict=True))
    return _Times(
        times=tuple((hour, minute) for hour in sorted(hours) for minute in sorted(minutes)),
        every_hour=len(hours) == 24,
        days=days,
        months=months,
        weekdays=frozenset(day % 7 for day in weekdays),
    )


def _moments(times: _Times, zone: ZoneInfo, after: datetime, *, fold: int, moved: bool) -> Iterator[datetime]:
    """The written times as moments, in order, from some way before ``after`` on.

    A repeated time is read as its first (``fold`` 0) or second occurrence; a skipped one is moved to the
    change, or left out.
    """
    start = after.astimezone(zone).replace(tzinfo=None)
    if fold:
        # In the first of two equal hours, the second occurrence of an earlier time still lies ahead.
        start -= max(_offset(after, zone) - _offset(after + _A_DAY, zone), timedelta(0))
    midnight = start.replace(hour=0, minute=0, second=0, microsecond=0)
    for number in range(_DAYS_AHEAD):
        day = midnight + timedelta(days=number)
        if not times.on(day):
            continue
        for hour, minute in times.times:
            written = day.replace(hour=hour, minute=minute)
            if written < start - timedelta(minutes=1):
                continue
            moment = written.replace(tzinfo=zone, fold=fold).astimezone(UTC)
            if moment.astimezone(zone).replace(tzinfo=None) == written:
                yield moment
            elif moved:
                yield _change_before(moment, zone)


def _change_before(moment: datetime, zone: ZoneInfo) -> datetime:
    """The moment, at most a day before, since which the clocks show what they show now."""
    low, high = moment - _A_DAY, moment
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) / 2
        low, high = (low, middle) if _offset(middle, zone) == _offset(moment, zone) else (middle, high)
    return high.replace(microsecond=0)


def _offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta(0)

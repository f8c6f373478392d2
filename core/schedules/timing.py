"""When a schedule is due: cron text in a time zone, pure.

Five fields (minute, hour, day of month, month, day of week), each ``*``, a value, a range ``a-b``, a step
``*/n`` or ``a-b/n``, or a list of these; months and days also by English name, Sunday is 0 or 7. Restricting
both day fields means: either matches.

Where the clocks change:
- a time that they skip is due at the moment they have moved on (02:30 → 03:00);
- a time that they repeat is due once, the first time; schedules of every hour (hour field ``*``) follow real
  time instead and are due in both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from croniter import HOUR_FIELD, CroniterBadCronError, CroniterBadDateError, croniter

from core.errors import InvalidInput

_FIELDS = ("minute", "hour", "day of month", "month", "day of week")
_VALUE = r"(?:\d{1,2}|[a-z]{3})"
_FIELD = re.compile(rf"(?:\*|{_VALUE}(?:-{_VALUE})?)(?:/\d{{1,2}})?(?:,(?:\*|{_VALUE}(?:-{_VALUE})?)(?:/\d{{1,2}})?)*")
_YEARS_AHEAD = 9  # the 29th of February may be eight years away
_MAX_TEXT = 200
_BACKWARDS = (timedelta(hours=2), timedelta(days=2), timedelta(days=62), timedelta(days=800))


@dataclass(frozen=True, slots=True)
class Cron:
    """A valid cron text in a known time zone; make one with ``parse_cron``."""

    text: str
    timezone: str

    @property
    def zone(self) -> ZoneInfo:
        """The time zone."""
        return ZoneInfo(self.timezone)


@cache
def _timezones() -> frozenset[str]:
    # Without the machine's own: a schedule means the same everywhere.
    return frozenset(available_timezones() - {"localtime", "Factory"})


def parse_cron(text: str, timezone: str) -> Cron:
    """Check both. Raises ``InvalidInput`` that names the field and the fault."""
    if timezone not in _timezones():
        raise InvalidInput(f"{timezone!r} is not a time zone; write one like Europe/Berlin or UTC.", field="timezone")
    fields = text.lower().split()
    if len(text) > _MAX_TEXT or len(fields) != len(_FIELDS):
        raise InvalidInput(
            f"A cron text has five fields ({', '.join(_FIELDS)}); {text[:_MAX_TEXT]!r} has {len(fields)}.", field="cron"
        )
    for name, field in zip(_FIELDS, fields, strict=True):
        if not _FIELD.fullmatch(field):
            raise InvalidInput(f"The field {name} of the cron text is not understood: {field!r}.", field="cron")
    normal = " ".join(fields)
    try:
        croniter.expand(normal)
    except CroniterBadCronError as error:
        raise InvalidInput(f"The cron text {normal!r} is not valid: {error}.", field="cron") from None
    return Cron(normal, timezone)


def next_fire(cron: Cron, after: datetime) -> datetime | None:
    """The first occurrence strictly after a moment, in UTC; None when there is none in the next nine years."""
    found = next_fires(cron, 1, after)
    return found[0] if found else None


def next_fires(cron: Cron, n: int, after: datetime) -> list[datetime]:
    """The first ``n`` occurrences strictly after a moment, in UTC; fewer when there are no more."""
    steps = croniter(cron.text, after.astimezone(cron.zone), max_years_between_matches=_YEARS_AHEAD)
    every_hour = len(steps.expanded[HOUR_FIELD]) == 24 or steps.expanded[HOUR_FIELD] == ["*"]
    fires: list[datetime] = []
    while len(fires) < n:
        try:
            local: datetime = steps.get_next(datetime)
        except CroniterBadDateError:
            break
        if local.fold and not every_hour:
            continue
        fires.append(local.astimezone(UTC))
    return fires


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

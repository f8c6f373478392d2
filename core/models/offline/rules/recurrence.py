"""Reads "every weekday at 09:00" as a cron expression."""

from __future__ import annotations

import re
from dataclasses import dataclass

_DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_DAY = r"(?:" + "|".join(_DAYS) + r")s?"
_TRIGGER = re.compile(
    rf"\b(?:every|each|hourly|daily|nightly|weekly|monthly|once an? (?:hour|day|week|month)|on (?:{_DAY}|weekdays|"
    rf"weekends|working days|business days))\b",
    re.IGNORECASE,
)
_CLOCK = re.compile(
    r"\b(?:at|by|@)\s*(\d{1,2})(?:[:.h](\d{2}))?\s*(a\.?m\.?|p\.?m\.?)?(?:\s*o'?clock)?(?![\d%])|"
    r"\b(\d{1,2}):(\d{2})\s*(am|pm)?\b|\b(\d{1,2})\s*(am|pm)\b",
    re.IGNORECASE,
)
_STEP = re.compile(r"\bevery\s+(?:(\d+|other|second|half)\s+)?(?:an\s+)?(minute|hour)s?\b|\bhourly\b", re.IGNORECASE)
_ZONE = re.compile(r"\b((?:Africa|America|Asia|Atlantic|Australia|Europe|Indian|Pacific)/[A-Za-z_/]+|UTC)\b")
_PARTS_OF_DAY = {"morning": 9, "noon": 12, "lunchtime": 12, "afternoon": 15, "evening": 18, "night": 2, "midnight": 0}


class RhythmError(ValueError):
    """The rhythm exists in English but not in cron."""


@dataclass(frozen=True, slots=True)
class Recurrence:
    """When something repeats.

    Attributes:
        minute, hour, day: cron fields.
        weekdays: 0 is Sunday; empty means every day.
        timezone: IANA name when one was said.
    """

    minute: str
    hour: str
    day: str
    weekdays: tuple[int, ...]
    timezone: str | None

    def cron(self, *, names: bool = False) -> str:
        """Five cron fields; weekdays as numbers (1-5) or as names (mon-fri)."""
        return f"{self.minute} {self.hour} {self.day} * {_weekday_field(self.weekdays, names=names)}"


def _weekday_field(days: tuple[int, ...], *, names: bool) -> str:
    if not days or len(days) == 7:
        return "*"
    label = (lambda day: _DAYS[day][:3]) if names else str
    if len(days) > 2 and days == tuple(range(days[0], days[-1] + 1)):
        return f"{label(days[0])}-{label(days[-1])}"
    return ",".join(label(day) for day in days)


def mentions_recurrence(text: str) -> bool:
    """Does the text ask for something again and again?"""
    return bool(_TRIGGER.search(text))


def recurrence(text: str) -> Recurrence | None:
    """The rhythm in ``text``; without a time of day it is 09:00. Raises ``RhythmError``."""
    if not mentions_recurrence(text):
        return None
    zone = _ZONE.search(text)
    timezone = zone.group(1) if zone else None
    days = _weekdays(text)
    if step := _STEP.search(text):
        minute, hour = _step_fields(step.group(1), step.group(2) or "hour")
        return Recurrence(minute, hour, "*", days, timezone)
    hour_of_day, minute_of_hour = _time_of_day(text)
    return Recurrence(str(minute_of_hour), str(hour_of_day), _day_of_month(text), days, timezone)


def task_of(text: str) -> str:
    """What is to be done, without the words that say when."""
    bare = re.sub(r"\s*\([^)]*\)", "", _ZONE.sub("", text))
    bare = _STEP.sub("", _CLOCK.sub("", bare))
    bare = re.sub(
        rf"\b(?:every|each|on|all|in the|at)?\s*(?:(?:other\s+)?(?:day|week|month|morning|afternoon|evening|night)|"
        rf"noon|midnight|weekdays?|weekends?|working days?|business days?|{_DAY}(?:(?:\s*,\s*|\s*,?\s*and\s+){_DAY})*|"
        r"daily|nightly|weekly|monthly|once an? \w+)\b|\bo'?clock\b|\btime\b",
        "",
        bare,
        flags=re.IGNORECASE,
    )
    bare = re.sub(r"^\W*(?:please|can you|could you|i want you to|i'd like you to|then)\b|[.!?]+$", "", bare.strip())
    bare = re.sub(r"\b(?:on|at|in|the)\s*$", "", re.sub(r"\s+", " ", bare).strip(" ,.:;-"))
    return bare.strip(" ,.:;-")


def _step_fields(amount: str | None, unit: str) -> tuple[str, str]:
    count = {"other": 2, "second": 2, None: 1, "half": 30}.get(amount) if not (amount or "").isdigit() else None
    every = count if count is not None else int(amount or 1)
    if amount == "half":
        unit = "minute"
    if unit == "hour":
        if every < 1 or 24 % every:
            raise RhythmError(f"every {every} hours does not divide a day")
        return "0", "*" if every == 1 else f"*/{every}"
    if every < 1 or 60 % every:
        raise RhythmError(f"every {every} minutes does not divide an hour")
    return ("*" if every == 1 else f"*/{every}"), "*"


def _weekdays(text: str) -> tuple[int, ...]:
    lowered = text.lower()
    if re.search(r"\b(?:weekdays?|working days?|business days?|workdays?)\b", lowered):
        return (1, 2, 3, 4, 5)
    if re.search(r"\bweekends?\b", lowered):
        return (0, 6)
    if span := re.search(r"\b(\w+day)s? (?:to|through|until|till|-|–) (\w+day)s?\b", lowered):
        first, last = span.group(1), span.group(2)
        if first in _DAYS and last in _DAYS and _DAYS.index(first) < _DAYS.index(last):
            return tuple(range(_DAYS.index(first), _DAYS.index(last) + 1))
    named = tuple(index for index, day in enumerate(_DAYS) if re.search(rf"\b{day}s?\b", lowered))
    return named or ((1,) if re.search(r"\bweekly\b|\bonce a week\b|\b(?:every|each) week\b", lowered) else ())


def _day_of_month(text: str) -> str:
    lowered = text.lower()
    if not re.search(r"\bmonth(?:ly)?\b", lowered):
        return "*"
    day = re.search(r"\b(\d{1,2})(?:st|nd|rd|th)\b", lowered)
    return day.group(1) if day and 1 <= int(day.group(1)) <= 31 else "1"


def _time_of_day(text: str) -> tuple[int, int]:
    if found := _CLOCK.search(text):
        hour_text = found.group(1) or found.group(4) or found.group(7)
        minute_text = found.group(2) or found.group(5)
        half = (found.group(3) or found.group(6) or found.group(8) or "").replace(".", "").lower()
        hour, minute = int(hour_text), int(minute_text or 0)
        if half:
            hour = hour % 12 + (12 if half == "pm" else 0)
        if hour > 23 or minute > 59:
            raise RhythmError(f"{hour}:{minute:02} is not a time of day")
        return hour, minute
    lowered = text.lower()
    hours = (hour for word, hour in _PARTS_OF_DAY.items() if re.search(rf"\b{word}(?:ly)?\b", lowered))
    return next(hours, 9), 0

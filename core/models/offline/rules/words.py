"""Small helpers for reading English: sentences, stems, numbers, names."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from typing import Any

_STOP_WORDS = (
    "a an and are as at be been but by can could did do does for from had has have how i if in into is it its "
    "know me my of on one or our please shall should so tell that the their them there these they this those to up us "
    "was we were what when where which who whom whose why will with would you your about any ever remember recall "
    "remind said say saying told rule rules policy policies"
)
_STOP = frozenset(_STOP_WORDS.split())

# One word stands for each group, so that a question meets a statement that says it differently.
_SYNONYMS = {
    word: group[0]
    for group in (
        ("below", "minimum", "under", "least", "lowest", "floor", "threshold", "cutoff", "min"),
        ("above", "maximum", "over", "most", "highest", "ceiling", "max"),
        ("decline", "refuse", "reject", "deny"),
        ("approve", "accept", "grant"),
        ("prefer", "like", "favour", "favor", "preference"),
        ("officer", "head", "lead"),
        ("credit", "score", "rating"),
    )
    for word in group
}
_COUNTING = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_NUMBERS = {word: value for value, word in enumerate(_COUNTING.split())} | {
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "hundred": 100,
    "dozen": 12,
}
NUMBER = r"(\d[\d,]*|" + "|".join(sorted(_NUMBERS, key=len, reverse=True)) + r")"

_QUESTION = re.compile(
    r"^(?:(?:and|so|but|ok|okay|hey|please)[, ]+)*(?:who|whom|whose|what|when|where|which|why|how|is|are|was|were|do|"
    r"does|did|can|could|will|would|should|may|have|has|am)\b|^(?:below|above|under|over|in|at|by|on|for|to|from) "
    r"(?:which|what|whom|who)\b|^(?:tell me|remind me|do you (?:know|remember))\b",
    re.IGNORECASE,
)
_IDENTIFIER = re.compile(r"\b([a-z]{2,10}_[0-9a-z]{6,}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b", re.IGNORECASE)
_NAMED = re.compile(r"\b(?:run|review|schedule|memory|case|number|no\.?|id)\s+[#:\"']*([\w-]*\d[\w-]*)", re.IGNORECASE)


def starts(pattern: str, text: str) -> re.Match[str] | None:
    """Does ``text`` begin like this, in any case of letters?"""
    return re.match(pattern, text, re.IGNORECASE | re.DOTALL)


def has(pattern: str, text: str) -> re.Match[str] | None:
    """Is this anywhere in ``text``, in any case of letters?"""
    return re.search(pattern, text, re.IGNORECASE)


def number(text: str) -> int | None:
    """``"1,319"`` or ``"twenty"`` as a number."""
    cleaned = text.replace(",", "").lower()
    return int(cleaned) if cleaned.isdigit() else _NUMBERS.get(cleaned)


def sentences(text: str) -> list[str]:
    """Sentences without their outer blanks; a full stop inside a number or file name does not end one."""
    parts = re.split(r"(?<=[.!?])[\"')]*\s+|\n+|;\s+", text)
    return [part.strip() for part in parts if part.strip()]


def is_question(sentence: str) -> bool:
    """Does this ask something?"""
    return sentence.rstrip("\"' ").endswith("?") or bool(_QUESTION.match(sentence.strip()))


def identifier(text: str) -> str | None:
    """The first thing that looks like the id of a run, review, schedule or memory."""
    found = _IDENTIFIER.search(text) or _NAMED.search(text)
    return found.group(1) if found else None


def stem(word: str) -> str:
    """A crude stem, good enough to match plural, past and gerund of the same word."""
    for ending in ("ations", "ation", "ings", "ing", "ies", "als", "al", "ed", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            word = word[: -len(ending)]
            break
    return word


_STEMMED_SYNONYMS = {stem(word): stem(head) for word, head in _SYNONYMS.items()}


def stems(text: str) -> frozenset[str]:
    """The words that carry meaning, stemmed, with synonyms folded together."""
    words = re.findall(r"[a-z]+|\d+(?:\.\d+)?", re.sub(r"(?<=[a-z])-(?=[a-z])", "", text.lower()))
    found = (stem(word) for word in words if word not in _STOP)
    return frozenset(_STEMMED_SYNONYMS.get(word, word) for word in found)


def relevant(question: str, statements: Sequence[str]) -> list[str]:
    """The statements that share the most words with the question, best first; none if none shares any."""
    asked = stems(question)
    scored = [(len(asked & stems(statement)), -index) for index, statement in enumerate(statements)]
    best = max((score for score, _ in scored), default=0)
    kept = sorted((pair for pair in scored if pair[0] and pair[0] * 2 > best), reverse=True)
    return [statements[-index] for _, index in kept]


def as_sentence(text: str) -> str:
    """Capital first, one full stop last."""
    text = text.strip().rstrip(".! ")
    return text[:1].upper() + text[1:] + "." if text else ""


def plural(count: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def parse_data(text: str) -> Any:
    """A tool's answer as data: JSON, or a Python collection as text; anything else stays a string."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return python_value(text)


def python_value(text: str) -> Any:
    """A list or dictionary printed by Python, as libraries put it into prompts; anything else stays a string."""
    if not text.lstrip().startswith(("{", "[")):
        return text
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text

"""Tells statements from commands and small talk, and splits a statement into subject, predicate and object."""

from __future__ import annotations

import re
from dataclasses import dataclass

from core.models.offline.rules.words import is_question

_COMMAND = re.compile(
    r"^(?:start|run|process|submit|launch|begin|kick|evaluate|assess|handle|execute|import|show|list|give|display|tell|"
    r"find|get|check|cancel|abort|stop|approve|decline|reject|deny|accept|summari[sz]e|explain|describe|schedule|pause|"
    r"resume|delete|remove|forget|recall|remind|write|make|create|add|send|open|close|wait|help|look|go|try|use|set|"
    r"change|update|do|don'?t|re-?\w+)\b",
    re.IGNORECASE,
)
_PREPOSITIONS = (
    r"(?:above|about|after|at|below|before|between|by|for|from|in|into|near|of|on|over|to|under|until|with|without)"
)
_VERBS = (
    "accept answer approve ask assign attend audit become begin believe belong bill bought build buy call came "
    "charge check close contain cost cover cut decide decline deliver depend enjoy end expect fear file finish "
    "follow gave get give go got grew handle hate hire hold know lead learn leave left like live lose love made "
    "make manage mean meet met move need offer open operate own pay plan play prefer process provide ran read "
    "receive refer refuse reject report request require resign retire review run said sell send serve set sign "
    "sold speak spend start stay study support take taught teach think took trust understand use visit want went "
    "work write wrote"
)
_VERB = (
    r"(?:(?:have|has|had|"
    + "|".join(rf"{verb}(?:s|es|d|ed)?" for verb in _VERBS.split())
    + r"|studied|studies|relies|rely|tries)\b)"
)
_ADVERB = (
    r"(?:never|always|usually|often|sometimes|generally|only|also|currently|now|still|no longer|just|really|already)"
)
_MODAL = (
    r"(?:must|may|can|cannot|can't|should|shall|will|would|won't|do|does|did|don't|doesn't|didn't|need to|have to|"
    r"has to)"
)
_BE = r"(?:am|is|are|was|were|'m|’m)"

_AUXILIARY = re.compile(
    rf"^(?P<s>.{{1,80}}?)\s+(?P<p>(?:{_ADVERB}|{_MODAL}(?:\s+not)?)(?:\s+(?:{_ADVERB}|not|be))*\s+[a-z-]+"
    rf"(?:\s+(?:{_PREPOSITIONS}|at least|more than|less than|up to))?)\s+(?P<o>.+)$",
    re.IGNORECASE,
)
_BEING = re.compile(
    rf"^(?P<s>.{{1,80}}?)\s*\b(?P<p>{_BE}(?:\s+(?:{_ADVERB}|not))?"
    rf"(?:\s+[a-z]+ed\s+{_PREPOSITIONS}|\s+(?:in|at|on|from|based in|at least|at most))?)\s+(?P<o>.+)$",
    re.IGNORECASE,
)
_DOING = re.compile(
    rf"^(?P<s>.{{1,80}}?)\s+(?P<p>{_VERB}(?:\s+(?:{_PREPOSITIONS}|at least|more than|up to))?)\s+(?P<o>.+)$",
    re.IGNORECASE,
)
_SMALL_TALK = re.compile(
    r"^(?:thanks|thank you|hi|hello|hey|great|good|nice|ok|okay|yes|no|sure|sorry|wow|bye)\b[^,]{0,25}$", re.IGNORECASE
)
_SUBJECT_LIMIT = 8


@dataclass(frozen=True, slots=True)
class Triple:
    """Who, does what, to whom.

    Attributes:
        functional: a subject has one object for this predicate at a time, so a new one replaces the old.
    """

    subject: str
    predicate: str
    object: str
    functional: bool


def tidy(text: str) -> str:
    """A statement without its final stop and outer quotes."""
    return re.sub(r"\s+", " ", text).strip().strip('"“”').rstrip(".! ").strip()


def is_statement(sentence: str) -> bool:
    """Does the sentence state something worth keeping?"""
    if is_question(sentence) or _COMMAND.match(sentence) or _SMALL_TALK.match(sentence):
        return False
    return 3 <= len(sentence.split()) <= 80 and triple_of(tidy(sentence)) is not None


def triple_of(statement: str) -> Triple | None:
    """Subject, predicate and object of a statement, or ``None`` when no verb is recognised."""
    for pattern in _patterns_by_position(statement):
        found = pattern.match(statement)
        if found and len(found["s"].split()) <= _SUBJECT_LIMIT:
            predicate = re.sub(r"\s+", " ", found["p"]).lower()
            return Triple(_entity(found["s"]), predicate, _entity(found["o"]), _functional(predicate))
    return None


def _patterns_by_position(statement: str) -> list[re.Pattern[str]]:
    """The patterns that fit, that with the earliest predicate first; on a tie the most specific."""
    fits = [(found.start("p"), index) for index, p in enumerate(_PATTERNS) if (found := p.match(statement))]
    return [_PATTERNS[index] for _, index in sorted(fits)]


_PATTERNS = (_AUXILIARY, _BEING, _DOING)


def _entity(text: str) -> str:
    bare = re.sub(r"^(?:our|the|a|an)\s+", "", text.strip(" ,.;:\"“”'"), flags=re.IGNORECASE)
    return bare.lower() if bare.lower() in ("we", "i", "you", "they") else bare


def _functional(predicate: str) -> bool:
    return bool(
        re.fullmatch(r"(?:is|are)(?: in| at| on)?|.*\b(?:above|below|under|over|at least|at most|up to)", predicate)
    )


def same_subject(known: str, stated: str) -> bool:
    """Do two statements say different things about the same, so that the later one replaces the earlier?"""
    one, other = triple_of(tidy(known)), triple_of(tidy(stated))
    if one is None or other is None or not other.functional:
        return False
    return (one.subject.casefold(), one.predicate) == (other.subject.casefold(), other.predicate)

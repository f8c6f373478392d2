"""What the chat shows, as values: the card of a review, starters, tool names, errors in words. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from core.agents.words import plural
from core.errors import (
    BailiwickError,
    BudgetExceeded,
    NoModelEndpoint,
    Overloaded,
    QuotaExceeded,
    RateLimited,
    Unauthenticated,
    Unavailable,
)
from core.reviews.form import Field, fields
from core.reviews.model import ReviewView
from core.tenancy import Policy, Scope, TenantContext

REVIEW_CARD = "ReviewCard"
MAX_FACTS = 30
WIDE_VALUE = 24

_TOOLS = {
    "start_loan_runs": "the file to start loan approvals",
    "runs_progress": "the progress of your runs",
    "list_runs": "the list of runs",
    "get_run": "the details of a run",
    "cancel_run": "the cancellation of a run",
    "summarise_declined": "the reasons of refusals",
    "list_reviews": "the review queue",
    "decide_review": "a review decision",
    "remember": "memory, to remember",
    "recall": "memory",
    "forget": "memory, to forget",
    "create_schedule": "the timetable",
    "list_schedules": "the timetable",
    "pause_schedule": "the timetable",
    "resume_schedule": "the timetable",
}


@dataclass(frozen=True, slots=True)
class StarterText:
    """A first message offered on an empty screen."""

    label: str
    message: str


def tool_title(name: str) -> str:
    """What stands after “Using …” while a tool works."""
    return _TOOLS.get(name, name.replace("_", " "))


def starters(ctx: TenantContext, open_reviews: int) -> list[StarterText]:
    """First messages that fit what this person may do."""
    found = []
    if Scope.REVIEWS_DECIDE in ctx.scopes:
        waiting = f"Review {plural(open_reviews, 'waiting case')}" if open_reviews else "What waits for review?"
        found.append(StarterText(waiting, "What waits for review?"))
    if Scope.RUNS_READ in ctx.scopes:
        found.append(StarterText("How far are my runs?", "How far are the runs?"))
        found.append(StarterText("What was declined, and why?", "Summarise what was declined and why."))
    if Scope.SCHEDULES_WRITE in ctx.scopes:
        message = "Every weekday at 09:00 re-check pending applications."
        found.append(StarterText("Re-check pending cases every weekday", message))
    found.append(StarterText("What can you do?", "What can you do?"))
    return [starter for starter in found if ctx.policy.allows_tool(_tool_behind(starter.message))]


def _tool_behind(message: str) -> str:
    for words, tool in (
        ("review", "list_reviews"),
        ("How far", "runs_progress"),
        ("declined", "summarise_declined"),
        ("Every", "create_schedule"),
    ):
        if words in message:
            return tool
    return ""


# Reviews ------------------------------------------------------------------------------------------------


def review_card(
    review: ReviewView,
    policy: Policy,
    *,
    may_decide: bool,
    decider: str = "",
    notice: str = "",
    faults: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Props of the card on which a case is decided.

    ``notice`` says why the last attempt did not work, ``faults`` what is wrong with which field of its form.
    """
    evidence = dict(review.evidence)
    question = str(evidence.pop("question", "") or "")
    finding = evidence.get("finding")
    reasons = finding.get("reasons") if isinstance(finding, Mapping) else None
    return {
        "review_id": review.review_id,
        "run_id": review.run_id,
        "title": review.title,
        "question": "" if question in review.title else question,
        "state": review.state,
        "verdict": review.verdict,
        "comment": review.comment,
        "decided": _decided(review, decider, policy),
        "due": f"due {local_time(review.due_at, policy.timezone)}",
        "choices": [{"value": choice, "label": choice.capitalize()} for choice in review.choices],
        "reasons": [str(one) for one in reasons if str(one) not in review.title] if isinstance(reasons, list) else [],
        "facts": [fact(label, value) for label, value in facts(evidence)][:MAX_FACTS],
        "may_decide": may_decide,
        "fields": [] if review.form is None else [_input(field) for field in fields(review.form)],
        "notice": notice,
        "faults": dict(faults or {}),
    }


def _input(field: Field) -> dict[str, Any]:
    """A field of a form, as an input."""
    return {
        "name": field.name,
        "kind": field.kind,
        "title": field.title,
        "description": field.description,
        "required": field.required,
        "default": field.default,
        "choices": list(field.choices),
        "least": field.least,
        "most": field.most,
        "longest": field.longest,
    }


def field_faults(error: BailiwickError) -> dict[str, str]:
    """What an error says about the fields of a form, by name."""
    prefix = "/answer/"
    return {
        str(fault["pointer"]).removeprefix(prefix).replace("~1", "/").replace("~0", "~"): str(fault["message"])
        for fault in error.details.get("errors", ())
        if str(fault.get("pointer", "")).startswith(prefix)
    }


def _decided(review: ReviewView, decider: str, policy: Policy) -> str:
    if review.state == "cancelled":
        return "No longer needed: the run has ended."
    if review.decided_at is None:
        return ""
    when = local_time(review.decided_at, policy.timezone)
    return f"{(review.verdict or '').capitalize()} by {decider or 'a colleague'}, {when}"


def facts(evidence: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Evidence as labelled values, in its own order; what is empty is left out."""
    leaves = [(path, value) for path, value in _leaves(evidence, ()) if path[-1] != "reasons"]
    names = [path[-1] for path, _ in leaves]
    found = []
    for path, value in leaves:
        parts = path[-2:] if names.count(path[-1]) > 1 else path[-1:]
        label = " ".join(part.replace("_", " ") for part in parts).removesuffix(" usd").strip()
        found.append((label[:1].upper() + label[1:], _shown(path[-1], value)))
    return found


def fact(label: str, value: str) -> dict[str, Any]:
    """One labelled value of a card."""
    return {"label": label, "value": value, "wide": len(value) > WIDE_VALUE}


def _leaves(value: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _leaves(inner, (*path, str(key)))
        elif inner not in (None, "", [], {}):
            yield (*path, str(key)), inner


def _shown(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        if name.endswith("_usd"):
            return f"${value:,.2f}"
        if isinstance(value, float) and ("share" in name or "confidence" in name):
            return f"{value:.0%}" if value >= 0.01 or value == 0 else f"{value:.2%}"
        return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
    if isinstance(value, list):
        return "; ".join(_shown(name, inner) for inner in value)
    return str(value)


# Words --------------------------------------------------------------------------------------------------


def local_time(moment: datetime, timezone: str) -> str:
    """A time in the organisation's zone, e.g. ``Mon 5 Jan, 14:03``."""
    local = moment.astimezone(ZoneInfo(timezone))
    return f"{local:%a} {local.day} {local:%b, %H:%M}"


def duration(seconds: float) -> str:
    """A waiting time for people: ``40 seconds``, ``5 minutes``, ``3 hours``."""
    for size, noun in ((3600, "hour"), (60, "minute")):
        if seconds >= 2 * size or (seconds >= size and noun == "hour"):
            return plural(round(seconds / size), noun)
    return plural(max(1, round(seconds)), "second")


def error_in_words(error: BailiwickError) -> str:
    """What went wrong with a message, and what to do about it."""
    match error:
        case Unauthenticated():
            return f"{error.message} [Log in](/login) to go on; what you wrote above is kept."
        case BudgetExceeded():
            return f"{error.message} I cannot use the model until your operator raises the budget or the month ends."
        case QuotaExceeded():
            return f"{error.message} {_again(error)}Your operator can raise the quota."
        case NoModelEndpoint():
            return (
                "No model endpoint that your organisation may use answers at the moment. Nothing was sent "
                f"anywhere else. {_again(error)}"
            ).strip()
        case RateLimited() | Overloaded() | Unavailable():
            return f"{_what(error)} Send your message again {_when(error)}."
        case _:
            return error.message


def refusal_in_words(error: BailiwickError) -> str:
    """What went wrong with a button of a card, and what to do about it; plain text, for what is said in passing."""
    match error:
        case RateLimited() | Overloaded() | Unavailable():
            return f"{_what(error)} Try again {_when(error)}."
        case QuotaExceeded():
            return error_in_words(error)
        case _:
            return error.message


def _what(error: BailiwickError) -> str:
    """What happened. What says that a part is gone is written for operators: with addresses, and words of the part."""
    return "A part that is needed here does not answer." if isinstance(error, Unavailable) else error.message


def _again(error: BailiwickError) -> str:
    return f"Try again {_when(error)}. " if error.retry_after_s else ""


def _when(error: BailiwickError) -> str:
    return f"in {duration(error.retry_after_s)}" if error.retry_after_s else "in a moment"


def pretty_json(text: str) -> str:
    """JSON indented for reading; anything else as it is."""
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text

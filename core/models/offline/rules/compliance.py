"""Assesses a loan application from its credit report: approve, decline, or a person should look.

A finding is certain (confidence of 0.9 or more) when all signals point one way, and uncertain when they
contradict each other or there are too few. Reasons are few, stable texts, so that they can be counted.
Protected attributes decide nothing: dependents, sex, origin and marital status are not read, and an age is
only checked for being possible at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_REPORTS = ("reports", "derogatory_reports", "major_derogatory_reports", "derogatories", "derogatory_marks")
_INCOME = ("yearly_income_usd", "annual_income_usd", "income_usd", "annual_income", "yearly_income", "income")
_ACCOUNTS = ("active_accounts", "active_credit_accounts", "open_accounts", "active")
_CARDS = ("majorcards", "major_cards", "major_credit_cards", "major_cards_held")
_MONTHS = ("months_at_address", "address_months", "months")
_SCORE = ("credit_score", "score")
_MINIMUM = ("minimum_score", "min_score", "minimum_credit_score", "score_threshold")
_AGE = ("age_years", "age")
_IDENTITY = ("identity_verified", "identity_confirmed", "verified", "is_verified", "match")

_POLICY = re.compile(
    r"never\s+approve\s+(?:\w+\s+){0,4}?(?:below|under)\s+(?:a\s+)?(?:\w+\s+){0,3}?(\d{3})\b|"
    r"minimum\s+(?:credit\s+)?score\s+(?:is|of|:)\s*(\d{3})\b|(?:decline|refuse|reject)\s+(?:\w+\s+){0,4}?(?:below|under)\s+(\d{3})\b",
    re.IGNORECASE,
)
_GOOD_INCOME_USD = 30_000.0
_MAX_REPORTS = 2
_SETTLED_MONTHS = 12


@dataclass(frozen=True, slots=True)
class Finding:
    """What the assessment says; ``outcome`` is approve, decline or review."""

    outcome: str
    confidence: float
    reasons: tuple[str, ...]

    def words(self) -> tuple[str, ...]:
        """Names other schemas use for the same outcome, in order of preference."""
        return {
            "approve": ("approve", "clear", "pass", "compliant", "accept", "ok"),
            "decline": ("decline", "concern", "reject", "fail", "refuse", "deny", "concern", "violation"),
            "review": ("review", "refer", "uncertain", "unsure", "unclear", "escalate", "manual", "decline"),
        }[self.outcome]


def assess(data: Mapping[str, Any], instructions: str = "") -> Finding:
    """Weigh a credit report and an identity check; policies may be in the data or the instructions."""
    facts = _flat(data)
    for rule in (_by_policy, _by_identity, _by_screening, _by_reports, _by_score):
        if finding := rule(facts, f"{instructions}\n{data}"):
            return finding
    return Finding("review", 0.5, ("The credit report holds too little to decide on.",))


def _by_policy(facts: Mapping[str, Any], text: str) -> Finding | None:
    score = _number(facts, _SCORE)
    named = [int(next(group for group in found.groups() if group)) for found in _POLICY.finditer(text)]
    stated = _number(facts, _MINIMUM)
    minimum = max([*named, *([stated] if stated is not None else [])], default=None)
    if score is None or minimum is None or score >= minimum:
        return None
    return Finding("decline", 0.98, (f"The credit score is below {minimum:.0f}.",))


def _by_identity(facts: Mapping[str, Any], _text: str) -> Finding | None:
    if any(facts.get(name) is False for name in _IDENTITY):
        return Finding("review", 0.6, ("The identity could not be verified.",))
    age = _number(facts, _AGE)
    if age is not None and not 18 <= age <= 120:
        return Finding("review", 0.55, ("The stated age is not possible for an applicant; the data must be checked.",))
    return None


def _by_screening(facts: Mapping[str, Any], _text: str) -> Finding | None:
    flags = facts.get("flags")
    if not isinstance(flags, list) or not flags:
        return None
    named = ", ".join(sorted(str(flag).replace("_", " ") for flag in flags[:5]))
    return Finding("review", 0.7, (f"The screening found: {named}.",))


def _by_reports(facts: Mapping[str, Any], _text: str) -> Finding | None:
    reports = _number(facts, _REPORTS)
    if reports is None:
        return None
    income = _income_usd(facts)
    if reports > _MAX_REPORTS:
        return Finding("decline", 0.97, ("The credit report holds more than two major derogatory reports.",))
    if reports and income is not None and income >= _GOOD_INCOME_USD:
        return Finding("review", 0.65, ("Major derogatory reports contradict a good income.",))
    if reports:
        return Finding("decline", 0.93, ("Major derogatory reports, and no good income to outweigh them.",))
    if _thin(facts):
        return Finding("review", 0.75, ("The credit history is too thin to judge.",))
    return Finding("approve", 0.96, ("No major derogatory report and a sufficient credit history.",))


def _thin(facts: Mapping[str, Any]) -> bool:
    """No active account, and neither a major card nor a settled address."""
    accounts, cards, months = (_number(facts, names) for names in (_ACCOUNTS, _CARDS, _MONTHS))
    return accounts == 0 and (cards == 0 or (months is not None and months < _SETTLED_MONTHS))


def _by_score(facts: Mapping[str, Any], _text: str) -> Finding | None:
    score = _number(facts, _SCORE)
    if score is None:
        return None
    if score < 580:
        return Finding("decline", 0.95, ("The credit score is poor.",))
    if score < 640:
        return Finding("review", 0.7, ("The credit score is neither good nor poor.",))
    return Finding("approve", 0.95, ("The credit score is good.",))


def _flat(data: Any) -> dict[str, Any]:
    """Every value that is no object by its lower-case name, wherever it is nested; outer ones win."""
    found: dict[str, Any] = {}
    level = [data]
    while level:
        for node in level:
            for key, value in node.items():
                if not isinstance(value, Mapping):
                    found.setdefault(str(key).lower(), value)
        level = [child for node in level for child in node.values() if isinstance(child, Mapping)]
    return found


def _number(facts: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    for name in names:
        value = facts.get(name)
        if isinstance(value, bool) or value is None:
            continue
        try:
            return float(value)
        except (TypeError, ValueError):
            continue
    return None


def _income_usd(facts: Mapping[str, Any]) -> float | None:
    """Yearly income in USD; a figure below 1,000 is in units of 10,000, as in the public data set."""
    income = _number(facts, _INCOME)
    return income * 10_000 if income is not None and income < 1_000 else income

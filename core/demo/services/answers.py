"""What the services answer: pure rules, explainable, the same for the same question.

Each request holds only what its service needs. Age reaches the identity check alone; the bureau and the
compliance service get nothing that says who the applicant is.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

LEGAL_AGE = 18
OLDEST_AGE = 110
BASE_SCORE, LOWEST_SCORE, HIGHEST_SCORE = 680, 300, 850


class Question(BaseModel):
    """A request. ``reference`` is the caller's own name of the case, shown in its books and ours."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    reference: str = Field(min_length=1, max_length=200)
    application_id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")

    @abstractmethod
    def answer(self) -> dict[str, Any]:
        """The answer, ready for JSON."""


class IdentityQuestion(Question):
    """Is the applicant a real adult?"""

    age: float = Field(ge=0, le=150)

    def answer(self) -> dict[str, Any]:
        """``verified``, and what speaks against it."""
        concerns = []
        if self.age < LEGAL_AGE:
            concerns.append(f"The stated age is below {LEGAL_AGE}.")
        if self.age > OLDEST_AGE:
            concerns.append("The stated age is not plausible.")
        return {"verified": not concerns, "concerns": concerns}


class BureauQuestion(Question):
    """How good is the credit history?"""

    derogatory_reports: int = Field(ge=0, le=1_000)
    active_accounts: int = Field(ge=0, le=10_000)
    yearly_income_usd: float = Field(ge=0)
    spending_share: float = Field(ge=0)
    months_at_address: int = Field(ge=0)

    def answer(self) -> dict[str, Any]:
        """A score, and the parts that moved it, the strongest first."""
        parts = {
            "major derogatory reports": -min(300, 70 * self.derogatory_reports),
            "card spending": -min(150, round(250 * self.spending_share)),
            "yearly income": min(60, round(self.yearly_income_usd / 10_000 * 12)),
            "time at the address": min(40, round(self.months_at_address / 3)),
            "active accounts": _account_points(self.active_accounts),
        }
        strongest = sorted((name for name in parts if parts[name]), key=lambda name: (-abs(parts[name]), name))
        return {
            "score": max(LOWEST_SCORE, min(HIGHEST_SCORE, BASE_SCORE + sum(parts.values()))),
            "derogatory_reports": self.derogatory_reports,
            "active_accounts": self.active_accounts,
            "factors": [f"{name} {parts[name]:+d}" for name in strongest],
        }


def _account_points(accounts: int) -> int:
    """None says nothing about the applicant, a few prove experience, very many are a strain."""
    if accounts == 0:
        return -40
    return min(30, 3 * accounts) if accounts <= 20 else -20


class ScreeningQuestion(Question):
    """Does the application look suspicious?"""

    monthly_spending_usd: float = Field(ge=0)
    yearly_income_usd: float = Field(ge=0)
    spending_share: float = Field(ge=0)
    active_accounts: int = Field(ge=0)
    major_cards: int = Field(ge=0)
    months_at_address: int = Field(ge=0)

    def answer(self) -> dict[str, Any]:
        """The names of all patterns that apply."""
        spent = 12 * self.monthly_spending_usd
        patterns = {
            # The stated share must follow from the stated amounts; the public data differ by 0.3 % at most.
            "figures_disagree": abs(spent - self.spending_share * self.yearly_income_usd)
            > 0.01 * max(self.yearly_income_usd, 1.0),
            "spends_half_of_income": self.spending_share > 0.5,
            "no_credit_history": self.active_accounts == 0 and self.major_cards == 0,
            "very_many_accounts": self.active_accounts > 25,
            "new_at_address": self.months_at_address == 0,
        }
        return {"flags": [name for name, applies in patterns.items() if applies]}


class DecisionRecord(Question):
    """A decision to be kept in the book."""

    verdict: str = Field(pattern="^(approve|decline)$")
    reasons: tuple[str, ...] = Field(max_length=20)
    score: int = Field(ge=LOWEST_SCORE, le=HIGHEST_SCORE)
    decided_by: str = Field(min_length=1, max_length=200)

    def answer(self) -> dict[str, Any]:
        """That it is kept."""
        return {"recorded": True}

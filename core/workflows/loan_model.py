"""Values of the loan workflows: what an applicant sends, what each step finds, what is decided.

Columns are those of the public credit-card data set. Three of them need care:

- ``card`` is the historical outcome. It is not a field here, so no step can see it.
- ``expenditure`` and ``share`` were measured on cardholders, so they echo the outcome: they are zero, or
  nearly, for whoever was refused. They are used as a burden only (more spending never helps), which is the
  direction that cannot copy the old decision.
- ``age`` and ``dependents`` are protected. ``age`` reaches the identity check, which answers with yes or no;
  ``dependents`` reaches nothing. Neither is in what the bureau, the compliance agent or the reviewer get.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

MAX_YEARS = 150


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LoanApplication(_Value):
    """One application, as the applicant sends it."""

    application_id: str = Field(
        "-",
        validation_alias=AliasChoices("application_id", "rownames"),
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="The sender's own number of the application; a dash: it has none.",
    )
    reports: int = Field(ge=0, le=1_000, description="Major derogatory reports.")
    age: float = Field(ge=0, le=MAX_YEARS, description="Years; protected, seen by the identity check only.")
    income: float = Field(ge=0, le=1_000_000, description="Yearly income in units of 10,000 USD.")
    share: float = Field(ge=0, le=1_000, description="Card spending of a year divided by yearly income.")
    expenditure: float = Field(ge=0, le=100_000_000, description="Mean card spending of a month, in USD.")
    owner: bool = Field(description="Owns a home.")
    selfemp: bool = Field(description="Is self-employed.")
    dependents: int = Field(ge=0, le=100, description="People who depend on the applicant; protected, never used.")
    months: int = Field(ge=0, le=12 * MAX_YEARS, description="Months at the current address.")
    majorcards: int = Field(ge=0, le=1_000, description="Major credit cards held.")
    active: int = Field(ge=0, le=10_000, description="Active credit accounts.")

    @property
    def yearly_income_usd(self) -> float:
        """Income in USD, to the cent."""
        return round(self.income * 10_000, 2)


class IdentityCheck(_Value):
    """Whether the applicant is a real adult. Says nothing about which age."""

    verified: bool
    concerns: tuple[str, ...] = ()


class BureauReport(_Value):
    """The credit bureau's answer."""

    score: int = Field(ge=300, le=850)
    derogatory_reports: int = Field(ge=0)
    active_accounts: int = Field(ge=0)
    factors: tuple[str, ...] = Field(description="What moved the score, the strongest first.")


class Screening(_Value):
    """The compliance service's answer: names of the patterns it found."""

    flags: tuple[str, ...]


class ComplianceCase(_Value):
    """All that the compliance agent and the reviewer are shown. No protected attribute is in it."""

    identity: IdentityCheck
    report: BureauReport
    screening: Screening
    yearly_income_usd: float
    spending_share: float
    months_at_address: int
    major_cards: int
    home_owner: bool
    self_employed: bool


class Outcome(StrEnum):
    """What a compliance finding amounts to."""

    CLEAR = "clear"
    CONCERN = "concern"
    UNCERTAIN = "uncertain"


class ComplianceFinding(BaseModel):
    """The compliance agent's answer."""

    model_config = ConfigDict(frozen=True)

    outcome: Outcome
    confidence: Annotated[float, Field(ge=0, le=1)]
    reasons: tuple[str, ...] = Field(description="Plain sentences, the most important first.")


class ReviewEvidence(_Value):
    """What a reviewer decides on."""

    application_id: str
    question: str
    case: ComplianceCase
    finding: ComplianceFinding


class Decision(_Value):
    """How an application ended. ``reasons`` of a refusal are never empty."""

    application_id: str
    verdict: Literal["approve", "decline"]
    reasons: tuple[str, ...]
    score: int
    decided_by: str = Field(description="rules, or the reviewer as the audit names them.")
    comment: str = ""

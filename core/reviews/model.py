"""Reviews: a human decision that a run asks for, and every rule about it. Pure: a ``Case`` in, a ``Case`` out.

``open`` → ``decided`` (enough votes) | ``expired`` (nobody decided, and the run is to fail) | ``cancelled`` (nothing
needs the answer any more, see core/db/migrations/0005_reviews.sql); final once. While it is open:

- A **claim** is a lease (``LEASE_S``) on one of the review's seats, seen by colleagues: it keeps others from doing
  the same work. When it ends the seat is free again, so no case is lost with whoever claimed it.
- A **vote** takes a seat for good. A review has ``of`` seats; the verdict that gets ``needed`` votes wins. When no
  verdict can get them any more, ``fallback`` is the verdict.
- **Delegation** gives one's seat to a named colleague until the review is due, at least for a lease.
- At ``next_at`` nobody has decided: the review **escalates** to the next level of its chain, which frees all claims;
  after the last level it **expires**.
- One person is one voice, in whatever way they come in: an API key counts as the person who made it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Any

from core.errors import Conflict, Forbidden, InvalidInput
from core.ids import ReviewId, RunId
from core.tenancy import ROLE_SCOPES, Role, Scope, Tier

MAX_COMMENT = 4_000
MAX_SEATS = 20
MAX_LEVELS = 10
LEASE_S = 30 * 60


class Priority(IntEnum):
    """Class of a review among those of all tenants: that of its tenant's tier when it was asked; less comes first."""

    ENTERPRISE = 0
    STANDARD = 1
    FREE = 2


class ReviewState(StrEnum):
    """Where a review stands."""

    OPEN = "open"
    DECIDED = "decided"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class OnExpiry(StrEnum):
    """What happens when the last level has not decided in time."""

    NOTHING = "nothing"
    FAIL = "fail"
    DECIDE = "decide"


@dataclass(frozen=True, slots=True)
class Level:
    """Whom to ask after an SLA breach, and for how many seconds. ``role``: only who has it may decide then."""

    pool: str
    sla_s: float
    role: Role | None = None


@dataclass(frozen=True, slots=True)
class Expiry:
    """What to do when the time of the last level is up: nothing, fail the run's step, or decide on ``verdict``."""

    action: OnExpiry = OnExpiry.NOTHING
    verdict: str | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """How a review is decided. The default: one person, no escalation, no expiry, no form.

    ``needed`` votes of ``of`` (at most 20) decide. ``fallback``: the verdict when none can get so many any more; None:
    the last of the choices. ``chain``: at most 10 levels after the first SLA. ``form``: a JSON schema, see
    ``core.reviews.form``.
    """

    needed: int = 1
    of: int = 1
    fallback: str | None = None
    role: Role | None = None
    chain: tuple[Level, ...] = ()
    expiry: Expiry = Expiry()
    form: dict[str, Any] | None = None


ONE_PERSON = Terms()


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody's lease on a seat. ``given_by``: who delegated it to them."""

    by: str
    until: datetime
    given_by: str | None = None


@dataclass(frozen=True, slots=True)
class Vote:
    """What one person decided."""

    by: str
    verdict: str
    comment: str
    at: datetime
    answer: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """Everything that decides what may happen to a review, and what happened to it."""

    choices: tuple[str, ...]
    terms: Terms
    pool: str
    role: Role | None
    due_at: datetime
    next_at: datetime | None
    state: ReviewState = ReviewState.OPEN
    level: int = 0
    claims: tuple[Claim, ...] = ()
    votes: tuple[Vote, ...] = ()
    verdict: str | None = None
    comment: str | None = None
    answer: dict[str, Any] | None = None
    decided_by: str | None = None
    decided_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ReviewView:
    """A review as its reviewers see it. ``claims`` stand now; ``tenant_name`` is told in shared pools."""

    review_id: ReviewId
    run_id: RunId
    pool: str
    title: str
    evidence: dict[str, Any]
    choices: list[str]
    state: str
    verdict: str | None
    comment: str | None
    decided_by: str | None
    created_at: datetime
    due_at: datetime
    decided_at: datetime | None
    thread_id: str | None
    role: str | None = None
    shared: bool = True
    priority: Priority = Priority.FREE
    needed: int = 1
    of: int = 1
    level: int = 0
    next_at: datetime | None = None
    form: dict[str, Any] | None = None
    answer: dict[str, Any] | None = None
    claims: list[Claim] = field(default_factory=list)
    votes: list[Vote] = field(default_factory=list)
    tenant_name: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision, as the run receives it. ``answer``: the form, filled in."""

    verdict: str
    comment: str
    decided_by: str
    answer: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Decider:
    """Who acts. ``person`` is one name for all the ways in which a person comes in."""

    actor: str
    person: str
    scopes: frozenset[Scope]


@dataclass(frozen=True, slots=True)
class Asker:
    """Who is behind the run: they may not decide."""

    persons: frozenset[str]


@dataclass(frozen=True, slots=True)
class BulkResult:
    """What became of one case of a bulk decision: ``decided``, ``voted`` (more are needed), or the code of an error."""

    review_id: str
    outcome: str
    message: str = ""


def priority_of(tier: Tier) -> Priority:
    """The class of a tier's reviews."""
    return Priority[tier.name]


def check_terms(choices: Sequence[str], terms: Terms) -> None:
    """Raise ``InvalidInput`` for a review that could not be decided as it says."""
    faults = {
        "A review offers at least one choice, and none twice.": not choices or len(set(choices)) < len(choices),
        f"Of 1 to {MAX_SEATS} votes, some are needed.": not 1 <= terms.needed <= terms.of <= MAX_SEATS,
        "The fallback is one of the choices.": terms.fallback is not None and terms.fallback not in choices,
        f"At most {MAX_LEVELS} levels.": len(terms.chain) > MAX_LEVELS,
        "A level has more than 0 seconds.": any(level.sla_s <= 0 for level in terms.chain),
        "The verdict at expiry is one of the choices.": (terms.expiry.action is OnExpiry.DECIDE)
        != (terms.expiry.verdict in choices),
    }
    for message, wrong in faults.items():
        if wrong:
            raise InvalidInput(message)


def check_decision(choices: Sequence[str], verdict: str, comment: str) -> None:
    """Raise ``InvalidInput`` for a verdict that was not offered or an over-long comment."""
    if verdict not in choices:
        raise InvalidInput(f"Choose one of: {', '.join(choices)}.", field="verdict", choices=list(choices))
    if len(comment) > MAX_COMMENT:
        raise InvalidInput(f"A comment has at most {MAX_COMMENT} characters.", field="comment")


def check_decider(case: Case, who: Decider, asker: Asker) -> None:
    """Raise ``Forbidden`` for whoever is behind the run, and without the role that the level asks for."""
    if asker.persons & {who.actor, who.person}:
        raise Forbidden("Nobody decides about a run they submitted themselves.")
    if case.role is not None and not ROLE_SCOPES[case.role] <= who.scopes:
        raise Forbidden(f"This review is for the role {case.role.value}.", role=case.role.value)


def standing(claims: Sequence[Claim], now: datetime) -> tuple[Claim, ...]:
    """The claims that have not ended."""
    return tuple(claim for claim in claims if claim.until > now)


def claim(case: Case, who: str, now: datetime) -> Case:
    """Take a seat, or keep one's own for longer. Raises ``Conflict`` when there is none."""
    others = _seat(case, who, now)
    until = now + timedelta(seconds=LEASE_S)
    own = [held for held in standing(case.claims, now) if held.by == who]
    kept = replace(own[0], until=max(until, own[0].until)) if own else Claim(who, until)
    return replace(case, claims=(*others, kept))


def release(case: Case, who: str, now: datetime, *, everybody: bool = False) -> Case:
    """Give one's seat back; nothing when one has none. ``everybody``: all claims end."""
    _check_open(case)
    kept = () if everybody else tuple(held for held in standing(case.claims, now) if held.by != who)
    return replace(case, claims=kept)


def delegate(case: Case, who: str, colleague: str, now: datetime) -> Case:
    """Give one's seat, or a free one, to a colleague. Raises ``Conflict`` when there is none or they have voted."""
    if who == colleague:
        raise InvalidInput("Delegate to somebody else.", field="user_id")
    others = _seat(case, who, now)
    if any(vote.by == colleague for vote in case.votes):
        raise Conflict("They have voted on this review before.")
    until = max(case.due_at, now + timedelta(seconds=LEASE_S))
    return replace(case, claims=(*(held for held in others if held.by != colleague), Claim(colleague, until, who)))


def vote(case: Case, who: Decider, cast: Vote, now: datetime) -> Case:
    """One more vote, and the decision when it is enough. Raises ``Conflict``: not open, voted before, no seat."""
    others = _seat(case, who.person, now)
    votes = (*case.votes, cast)
    verdict = outcome(case.choices, case.terms, [one.verdict for one in votes])
    if verdict is None:
        return replace(case, claims=others, votes=votes)
    answers = [one.answer for one in votes if one.verdict == verdict]
    return replace(
        case,
        state=ReviewState.DECIDED,
        claims=(),
        votes=votes,
        verdict=verdict,
        comment=cast.comment,
        answer=answers[-1] if answers else None,
        decided_by=who.actor,
        decided_at=now,
        next_at=None,
    )


def outcome(choices: Sequence[str], terms: Terms, votes: Sequence[str]) -> str | None:
    """The verdict that these votes make; None: more are needed."""
    counted = Counter(votes)
    for verdict in choices:
        if counted[verdict] >= terms.needed:
            return verdict
    left = terms.of - len(votes)
    if any(counted[verdict] + left >= terms.needed for verdict in choices):
        return None
    return terms.fallback or choices[-1]


def breach(case: Case, by: str, now: datetime) -> Case:
    """What becomes of a review that nobody has decided by ``next_at``; the same case before that."""
    if case.state is not ReviewState.OPEN or case.next_at is None or now < case.next_at:
        return case
    if case.level < len(case.terms.chain):
        level = case.terms.chain[case.level]
        return replace(
            case,
            level=case.level + 1,
            pool=level.pool,
            role=level.role or case.role,
            claims=(),
            # From now, not from the breach: a level has its whole time, also when the scheduler was down.
            next_at=now + timedelta(seconds=level.sla_s),
        )
    expiry = case.terms.expiry
    if expiry.action is OnExpiry.NOTHING:
        return replace(case, next_at=None)
    state = ReviewState.EXPIRED if expiry.action is OnExpiry.FAIL else ReviewState.DECIDED
    comment = "Nobody decided in time."
    return replace(
        case,
        state=state,
        claims=(),
        verdict=expiry.verdict,
        comment=comment,
        decided_by=by,
        decided_at=now,
        next_at=None,
    )


def next_for(reviews: Sequence[ReviewView], who: str, now: datetime) -> list[ReviewView]:
    """Open reviews as one person should look at them: first what they have claimed or were given, then what has a
    free seat, the most urgent first. What they voted on, and what colleagues work on, is left out."""
    own, free = [], []
    for review in reviews:
        others = [held.by for held in standing(review.claims, now) if held.by != who]
        if any(vote.by == who for vote in review.votes):
            continue
        if any(held.by == who for held in standing(review.claims, now)):
            own.append(review)
        elif len(others) + len(review.votes) < review.of:
            free.append(review)
    return own + free


def _check_open(case: Case) -> None:
    if case.state is not ReviewState.OPEN:
        raise Conflict(
            f"This review was {case.state} before.",
            state=case.state.value,
            decided_by=case.decided_by,
            verdict=case.verdict,
        )


def _seat(case: Case, who: str, now: datetime) -> tuple[Claim, ...]:
    """Others' claims that stand. Raises ``Conflict`` when there is no seat for this person."""
    _check_open(case)
    if any(cast.by == who for cast in case.votes):
        raise Conflict("You have voted on this review before.")
    others = tuple(held for held in standing(case.claims, now) if held.by != who)
    own = len(others) < len(standing(case.claims, now))
    if not own and others and len(others) + len(case.votes) >= case.terms.of:
        first = min(others, key=lambda held: held.until)
        raise Conflict("A colleague works on this review.", claimed_by=first.by, claimed_until=first.until.isoformat())
    return others

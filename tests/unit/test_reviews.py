"""The rules of reviews, held against a model that remembers only who did what when."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pydantic import BaseModel
from pydantic import Field as Given

from core.errors import Conflict, Forbidden, InvalidInput
from core.reviews import model
from core.reviews.form import check_answer, fields, schema_of
from core.reviews.model import (
    LEASE_S,
    Asker,
    Case,
    Decider,
    Expiry,
    Level,
    OnExpiry,
    ReviewState,
    Terms,
    Vote,
    check_decider,
    check_terms,
    outcome,
    standing,
)
from core.tenancy import ROLE_SCOPES, Role

PEOPLE = ("ann", "bob", "cleo", "dan")
CHOICES = ("approve", "decline")
NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
SLA_S = 3_600.0

people = st.sampled_from(PEOPLE)
terms_of = st.builds(
    lambda of, needed, chain, expiry: Terms(needed=min(needed, of), of=of, chain=chain, expiry=expiry),
    st.integers(1, 3),
    st.integers(1, 3),
    st.lists(st.builds(Level, st.sampled_from(["seniors", "board"]), st.just(1_800.0)), max_size=2).map(tuple),
    st.sampled_from([Expiry(), Expiry(OnExpiry.FAIL), Expiry(OnExpiry.DECIDE, "decline")]),
)


@dataclass(slots=True)
class Known:
    """What an onlooker remembers."""

    votes: dict[str, str] = field(default_factory=dict)
    leases: dict[str, datetime] = field(default_factory=dict)
    escalated: int = 0
    closed: bool = False


class AnyOrder(RuleBasedStateMachine):
    """Everything that can happen to a review, in any order."""

    @initialize(terms=terms_of)
    def ask(self, terms: Terms) -> None:
        check_terms(CHOICES, terms)
        self.now = NOON
        due_at = NOON + timedelta(seconds=SLA_S)
        self.case = Case(choices=CHOICES, terms=terms, pool="general", role=None, due_at=due_at, next_at=due_at)
        self.known = Known()

    def _seat(self, who: str) -> bool:
        """Whether the onlooker thinks that this person may sit down."""
        if self.known.closed or who in self.known.votes:
            return False
        leases = {name for name, until in self.known.leases.items() if until > self.now}
        return who in leases or len(leases - {who}) + len(self.known.votes) < self.case.terms.of

    @rule(seconds=st.sampled_from([1, 600, LEASE_S, 1_800]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(who=people)
    def claim(self, who: str) -> None:
        if not self._seat(who):
            with pytest.raises(Conflict):
                model.claim(self.case, who, self.now)
            return
        self.case = model.claim(self.case, who, self.now)
        kept = self.known.leases.get(who, self.now)
        self.known.leases[who] = max(kept, self.now + timedelta(seconds=LEASE_S))

    @rule(who=people)
    @precondition(lambda self: not self.known.closed)
    def release(self, who: str) -> None:
        self.case = model.release(self.case, who, self.now)
        self.known.leases.pop(who, None)

    @rule(who=people, to=people)
    def delegate(self, who: str, to: str) -> None:
        if who == to:
            return
        if not self._seat(who) or to in self.known.votes:
            with pytest.raises(Conflict):
                model.delegate(self.case, who, to, self.now)
            return
        self.case = model.delegate(self.case, who, to, self.now)
        self.known.leases.pop(who, None)
        self.known.leases[to] = max(self.case.due_at, self.now + timedelta(seconds=LEASE_S))

    @rule(who=people, verdict=st.sampled_from(CHOICES))
    def vote(self, who: str, verdict: str) -> None:
        decider = Decider(f"user:{who}", who, ROLE_SCOPES[Role.REVIEWER])
        cast = Vote(who, verdict, "", self.now)
        if not self._seat(who):
            with pytest.raises(Conflict):
                model.vote(self.case, decider, cast, self.now)
            return
        self.case = model.vote(self.case, decider, cast, self.now)
        self.known.votes[who] = verdict
        self.known.leases.pop(who, None)
        most = max(Counter(self.known.votes.values()).values())
        left = self.case.terms.of - len(self.known.votes)
        self.known.closed = most >= self.case.terms.needed or most + left < self.case.terms.needed
        if self.known.closed:
            assert self.case.decided_by == f"user:{who}"

    @rule()
    def time_is_looked_at(self) -> None:
        before = self.case
        self.case = model.breach(self.case, "scheduler:reviews", self.now)
        if self.known.closed or before.next_at is None or self.now < before.next_at:
            assert self.case is before
        elif self.known.escalated < len(before.terms.chain):
            self.known.escalated += 1
            self.known.leases.clear()
            assert self.case.next_at == self.now + timedelta(seconds=1_800)
        else:
            self.known.closed = before.terms.expiry.action is not OnExpiry.NOTHING

    @invariant()
    def it_is_as_the_onlooker_thinks(self) -> None:
        case, known = self.case, self.known
        assert (case.state is ReviewState.OPEN) != known.closed
        assert {vote.by: vote.verdict for vote in case.votes} == known.votes
        assert len(case.votes) <= case.terms.of
        assert case.level == known.escalated
        if known.closed:
            assert (case.claims, case.next_at) == ((), None)
            assert (case.verdict is None) == (case.state is ReviewState.EXPIRED)
        else:
            leases = {name for name, until in known.leases.items() if until > self.now}
            assert {claim.by for claim in standing(case.claims, self.now)} == leases
            assert len(leases) + len(case.votes) <= case.terms.of
            assert case.verdict is None

    @invariant()
    def it_can_always_still_be_decided(self) -> None:
        if self.known.closed:
            return
        free = self.now + timedelta(seconds=max(SLA_S, LEASE_S) + SLA_S)
        fresh = Decider("user:eve", "eve", ROLE_SCOPES[Role.REVIEWER])
        later = max([free, *self.known.leases.values()])
        voted = model.vote(self.case, fresh, Vote("eve", "approve", "", later), later)
        assert len(voted.votes) == len(self.case.votes) + 1


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=200, stateful_step_count=25, deadline=None)


@pytest.mark.parametrize(
    ("needed", "of", "votes", "verdict"),
    [
        (1, 1, ["decline"], "decline"),
        (2, 3, ["approve"], None),
        (2, 3, ["approve", "decline"], None),
        (2, 3, ["approve", "decline", "approve"], "approve"),
        (2, 3, ["decline", "decline"], "decline"),
        (3, 3, ["approve", "decline"], "decline"),  # nobody can get three any more: the last choice, the careful one
        (2, 2, ["approve", "approve"], "approve"),
    ],
)
def test_so_many_votes_of_so_many_decide(needed: int, of: int, votes: list[str], verdict: str | None) -> None:
    assert outcome(CHOICES, Terms(needed=needed, of=of), votes) == verdict


@pytest.mark.parametrize(
    "terms",
    [
        Terms(needed=0),
        Terms(needed=2, of=1),
        Terms(of=21),
        Terms(fallback="perhaps"),
        Terms(chain=(Level("board", 0),)),
        Terms(expiry=Expiry(OnExpiry.DECIDE)),
        Terms(expiry=Expiry(OnExpiry.FAIL, "approve")),
    ],
)
def test_terms_nobody_could_fulfil_are_refused(terms: Terms) -> None:
    with pytest.raises(InvalidInput):
        check_terms(CHOICES, terms)


def test_whoever_is_behind_the_run_may_not_decide_in_whatever_way_they_come_in() -> None:
    case = Case(choices=CHOICES, terms=Terms(), pool="p", role=Role.ADMIN, due_at=NOON, next_at=NOON)
    asker = Asker(frozenset({"user:ann", "api_key:k1"}))
    admin, reviewer = ROLE_SCOPES[Role.ADMIN], ROLE_SCOPES[Role.REVIEWER]
    for actor, person in (("user:ann", "user:ann"), ("api_key:k2", "user:ann"), ("api_key:k1", "user:bob")):
        with pytest.raises(Forbidden, match="submitted themselves"):
            check_decider(case, Decider(actor, person, admin), asker)
    with pytest.raises(Forbidden, match="role admin"):
        check_decider(case, Decider("user:bob", "user:bob", reviewer), asker)
    check_decider(case, Decider("user:bob", "user:bob", admin), asker)


# Forms ----------------------------------------------------------------------------------------------------


class Purpose(StrEnum):
    """A choice."""

    HOUSE = "house"
    CAR = "car"


class Offer(BaseModel):
    """What a form can ask."""

    amount: float = Given(gt=0, le=50_000, title="Amount in USD")
    months: int = Given(ge=6, le=84)
    insured: bool = False
    starts: date | None = None
    purpose: Purpose = Purpose.CAR
    note: str | None = Given(None, max_length=10)


class Nested(BaseModel):
    """No form: it has something inside something."""

    offer: Offer


def test_a_form_is_made_from_a_model_and_knows_its_inputs() -> None:
    found = {one.name: one for one in fields(schema_of(Offer))}
    assert found.pop("starts").kind == "date"
    kinds = {name: one.kind for name, one in found.items()}
    assert kinds == {"amount": "number", "months": "integer", "insured": "boolean", "purpose": "choice", "note": "text"}
    assert (found["amount"].title, found["amount"].required, found["purpose"].choices) == (
        "Amount in USD",
        True,
        ("house", "car"),
    )
    assert found["note"].nullable
    with pytest.raises(InvalidInput):
        schema_of(Nested)


def test_a_filled_in_form_gets_its_defaults_and_fits_the_model() -> None:
    answer = check_answer(schema_of(Offer), {"amount": 1_000, "months": 12, "purpose": "house"})
    assert answer == {"amount": 1_000, "months": 12, "insured": False, "starts": None, "purpose": "house", "note": None}
    assert Offer.model_validate(answer).purpose is Purpose.HOUSE


@pytest.mark.parametrize(
    ("answer", "pointers"),
    [
        (None, ["/answer/amount", "/answer/months"]),
        ({"amount": 0, "months": 12}, ["/answer/amount"]),
        ({"amount": "1", "months": 12.5}, ["/answer/amount", "/answer/months"]),
        ({"amount": True, "months": 85}, ["/answer/amount", "/answer/months"]),
        ({"amount": 1, "months": 6, "insured": 1, "starts": "soon"}, ["/answer/insured", "/answer/starts"]),
        ({"amount": 1, "months": 6, "purpose": "boat", "note": "x" * 11}, ["/answer/purpose", "/answer/note"]),
        ({"amount": 1, "months": 6, "a/b": 1}, ["/answer/a~1b"]),
    ],
)
def test_every_fault_of_a_filled_in_form_is_named_where_it_is(
    answer: dict[str, Any] | None, pointers: list[str]
) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_answer(schema_of(Offer), answer)
    assert [fault["pointer"] for fault in refused.value.details["errors"]] == pointers

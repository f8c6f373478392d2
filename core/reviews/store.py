"""Rows of reviews."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

from core.db.pool import Row, Transaction
from core.db.queries import load_queries
from core.ids import ReviewId, RunId, TenantId
from core.reviews.model import (
    Asker,
    Case,
    Claim,
    Expiry,
    Level,
    OnExpiry,
    Priority,
    ReviewState,
    ReviewView,
    Terms,
    Verdict,
    Vote,
    standing,
)
from core.tenancy import ActorKind, Role

SQL = load_queries(__file__)
_COMPUTED = ("claims", "votes", "tenant_name")
_PLAIN = tuple(field.name for field in fields(ReviewView) if field.name not in _COMPUTED)


@dataclass(frozen=True, slots=True)
class NewReview:
    """What is asked, of whom, until when."""

    review_id: ReviewId
    run_id: str
    step: int
    pool: str
    title: str
    evidence: dict[str, Any]
    choices: Sequence[str]
    shared: bool
    priority: Priority
    terms: Terms
    now: datetime
    due_at: datetime


@dataclass(frozen=True, slots=True)
class Locked:
    """A review that only this transaction may change."""

    review_id: ReviewId
    run_id: RunId
    step: int
    case: Case


async def request(tx: Transaction, new: NewReview, *, anew: bool) -> ReviewId | None:
    """The review that is open now; None when the run has asked at this step before."""
    terms = new.terms
    opened = await tx.fetchval(
        SQL["request"],
        new.review_id,
        new.run_id,
        new.step,
        new.pool,
        terms.role,
        new.shared,
        int(new.priority),
        new.title,
        new.evidence,
        list(new.choices),
        terms.form,
        terms.needed,
        terms.of,
        terms.fallback,
        [{"pool": level.pool, "sla_s": level.sla_s, "role": level.role} for level in terms.chain],
        anew,
        terms.expiry.action.value,
        terms.expiry.verdict,
        new.now,
        new.due_at,
    )
    return None if opened is None else ReviewId(opened)


async def used(tx: Transaction, run_id: str, step: int) -> None:
    """The decision at a step was acted on: the next request there asks anew."""
    await tx.execute(SQL["used"], run_id, step)


async def answered(tx: Transaction, run_id: str, step: int) -> tuple[ReviewState | None, Verdict | None]:
    """Where the review stands and its decision; it is locked, so none can slip in before the wait is armed."""
    row = await tx.fetchrow(SQL["by_step"], run_id, step)
    if row is None:
        return None, None
    if row["verdict"] is None:
        return ReviewState(row["state"]), None
    verdict = Verdict(row["verdict"], row["comment"] or "", row["decided_by"], row["answer"])
    return ReviewState(row["state"]), verdict


def _view(row: Row, now: datetime) -> ReviewView:
    plain = {name: row[name] for name in _PLAIN} | {"priority": Priority(row["priority"])}
    return ReviewView(**plain, claims=list(standing(_claims(row), now)), votes=list(_votes(row)))


async def open_reviews(tx: Transaction, limit: int, now: datetime) -> list[ReviewView]:
    """Open ones, the most urgent first."""
    return [_view(row, now) for row in await tx.fetch(SQL["open"], limit)]


async def shared_open(tx: Transaction, limit: int, now: datetime) -> list[ReviewView]:
    """Open cases of the shared pools; in a transaction of the platform."""
    rows = await tx.fetch(SQL["shared_open"], now, limit)
    return [replace(_view(row, now), tenant_name=row["tenant_name"]) for row in rows]


async def shared_decided(tx: Transaction, actor: str, limit: int, now: datetime) -> list[ReviewView]:
    """Cases of the shared pools that somebody decided, newest first; in a transaction of the platform."""
    rows = await tx.fetch(SQL["shared_decided"], actor, limit)
    return [replace(_view(row, now), tenant_name=row["tenant_name"]) for row in rows]


async def shared_of(tx: Transaction, review_id: str) -> TenantId | None:
    """Whose a case of a shared pool is; in a transaction of the platform. None for any other."""
    tenant_id: TenantId | None = await tx.fetchval(SQL["shared_of"], review_id)
    return tenant_id


async def recent(tx: Transaction, limit: int, now: datetime) -> list[ReviewView]:
    """Any state, newest first."""
    return [_view(row, now) for row in await tx.fetch(SQL["recent"], limit)]


async def listed(
    tx: Transaction,
    state: str | None,
    pool: str | None,
    run_id: str | None,
    due_before: datetime | None,
    limit: int,
    now: datetime,
) -> list[ReviewView]:
    """Those that fit, open ones first."""
    return [_view(row, now) for row in await tx.fetch(SQL["listed"], state, pool, run_id, due_before, limit)]


async def by_id(tx: Transaction, review_id: str, now: datetime) -> ReviewView | None:
    """One review of the tenant."""
    row = await tx.fetchrow(SQL["by_id"], review_id)
    return None if row is None else _view(row, now)


async def lock(tx: Transaction, review_id: str) -> Locked | None:
    """One review of the tenant, locked until the transaction ends."""
    row = await tx.fetchrow(SQL["lock"], review_id)
    return None if row is None else Locked(ReviewId(row["review_id"]), RunId(row["run_id"]), row["step"], _case(row))


async def asker(tx: Transaction, run_id: str) -> tuple[Asker, str | None]:
    """Who is behind a run, and its conversation."""
    row = await tx.fetchrow(SQL["asker"], run_id)
    if row is None:
        return Asker(frozenset()), None
    person = row["user_id"] and f"{ActorKind.USER}:{row['user_id']}"
    key = row["submitted_by"] if str(row["submitted_by"]).startswith(f"{ActorKind.API_KEY}:") else None
    return Asker(frozenset(name for name in (person, key, row["key_of"]) if name)), row["thread_id"]


async def key_of(tx: Transaction, key_id: str) -> str | None:
    """The actor who made an API key."""
    maker: str | None = await tx.fetchval(SQL["key_of"], key_id)
    return maker


async def colleague(tx: Transaction, user_id: str) -> list[Role] | None:
    """The roles of somebody who may log in; None: there is nobody."""
    row = await tx.fetchrow(SQL["colleague"], user_id)
    return None if row is None else [Role(role) for role in row["roles"]]


async def deciders(tx: Transaction, roles: Sequence[Role]) -> dict[str, str]:
    """Names by user id of people who have one of these roles."""
    return {row["user_id"]: row["name"] for row in await tx.fetch(SQL["deciders"], list(roles))}


async def save(tx: Transaction, review_id: str, case: Case) -> None:
    """Write what an act has made of a locked review."""
    await tx.execute(
        SQL["save"],
        review_id,
        case.state.value,
        case.pool,
        case.role,
        case.level,
        case.next_at,
        [{"by": one.by, "until": one.until.isoformat(), "given_by": one.given_by} for one in case.claims],
        [
            {
                "by": one.by,
                "verdict": one.verdict,
                "comment": one.comment,
                "at": one.at.isoformat(),
                "answer": one.answer,
            }
            for one in case.votes
        ],
        case.verdict,
        case.comment,
        case.answer,
        case.decided_by,
        case.decided_at,
    )


async def tell(tx: Transaction, run_id: str, now: datetime, data: dict[str, Any]) -> None:
    """Write the next event of the run that asked."""
    await tx.execute(SQL["tell"], run_id, now, data)


async def next_breach(tx: Transaction) -> datetime | None:
    """When the next open review of any tenant must escalate or expire."""
    moment: datetime | None = await tx.fetchval(SQL["next_breach"])
    return moment


async def due(tx: Transaction, now: datetime, limit: int) -> list[tuple[TenantId, ReviewId]]:
    """Open reviews of all tenants that must escalate or expire now."""
    return [(TenantId(row["tenant_id"]), ReviewId(row["review_id"])) for row in await tx.fetch(SQL["due"], now, limit)]


def _case(row: Row) -> Case:
    return Case(
        choices=tuple(row["choices"]),
        terms=Terms(
            needed=row["needed"],
            of=row["of"],
            fallback=row["fallback"],
            chain=tuple(
                Level(one["pool"], one["sla_s"], Role(one["role"]) if one["role"] else None) for one in row["chain"]
            ),
            expiry=Expiry(OnExpiry(row["expiry"]), row["expiry_verdict"]),
            form=row["form"],
        ),
        pool=row["pool"],
        role=Role(row["role"]) if row["role"] else None,
        due_at=row["due_at"],
        next_at=row["next_at"],
        state=ReviewState(row["state"]),
        level=row["level"],
        claims=_claims(row),
        votes=_votes(row),
        verdict=row["verdict"],
        comment=row["comment"],
        answer=row["answer"],
        decided_by=row["decided_by"],
        decided_at=row["decided_at"],
    )


def _claims(row: Row) -> tuple[Claim, ...]:
    return tuple(Claim(one["by"], datetime.fromisoformat(one["until"]), one["given_by"]) for one in row["claims"])


def _votes(row: Row) -> tuple[Vote, ...]:
    return tuple(
        Vote(one["by"], one["verdict"], one["comment"], datetime.fromisoformat(one["at"]), one["answer"])
        for one in row["votes"]
    )

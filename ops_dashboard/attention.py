"""Who is hit, and why: what an operator must see before anything else. Pure.

A tenant is hit when its people notice something: their runs do not start, end late or fail, what they submit is
refused, a case waits too long. The limits are those of the alerts (``deploy/prometheus/rules.yaml``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from core.runs.admission import SHED_AT
from core.runs.model import Cause
from ops_dashboard.data import Window
from ops_dashboard.figures import QUEUE_CAUSES
from ops_dashboard.measures import ratio
from ops_dashboard.pulse import Pulse, TenantPulse
from ops_dashboard.words import count, duration, literal, percent, plain, shares

SLOW_S = 300.0
"""A queue whose oldest run has waited for longer is slow."""

HEALTHY = 0.95
"""Share of the runs that end in time where all is well."""

FAILING, FEW = 0.05, 5
"""Runs fail when more than this share and more than this many did."""

CROWD = 100
"""Runs in the queue of the platform from which on it is told who has most of them."""

TOLD = 8
"""Tenants that are told of by name before the tables."""

_WHY: dict[Cause, Callable[[TenantPulse], str]] = {
    Cause.CAP: lambda tenant: (
        "a cap of one workflow or user in its policy holds it"
        if tenant.running < tenant.cap
        else f"it is at its cap of {count(tenant.cap)}; a higher cap or burst slots act at once"
    ),
    Cause.PAUSED: lambda _: "an operator paused it; resume it in Tenants",
    Cause.NO_WORKER: lambda _: "no worker is alive; start one",
    Cause.NO_CODE: lambda _: "no live worker has its version; deploy that, see Versions",
}


class Urgency(IntEnum):
    """What is told first."""

    STANDSTILL = 0
    REFUSED = 1
    SLOW = 2
    LATE = 3
    STUCK = 4
    FAILING = 5
    OVERDUE = 6


@dataclass(frozen=True, slots=True)
class Sign:
    """One thing that its people notice, and the reason as far as it is known."""

    urgency: Urgency
    what: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.what} – {self.why}" if self.why else self.what

    @property
    def sentence(self) -> str:
        """The same with a capital at its beginning."""
        text = str(self)
        return text[:1].upper() + text[1:]


@dataclass(frozen=True, slots=True)
class Hit:
    """A tenant with its signs, the most urgent first."""

    tenant_id: str
    name: str
    signs: tuple[Sign, ...]


def hits(pulse: Pulse, window: Window) -> list[Hit]:
    """All tenants that are hit, those with the most urgent signs first; inside an urgency by name, so that it stands
    still."""
    lately = _Lately(window)
    free = pulse.slots - pulse.headroom > sum(tenant.running for tenant in pulse.tenants)
    found = []
    for tenant in pulse.tenants:
        signs = sorted(_signs(tenant, pulse, lately, free), key=lambda sign: sign.urgency)
        if signs:
            found.append(Hit(tenant.tenant_id, tenant.name, tuple(signs)))
    return sorted(found, key=lambda hit: (hit.signs[0].urgency, hit.name))


def listed(hits: Sequence[Hit]) -> str:
    """The first of them and all their signs, as Markdown."""
    lines = [f"- **{literal(hit.name)}**: {literal('; '.join(map(str, hit.signs)))}" for hit in hits[:TOLD]]
    return "\n".join(lines + [f"- and {len(hits) - TOLD} more, first in the table below"] * (len(hits) > TOLD))


def crowd(pulse: Pulse) -> str | None:
    """Who has most of the queue; None when it is short, or nobody has."""
    whole = sum(tenant.queued for tenant in pulse.tenants)
    most = max(pulse.tenants, key=lambda tenant: tenant.queued, default=None)
    if most is None or whole < CROWD or len(pulse.tenants) < 2 or most.queued <= whole / 2:
        return None
    return f"{most.name} has {percent(most.queued / whole)} of all {count(whole)} queued runs."


def shedding(pulse: Pulse, limit: int) -> str | None:
    """What the platform refuses because its queues are too long; None: nothing."""
    queued = sum(tenant.queued for tenant in pulse.tenants)
    refused = [lane.name.lower() for lane, share in SHED_AT.items() if queued >= limit * share]
    if not refused:
        return None
    lanes = " and ".join(filter(None, [", ".join(refused[:-1]), refused[-1]]))
    return (
        f"Overload: {count(queued)} of {count(limit)} runs are queued. New {lanes} runs are refused "
        "with 503 until it is less; tenants with a short queue lose their background runs only. Add workers."
    )


class _Lately:
    """What the window says of one tenant."""

    def __init__(self, window: Window) -> None:
        self._endings: Mapping[str, Any] = {row.tenant_id: row for row in window.endings.itertuples()}
        self._waits: Mapping[str, Any] = {row.tenant_id: row for row in window.wait_causes.itertuples()}
        self._codes: dict[str, Counter[str]] = {}
        for row in window.failures.itertuples():
            self._codes.setdefault(row.tenant_id, Counter())[plain(row.code)] += row.count

    def signs(self, tenant_id: str) -> Iterator[Sign]:
        ended = self._endings.get(tenant_id)
        if ended is None:
            return
        in_time = ratio(ended.in_time, ended.in_time + ended.late)
        if in_time is not None and in_time < HEALTHY:
            waited = self._waited(tenant_id)
            yield Sign(
                Urgency.LATE, f"{percent(in_time)} of its runs in time", f"waited in the queue: {waited}" * bool(waited)
            )
        failed = ratio(ended.failed, ended.failed + ended.succeeded)
        if failed is not None and failed > FAILING and ended.failed > FEW:
            often = " · ".join(f"{code} {count(times)}" for code, times in self._often(tenant_id))
            yield Sign(Urgency.FAILING, f"{percent(failed)} of its runs fail", often)

    def _waited(self, tenant_id: str) -> str:
        row = self._waits.get(tenant_id)
        seconds = {} if row is None else {cause: getattr(row, column) for column, cause in QUEUE_CAUSES.items()}
        return shares(seconds) if sum(seconds.values()) >= 1 else ""

    def _often(self, tenant_id: str) -> list[tuple[str, int]]:
        return self._codes.get(tenant_id, Counter()).most_common(2)


def _signs(tenant: TenantPulse, pulse: Pulse, lately: _Lately, free: bool) -> Iterator[Sign]:
    yield from _queue_signs(tenant, pulse, free)
    yield from _refusals(tenant)
    yield from lately.signs(tenant.tenant_id)
    if stuck := tenant.waiting.get(Cause.ENDPOINT, 0):
        yield Sign(Urgency.STUCK, f"{_runs(stuck)} for a model or service that does not answer")
    if stuck := tenant.waiting.get(Cause.BUDGET, 0):
        yield Sign(Urgency.STUCK, f"{_runs(stuck)} for money", "raise its budget, or decide what its runs ask")
    if tenant.reviews_overdue:
        cases = "review is" if tenant.reviews_overdue == 1 else "reviews are"
        yield Sign(Urgency.OVERDUE, f"{count(tenant.reviews_overdue)} {cases} overdue")


def _queue_signs(tenant: TenantPulse, pulse: Pulse, free: bool) -> Iterator[Sign]:
    if tenant.oldest_queued_at is None:
        return
    waited_s = (pulse.at - tenant.oldest_queued_at).total_seconds()
    if waited_s <= SLOW_S or not tenant.queued:
        return
    what = f"a run has been queued for {duration(waited_s // 60 * 60)}"
    by_cause = tenant.queued_by_cause
    cause = Cause(max(by_cause, key=lambda name: by_cause[name])) if by_cause else Cause.SHARE
    if cause in _WHY:
        urgency = Urgency.STANDSTILL if cause in (Cause.NO_WORKER, Cause.NO_CODE) else Urgency.SLOW
        yield Sign(urgency, what, _WHY[cause](tenant))
    elif free:
        why = "although slots are free: a cap of one workflow or user in its policy, or a fault of the workers"
        yield Sign(Urgency.STANDSTILL, what, why)
    else:
        yield Sign(Urgency.SLOW, what, "all slots are taken, and others have their share; add workers")


def _refusals(tenant: TenantPulse) -> Iterator[Sign]:
    if tenant.draining:
        yield Sign(Urgency.REFUSED, "nothing new is taken", "an operator drains it; end that in Tenants")
    elif tenant.runs_today >= tenant.daily_runs:
        yield Sign(
            Urgency.REFUSED,
            "nothing new is taken until its midnight",
            f"its quota of {count(tenant.daily_runs)} runs a day is used up",
        )
    elif tenant.queued >= tenant.queue_depth:
        yield Sign(Urgency.REFUSED, "nothing new is taken", f"it may queue {count(tenant.queue_depth)} runs, and does")


def _runs(number: int) -> str:
    return f"{count(number)} {'run waits' if number == 1 else 'runs wait'}"

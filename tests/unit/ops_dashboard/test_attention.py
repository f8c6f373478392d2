"""Who is hit, and why: every sign names its reason, and nobody is hit who is not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd

from core.runs.model import Cause, Standstill
from ops_dashboard.attention import SLOW_S, TOLD, Urgency, crowd, hits, listed, shedding
from ops_dashboard.data import Window
from ops_dashboard.pulse import Pulse, TenantPulse

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
CALM = TenantPulse(
    tenant_id="bank",
    name="Bank",
    tier="standard",
    queued=0,
    queue_depth=1_000,
    running=0,
    cap=10,
    weight=1.0,
    paused=False,
    draining=False,
    burst_slots=0,
    burst_credit_s=0.0,
    debt_s=0.0,
    lanes={},
    codes={},
    standstill=Standstill(Cause.SHARE),
    oldest_queued_at=None,
    waiting={},
    runs_today=0,
    daily_runs=100,
    month_limit_microusd=1,
    month_reserved_microusd=0,
    month_spent_microusd=0,
    reviews_open=0,
    reviews_overdue=0,
    review_next_due=None,
)


def queued(tenant: TenantPulse, runs: int, cause: Cause = Cause.SHARE, since_s: float = SLOW_S + 30) -> TenantPulse:
    return replace(
        tenant,
        queued=runs,
        codes={"loan@1": runs},
        standstill=Standstill(cause),
        oldest_queued_at=NOW - timedelta(seconds=since_s),
    )


def window(
    endings: tuple[Any, ...] = (), waits: tuple[Any, ...] = (), failures: tuple[tuple[Any, ...], ...] = ()
) -> Window:
    """What happened to the bank in the last hour."""
    nothing = pd.DataFrame()
    return Window(
        at=NOW,
        until=NOW,
        seconds=3_600,
        bucket_s=30,
        service=nothing,
        endings=pd.DataFrame(
            [("bank", *endings)] if endings else [], columns=["tenant_id", "succeeded", "failed", "in_time", "late"]
        ),
        failures=pd.DataFrame(failures, columns=["tenant_id", "workflow", "code", "count"]),
        service_over_time=nothing,
        depth_over_time=nothing,
        wait_causes=pd.DataFrame(
            [("bank", *waits)] if waits else [],
            columns=["tenant_id", "capped_s", "paused_s", "no_worker_s", "no_code_s", "share_s"],
        ),
        waits_over_time=nothing,
    )


def now(*tenants: TenantPulse, slots: int = 20) -> Pulse:
    return Pulse(NOW, tenants, slots, None, ())


def told(tenant: TenantPulse, seen: Window | None = None, slots: int = 20) -> str:
    """The signs of one tenant, as text."""
    return "; ".join(str(sign) for hit in hits(now(tenant, slots=slots), seen or window()) for sign in hit.signs)


def test_who_is_served_is_not_hit() -> None:
    busy = replace(queued(CALM, 40, since_s=SLOW_S), running=10, waiting={"review": 9, "rate": 50, "timer": 3})
    assert hits(now(busy), window(endings=(95, 5, 100, 0))) == []


def test_a_slow_queue_is_told_with_its_cause_and_what_helps() -> None:
    assert told(replace(queued(CALM, 3, Cause.CAP), running=10)) == (
        "a run has been queued for 5 min – it is at its cap of 10; a higher cap or burst slots act at once"
    )
    assert "a cap of one workflow or user in its policy holds it" in told(queued(CALM, 3, Cause.CAP))
    assert "an operator paused it" in told(queued(CALM, 3, Cause.PAUSED))
    assert "no worker is alive" in told(queued(CALM, 3, Cause.NO_WORKER))
    assert "no live worker has its version" in told(queued(CALM, 3, Cause.NO_CODE))
    assert "others have their share" in told(replace(queued(CALM, 3), running=19))
    assert "although slots are free" in told(replace(queued(CALM, 3), running=2))


def test_what_is_refused_late_failing_stuck_or_overdue_is_told() -> None:
    assert "its quota of 100 runs a day is used up" in told(replace(CALM, runs_today=100))
    assert "it may queue 1\u202f000 runs" in told(queued(CALM, 1_000, since_s=1))
    assert "an operator drains it" in told(replace(CALM, draining=True, runs_today=100))
    late = window(endings=(72, 0, 72, 28), waits=(80.0, 0.0, 0.0, 0.0, 20.0))
    assert told(CALM, late) == "72.0 % of its runs in time – waited in the queue: cap 80 % · share 20 %"
    failing = window(
        endings=(90, 10, 100, 0), failures=(("bank", "loan", "step_failed", 8), ("bank", "x", "timeout", 2))
    )
    assert told(CALM, failing) == "10.0 % of its runs fail – step failed 8 · timeout 2"
    assert "12 runs wait for money" in told(replace(CALM, waiting={"budget": 12}))
    assert "1 run waits for a model or service" in told(replace(CALM, waiting={"endpoint": 1}))
    assert told(replace(CALM, reviews_overdue=2)) == "2 reviews are overdue"


def test_the_most_urgent_come_first_and_stand_still_among_themselves() -> None:
    slow, stands, other = (
        replace(queued(CALM, 900, Cause.CAP), tenant_id="a", name="Zebra"),
        replace(queued(CALM, 1, Cause.NO_CODE), tenant_id="b", name="Yak"),
        replace(queued(CALM, 5, Cause.CAP), tenant_id="c", name="Ape", reviews_overdue=1),
    )
    found = hits(now(slow, stands, other), window())
    assert [hit.name for hit in found] == ["Yak", "Ape", "Zebra"]
    assert [sign.urgency for sign in found[1].signs] == [Urgency.SLOW, Urgency.OVERDUE]


def test_what_others_called_themselves_is_nobodys_markup_and_no_word_loses_its_capital() -> None:
    trap = replace(CALM, name="![x](http://x) $1$", draining=True)
    few = hits(now(trap), window())
    assert listed(few).startswith(r"- **\!\[x\]\(http\:\/\/x\) \$1\$**: nothing new is taken")
    assert few[0].signs[0].sentence == "Nothing new is taken – an operator drains it; end that in Tenants"
    many = hits(now(*(replace(trap, tenant_id=str(number)) for number in range(TOLD + 2))), window())
    assert listed(many).splitlines()[TOLD:] == ["- and 2 more, first in the table below"]


def test_who_fills_the_queue_and_what_is_shed_for_it_is_said() -> None:
    noisy, quiet = queued(CALM, 920, since_s=1), replace(queued(CALM, 80, since_s=1), tenant_id="u", name="Union")
    assert crowd(now(noisy, quiet)) == "Bank has 92.0 % of all 1\u202f000 queued runs."
    assert crowd(now(noisy)) is None
    assert crowd(now(quiet, replace(CALM, tenant_id="c"))) is None
    assert shedding(now(noisy, quiet), 1_500) is None
    assert "New background runs are refused" in (shedding(now(noisy, quiet), 1_400) or "")
    assert "New normal and background runs" in (shedding(now(noisy, quiet), 1_100) or "")
    assert "New urgent, normal and background runs" in (shedding(now(noisy, quiet), 1_000) or "")

"""Measurements in, rows of the table out: the worst seed counts, for us and for whoever is beside us."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from core.queue.simulator import Outcome, quantile
from tests.benchmarks.queue import virtual
from tests.benchmarks.queue.kills import Damage
from tests.benchmarks.queue.noisy import Heard
from tests.benchmarks.queue.scale import Claims
from tests.benchmarks.queue.virtual import Figures, Played
from tests.benchmarks.report import Comparison, Row
from tests.benchmarks.scenarios import MONDAY_SLA_S, NOISY

# By figure: what the row is called, unit, target, comparison.
_VIRTUAL: dict[str, tuple[str, str, float | None, Comparison]] = {
    virtual.SHARES: ("50 tenants, weights 1-8: Jain's index", "", 0.999, ">="),
    virtual.MINUTE: ("the same, worst minute", "", 0.98, ">="),
    virtual.LONG_WAIT: ("34 s against 1 s: quiet p99 wait", "s", 0.5, "<="),
    virtual.LONG_SHARE: ("34 s against 1 s: share off its weight", "points", 2, "<="),
    virtual.LATE: (f"Monday morning: tenants late (> {MONDAY_SLA_S:.0f} s)", "of 199", 0, "<="),
    virtual.P95: ("Monday morning: others' p95 / quiet day's", "x", 1.02, "<="),
    virtual.WORSE: ("real day, 300 slots: tenants in their share worse off", "tenants", 0, "<="),
    virtual.WORST: ("real day, 300 slots: their worst p99 wait", "s", None, "<="),
}


def virtual_rows(played: Sequence[Played], dbos_monday: Figures) -> list[Row]:
    """The rows on a clock of their own. ``dbos_monday``: what the peer came to in a tenth of that day."""
    rows = []
    for figure, (what, unit, target, comparison) in _VIRTUAL.items():
        seeds = [one for one in played if figure in one.ours]
        if not seeds:
            continue
        worst: Callable[[Iterable[float]], float] = min if comparison == ">=" else max
        peers = {f"DBOS, {dbos_monday['tenants']:.0f} tenants": dbos_monday[figure]} if figure in dbos_monday else {}
        peers["FIFO"] = worst(one.fifo[figure] for one in seeds)
        rows.append(Row(what, worst(one.ours[figure] for one in seeds), unit, target, comparison, peers))
    parts = [one.sql for one in played if one.sql is not None]
    runs = sum(part.runs for part in parts)
    differing = sum(not part.agrees for part in parts)
    what = f"situations in which SQL and simulator differ, {runs:,} runs"
    rows.append(Row(what, differing, f"of {len(parts)}", 0, "<="))
    return rows


def noisy_rows(quiet: Sequence[Heard], noisy: Sequence[Heard], peers: Mapping[str, Outcome]) -> list[Row]:
    """The noisy neighbour. Each seed is compared with its own stretch without the noise."""
    beside = {
        name: 1000 * quantile(virtual.waits(outcome, {NOISY}, others=True), 0.99) for name, outcome in peers.items()
    }
    starts = max(quantile(one.starts_s, 0.99) for one in noisy)
    ratio = max(with_noise.p99_s / without.p99_s for without, with_noise in zip(quiet, noisy, strict=True))
    return [
        Row("noisy neighbour: quiet p99 wait", 1000 * max(one.p99_s for one in noisy), "ms", 150, "<=", beside),
        Row("noisy neighbour: the same / without the noise", ratio, "x", 1.5, "<="),
        Row("noisy neighbour: slots busy", min(one.busy for one in noisy), "share", 0.95, ">="),
        Row("noisy neighbour: quiet p99, submit to first line", 1000 * starts, "ms", None, "<="),
    ]


def scale_rows(tenants: int, queued: int, mixed: Claims, all_back: Claims, cost: tuple[float, float]) -> list[Row]:
    """Many tenants, many queued runs."""
    size = f"{tenants:,} tenants, {queued:,} queued"
    p99 = quantile(mixed.calls_s, 0.99)
    return [
        Row(f"{size}: claims, 4 clients", mixed.claimed / mixed.seconds, "/s", 3_000, ">="),
        Row("the same, p99 of a call (12 claims)", 1000 * p99, "ms", 25, "<="),
        Row("the same, deadlocks", mixed.refused + all_back.refused, "", 0, "<="),
        Row("the same, memory at the end / near the beginning", mixed.growth, "x", 1.05, "<="),
        Row("the same, each run given back at once", all_back.claimed / all_back.seconds, "/s", None, ">="),
        Row(f"cost of a claim, 10 tenants to {tenants:,}", cost[1] / cost[0], "x", 1.3, "<="),
    ]


def kill_rows(damage: Damage) -> list[Row]:
    """Kills of workers and of Postgres."""
    what = f"{damage.kills} kills of workers, {damage.crashes} of Postgres"
    return [
        Row(f"{what}: runs ended", damage.ended, "", damage.admissions, ">="),
        Row("the same, over a cap", damage.over, "", 0, "<="),
        Row("the same, lost", damage.lost, "", 0, "<="),
        Row("the same, done twice", damage.duplicated, "", 0, "<="),
        Row("the same, counts that are wrong afterwards", damage.faults, "", 0, "<="),
        Row("the same, claims (runs of the killed are claimed again)", damage.claims, "", None, ">="),
    ]

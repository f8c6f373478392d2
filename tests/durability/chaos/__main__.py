"""The long performance and its table: ``python -m tests.durability.chaos [SEED]``, or ``make chaos SEED=7``.

Writes ``tests/benchmarks/results/chaos.json``. When anything is found the exceptions are printed, the folder of the
installation is kept, and the exit code is 1.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path

from core.embedded.process import Reaper
from tests.benchmarks.report import Row, write
from tests.durability.chaos.drama import Report, Script, perform
from tests.durability.chaos.killer import Pace

PACKAGES = ("asyncpg", "redis")
_SHOWN = 20

# What the table says, and which invariants it counts.
LINES = {
    "stuck: neither ended nor visibly waiting": ("stuck", "left_over"),
    "submissions lost or made twice": ("submissions", "admitted"),
    "runs that ended otherwise than they should": ("endings", "ends"),
    "effects lost, had twice, or tried without a record": ("effects",),
    "steps done twice": ("done_twice", "step_events"),
    "charges doubled, lost, or not what was recorded": ("settled", "charged_twice", "accounts"),
    "effects of failed or cancelled runs not undone": ("undone",),
    "children spawned twice, lost, or left alone": ("families",),
    "decisions lost or taken twice": ("decided",),
    "counts of the fair queue that are wrong": ("queue_faults", "served"),
    "event logs with gaps": ("event_gaps",),
    "audit chains broken": ("audit",),
    "memories the graph has lost, or made twice": ("remembered",),
    "answers of HTTP 500, processes that ended unkilled": ("answers", "processes"),
}


def script(seed: int) -> Script:
    """The long one."""
    return Script(seed=seed, runs=520, workers=2, slots=16, over_s=330.0, pace=Pace(2.0, 5.0), deadline_s=780.0)


def rows(report: Report) -> list[Row]:
    """The table."""
    seen, kills = report.verdict.measured, report.kills
    by_kind = {f"of {kind}": float(count) for kind, count in sorted(kills.items())} | {"frozen": report.freezes}
    lines = [
        Row(f"runs ended, in {report.seconds:.0f} s", seen["ended"], "runs", report.script.runs, ">="),
        Row("kills (-9) while they executed", sum(kills.values()), "kills", None, ">=", by_kind),
    ]
    for what, names in LINES.items():
        lines.append(Row(what, sum(len(report.faults.get(name, [])) for name in names), "", 0, "<="))
    facts = {
        "children of them": "children",
        "claims of runs": "claims",
        "steps tried": "attempts",
        "steps cut off by a kill": "cut_off",
        "times parked": "parkings",
        "effects outside": "effects",
        "deliveries to the world outside": "deliveries",
        "deliveries by a worker that had lost its run": "late",
    }
    lines += [Row(what, seen[name], "", None, ">=") for what, name in facts.items()]
    return [
        *lines,
        Row("requests to the API repeated", report.again, "", None, ">="),
        Row("runs cancelled, retried", report.cancelled + report.retried, "", None, ">="),
    ]


def main() -> int:
    """Play it. 1: something was found."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else int(time.time())
    print(f"seed {seed}", flush=True)
    home = Path(tempfile.mkdtemp(prefix="bailiwick-chaos-"))
    home.chmod(0o711)  # root's Postgres runs as another user, who must be able to enter
    reaper = Reaper()
    try:
        report = asyncio.run(perform(script(seed), home, reaper))
    finally:
        reaper.close()
    write("chaos", rows(report), packages=PACKAGES, seeds=[seed])
    for name, faults in report.faults.items():
        print(f"{name}:", *faults[:_SHOWN], sep="\n  ")
    if report.faults or report.unfinished:
        print(f"The logs are in {home / 'logs'}")
        return 1
    shutil.rmtree(home)
    return 0


if __name__ == "__main__":
    sys.exit(main())

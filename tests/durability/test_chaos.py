"""A short performance of the fault harness: each kind of process is killed once while runs use everything."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from core.embedded.process import Reaper
from tests.durability.chaos.__main__ import LINES
from tests.durability.chaos.drama import Script, perform
from tests.durability.chaos.judge import INVARIANTS
from tests.durability.chaos.killer import WEIGHTS, Pace

# By this seed a worker and the web process die first: what takes longest to come back, or to be taken over.
SHORT = Script(
    seed=54, runs=20, workers=2, slots=12, over_s=4.0, pace=Pace(0.4, 0.9, down=4, once=True), deadline_s=120.0
)


def test_the_table_counts_every_invariant() -> None:
    asked = [*INVARIANTS, "audit", "submissions", "endings", "effects", "answers", "processes"]
    assert sorted(name for names in LINES.values() for name in names) == sorted(asked)


@pytest.mark.timeout(240)
async def test_nothing_is_lost_or_done_twice_whoever_is_killed(reaper: Reaper) -> None:
    with tempfile.TemporaryDirectory(prefix="bailiwick-chaos-") as folder:
        home = Path(folder)
        home.chmod(0o711)  # root's Postgres runs as another user, who must be able to enter
        report = await perform(SHORT, home, reaper)
    assert report.faults == {}
    assert report.kills == dict.fromkeys(WEIGHTS, 1)
    assert report.verdict.measured["ended"] == SHORT.runs

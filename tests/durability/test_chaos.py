"""A short performance of the fault harness: each kind of process is killed once while runs use everything."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from core.embedded.process import Reaper
from tests.durability.chaos.__main__ import LINES
from tests.durability.chaos.drama import Script, perform
from tests.durability.chaos.judge import INVARIANTS, effect_faults
from tests.durability.chaos.killer import WEIGHTS, Pace
from tests.durability.chaos.workflow import Job, effects_of

# By this seed a worker and the web process die first: what takes longest to come back, or to be taken over.
SHORT = Script(
    seed=54, runs=20, workers=2, slots=12, over_s=4.0, pace=Pace(0.4, 0.9, down=4, once=True), deadline_s=120.0
)


def test_the_table_counts_every_invariant() -> None:
    asked = [*INVARIANTS, "audit", "submissions", "endings", "effects", "answers", "processes"]
    assert sorted(name for names in LINES.values() for name in names) == sorted(asked)


def test_an_effect_that_is_lost_had_twice_or_asked_for_without_a_try_is_seen() -> None:
    job = Job(number=4)
    run = {"number": 4, "state": "succeeded"}
    once: list[dict[str, Any]] = [
        {"key": f"run/{step}", "what": what, "had": True, "deliveries": 1, "differing": False}
        for step, what in enumerate(effects_of(job))
    ]
    tried: dict[str, Any] = {effect["key"]: {"attempts": 1} for effect in once}
    jobs = [job] * 5
    first = once[0]
    again = first | {"key": "run/0/1"}
    assert effect_faults([run], jobs, once, tried) == []
    assert effect_faults([run], jobs, once[1:], tried) == ["lost: 4/first"]
    assert "had 2 times: 4/first" in effect_faults([run], jobs, [*once, again], tried)
    undone = first | {"key": "run/-1", "what": "undo/4/first"}
    assert (
        effect_faults(
            [run], jobs, [*once, again, undone], tried | {"run/-1": {"attempts": 1}, "run/0": {"attempts": 2}}
        )
        == []
    )
    assert effect_faults([run], jobs, [first | {"deliveries": 2}, *once[1:]], tried) == [
        "asked for 2 times, tried 1: run/0"
    ]


@pytest.mark.timeout(240)
async def test_nothing_is_lost_or_done_twice_whoever_is_killed(reaper: Reaper) -> None:
    with tempfile.TemporaryDirectory(prefix="bailiwick-chaos-") as folder:
        home = Path(folder)
        home.chmod(0o711)  # root's Postgres runs as another user, who must be able to enter
        report = await perform(SHORT, home, reaper)
    assert report.faults == {}
    assert report.kills == dict.fromkeys(WEIGHTS, 1)
    assert report.verdict.measured["ended"] == SHORT.runs

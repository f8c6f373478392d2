"""``bailiwick demo burst`` against a running installation."""

from __future__ import annotations

import json

from tests.fixtures.installation import Installation

RUNS = 60
"""More than the bank may hold at once, and than there are slots."""


def test_a_burst_of_one_tenant_ends_and_leaves_the_others_waits_alone(installation: Installation) -> None:
    done = installation.run("demo", "burst", "--runs", str(RUNS), "--seconds", "9", "--work", "0.5", "--timeout", "50")
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert found["lost"] == 0
    bank, *others = (found["tenants"][name] for name in ("regional-bank", "credit-union", "fintech-startup"))
    assert (bank["submitted"], bank["succeeded"]) == (RUNS, RUNS)
    for other in others:
        assert other["submitted"] == other["succeeded"] == 6
        assert other["sla_missed"] == 0
        # A quiet tenant does not queue behind the burst: whoever did would wait for several of its runs.
        assert other["wait_p95_s"] < bank["wait_p95_s"]
    assert found["slots_busy"] > 0.5
    assert found["jain"] > 0.9

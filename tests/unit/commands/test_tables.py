"""What commands print on a narrow terminal, and into a pipe."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from core.commands.runs import RunReport, as_text, lines_as_table
from core.commands.tables import show
from core.commands.versions import listed_as_table
from core.runs.history import History, RunLine
from core.runs.model import Cause, Lane, RunState
from core.runs.timeline import Attempt
from core.versions.model import VersionView

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
RUN = RunLine(
    run_id="run_1m80rswvxz1dvtcbb0yp1bn15",
    tenant_id="regional-bank-of-the-north",
    workflow="raise-the-limit-of-a-card",
    version="12",
    lane=Lane.NORMAL,
    state=RunState.WAITING,
    cause=Cause.ENDPOINT,
    source="api",
    batch_id=None,
    outcome=None,
    error_code=None,
    attempt=1,
    worker_seconds=0.1,
    cost_microusd=123_456,
    budget_microusd=500_000,
    submitted_at=NOON,
    started_at=NOON,
    finished_at=None,
    held=False,
    forked_from=None,
)


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 60 columns."""
    monkeypatch.setenv("COLUMNS", "60")


def test_no_table_cuts_what_is_to_be_copied_or_searched_for(capsys: pytest.CaptureFixture[str]) -> None:
    failed = replace(RUN, state=RunState.FAILED, cause=None, error_code="budget_exceeded", finished_at=NOON)
    show(lines_as_table([RUN, failed]))
    _, waits, ended = capsys.readouterr().out.splitlines()
    for line, state in ((waits, "waiting · endpoint"), (ended, "failed · budget_exceeded")):
        for word in (RUN.run_id, RUN.tenant_id, f"{RUN.workflow} v12", state, "2026-03-02 12:00:00", "$0.12"):
            assert word in line

    code = VersionView(RUN.workflow, "12", installed=True, workers=0, share=12.5, queued=1_000, oldest_at=NOON)
    show(listed_as_table([code]))
    told = capsys.readouterr().out.splitlines()[-1]
    assert all(
        word in told for word in (RUN.workflow, "12.5 %", "1000", "2026-03-02 12:00", "no live worker has its code")
    )


def test_a_timeline_keeps_the_names_of_steps_and_says_how_each_ended(capsys: pytest.CaptureFixture[str]) -> None:
    name, ended = "ask-everybody-who-knows-the-customer", NOON + timedelta(seconds=1)
    step = Attempt(1, 2, name, "call", "failed", 1, "gpt-large", NOON, ended, "rate_limited")
    show(as_text(RunReport(History(RUN, ended, (step,), (), ()), None)))
    told = capsys.readouterr().out
    assert any(name in line and "failed, attempt 2 · gpt-large · rate_limited" in line for line in told.splitlines())

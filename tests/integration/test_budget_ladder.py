"""The degradation ladder on a real worker: what a run without money does, who is told, and what an answer is worth."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from rich.console import Console

from core.commands.runs import as_text, show
from core.runs.model import Cause, RunRequest, RunState
from core.settings import Settings
from core.tenancy import Policy
from core.usage.model import usd
from tests.fixtures.workers import Site, site_in, working


async def closed_again(site: Site, run_id: str, review_id: str) -> bool | None:
    """Whether the run has ended, or asks something else than this."""
    run = await site.platform.runs.get(site.admin, run_id)
    asked = await site.platform.reviews.open(site.reviewer)
    return (
        run.state.final or (run.state is RunState.WAITING and review_id not in {one.review_id for one in asked}) or None
    )


async def test_who_stops_a_run_is_asked_again_when_it_is_retried_and_every_rung_is_told(
    settings: Settings, tmp_path: Path
) -> None:
    log = str(tmp_path / "effects")
    async with site_in(settings, Policy(budget_run_microusd=usd("0.50"))) as site, working(site):
        platform = site.platform
        run, _ = await platform.runs.submit(site.admin, RunRequest("sample-replan", {"log": log}))
        for step, spent, verdict in (
            ("conclude", "$0.50", "stop"),
            ("try", "$0.50", "raise"),
            ("conclude", "$0.58", "raise"),
        ):
            (parked,) = await site.runs_until([run], lambda one: one.state is RunState.WAITING)
            assert parked.cause is Cause.BUDGET
            (review,) = await platform.reviews.open(site.reviewer)
            assert review.choices == ["raise", "stop"]
            assert (review.evidence["step"], review.evidence["spent"]) == (step, spent)
            await platform.reviews.decide(site.reviewer, review.review_id, verdict)
            if verdict == "stop":
                (stopped,) = await site.ended([run])
                assert (stopped.state, stopped.cost_microusd) == (RunState.FAILED, usd("0.50"))
                await platform.control.retry(site.admin, run.run_id)
            else:
                await site.until(partial(closed_again, site, run.run_id, review.review_id))
        (ended,) = await site.ended([run])
        assert (ended.state, ended.cost_microusd) == (RunState.SUCCEEDED, usd("0.66"))
        told = [entry for entry in await platform.audit.recent(site.admin) if entry.act.startswith("budget.")]
        assert [entry.act.removeprefix("budget.") for entry in reversed(told)] == [
            "skip",
            "ask",
            "stopped",
            "ask",
            "raised",
            "ask",
            "raised",
        ]
        assert told[0].after["by"] == site.reviewer.actor
        assert (told[-1].after["share"], told[-1].after["threshold"]) == (1.02, 0.9)
        console = Console(width=200, record=True)
        console.print(as_text(await show(platform, site.admin, run.run_id, None)))
    shown = console.export_text()
    assert "102 % of the run's budget (over 90 %)" in shown
    assert [word for word in ("budget skip", "budget ask", "budget raised", "skipped") if word not in shown] == []

"""The card of a batch and of a run: counts, causes, steps, results, and what may be done."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from chat_app.acting import Asked, asked_by
from chat_app.run_cards import Seen, run_card, runs_card, writing
from core.ids import RunId
from core.queue.estimate import StartsIn
from core.runs.acts import Act
from core.runs.model import BatchProgress, Cause, Lane, RunState, RunView, StepView
from core.tenancy import Policy

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
PROGRESS = BatchProgress(
    batch_id="bat_1",
    total=20,
    queued=12,
    running=3,
    waiting_by_cause={"review": 1, "rate": 1},
    succeeded=3,
    failed=0,
    cancelled=0,
    by_outcome={"approved": 2, "declined": 1},
    cost_microusd=31_000,
    queued_by_cause={"cap": 12},
)
WAITING = RunView(
    run_id=RunId("run_1"),
    workflow="loan-approval",
    version="1",
    lane=Lane.NORMAL,
    state=RunState.WAITING,
    cause=Cause.REVIEW,
    source="chat",
    batch_id="bat_1",
    thread_id=None,
    user_id=None,
    input={"application_id": "7"},
    output=None,
    outcome=None,
    error=None,
    progress=None,
    attempt=1,
    cost_microusd=0,
    budget_microusd=0,
    worker_seconds=0.0,
    submitted_at=NOON,
    started_at=None,
    finished_at=None,
    held=False,
    forked_from=None,
)
STEPS = [
    StepView(1, 1, "verify_identity", "step", "failed", 0, None, NOON, NOON, {"message": "No answer."}),
    StepView(1, 2, "verify_identity", "step", "done", 0, None, NOON, NOON + timedelta(seconds=3), None),
    StepView(2, 1, "compliance", "review", "started", 0, None, NOON, None, None),
]


def test_a_batch_says_in_words_why_its_runs_do_not_execute() -> None:
    card = runs_card("a.csv", PROGRESS, [], Policy(concurrency_cap=3))

    assert card["headline"] == "3 of 20 runs finished"
    assert card["waits"] == [
        "12 queued: your cap of 3 at a time is in use",
        "1 waits for an external service's rate limit to free up",
        "1 waits for a reviewer's decision",
    ]
    assert card["cost"] == "cost so far $0.03"
    assert runs_card("a.csv", replace(PROGRESS, cost_microusd=9), [], Policy())["cost"] == "cost so far under $0.01"
    assert not card["done"]


def test_a_batch_says_when_its_last_run_should_start_unless_nobody_knows() -> None:
    card = runs_card("a.csv", PROGRESS, [], Policy(concurrency_cap=3), StartsIn(80, 310))
    assert card["waits"][-1] == "The last should start in about 5 minutes."
    for last in (None, StartsIn(0, 0)):
        assert len(runs_card("a.csv", PROGRESS, [], Policy(), last)["waits"]) == 3


def test_the_parts_of_the_bar_add_up_to_the_whole() -> None:
    card = runs_card("a.csv", replace(PROGRESS, succeeded=5), [], Policy())
    counts = {segment["key"]: segment["count"] for segment in card["segments"]}
    assert counts == {"approved": 2, "declined": 1, "succeeded": 2, "running": 3, "waiting": 2, "queued": 12}


def test_a_finished_batch_is_called_finished_only_when_nothing_failed() -> None:
    done = replace(PROGRESS, total=3, queued=0, running=0, waiting_by_cause={}, queued_by_cause={})
    assert runs_card("a.csv", done, [], Policy())["headline"] == "All 3 runs finished"
    failed = replace(done, total=4, failed=1)
    assert runs_card("a.csv", failed, [], Policy())["headline"] == "All 4 runs ended"
    alone = replace(failed, total=1, succeeded=0, by_outcome={})
    assert runs_card("a.csv", alone, [], Policy())["headline"] == "The run has ended"


def test_a_run_in_the_list_says_what_it_waits_for_or_how_it_ended() -> None:
    declined = replace(
        WAITING, state=RunState.SUCCEEDED, cause=None, outcome="declined", output={"reasons": ["The score is too low."]}
    )

    waiting, ended = runs_card("a.csv", PROGRESS, [WAITING, declined], Policy())["runs"]

    assert (waiting["label"], waiting["word"], waiting["note"]) == (
        "Application 7",
        "waiting",
        "waits for a reviewer's decision",
    )
    assert (ended["word"], ended["tone"], ended["note"]) == ("declined", "plain", "The score is too low.")


def test_a_run_that_is_opened_shows_each_step_once_as_it_stands() -> None:
    (line,) = runs_card("a.csv", PROGRESS, [WAITING], Policy(), seen=Seen(opened={WAITING.run_id: STEPS}))["runs"]
    assert [(step["name"], step["word"], step["note"]) for step in line["steps"]] == [
        ("verify identity", "done", "3 seconds"),
        ("compliance", "waiting", ""),
    ]
    assert line["acts"] == line["again_from"] == []  # who may only look gets no buttons
    (closed,) = runs_card("a.csv", PROGRESS, [WAITING], Policy())["runs"]
    assert (closed["opened"], "steps" in closed) == (False, False)


def test_a_run_offers_what_fits_its_state() -> None:
    def offered(state: RunState, *, held: bool = False, undoing: bool = False) -> tuple[list[str], int]:
        run = replace(
            WAITING, state=state, held=held, undoing=undoing, cause=WAITING.cause if state is RunState.WAITING else None
        )
        (line,) = run_card(run, Policy(), Seen(may_act=True, opened={run.run_id: STEPS}))["runs"]
        return [act["act"] for act in line["acts"]], len(line["again_from"])

    for state in (RunState.QUEUED, RunState.RUNNING, RunState.WAITING):
        assert offered(state) == (["pause", "cancel"], 0)
    assert offered(RunState.WAITING, held=True) == (["resume", "cancel"], 0)
    assert offered(RunState.WAITING, undoing=True) == ([], 0)
    for state in (RunState.FAILED, RunState.CANCELLED):
        assert offered(state) == (["retry"], 2)
    assert offered(RunState.DEAD) == (["retry", "cancel"], 2)
    assert offered(RunState.SUCCEEDED) == ([], 0)


def test_a_batch_offers_what_fits_its_runs_and_asks_before_it_cancels() -> None:
    def offered(progress: BatchProgress) -> list[tuple[str, str]]:
        card = runs_card("a.csv", progress, [], Policy(), seen=Seen(may_act=True))
        return [(act["label"], act["sure"]) for act in card["acts"]]

    assert offered(PROGRESS) == [("Pause", ""), ("Cancel the rest", "Cancel 17 runs that have not ended?")]
    paused = replace(PROGRESS, queued=0, running=0, waiting_by_cause={"paused": 1}, total=6, failed=2)
    assert [label for label, _ in offered(paused)] == ["Resume", "Cancel the rest", "Try 2 again"]
    assert offered(replace(PROGRESS, total=3, queued=0, running=0, waiting_by_cause={})) == []
    assert runs_card("a.csv", PROGRESS, [], Policy())["acts"] == []


def test_the_card_of_one_run_names_it_by_what_it_does_and_shows_its_result() -> None:
    run = replace(
        WAITING,
        workflow="credit-line",
        state=RunState.SUCCEEDED,
        cause=None,
        input={},
        output={"amount_usd": 900, "secured": True, "reasons": ["Known for years."]},
    )
    card = run_card(run, Policy(), Seen(opened={run.run_id: []}))
    assert (card["headline"], card["title"], card["done"]) == ("Credit line", "Known for years.", True)
    assert {fact["label"]: fact["value"] for fact in card["runs"][0]["result"]} == {
        "Amount": "$900.00",
        "Secured": "yes",
        "Reasons": "Known for years.",
    }


def test_only_runs_that_execute_are_followed_while_they_write() -> None:
    running = replace(WAITING, run_id=RunId("run_2"), state=RunState.RUNNING, cause=None)
    assert list(writing(runs_card("a.csv", PROGRESS, [WAITING, running], Policy()))) == ["run_2"]


@pytest.mark.parametrize(
    ("payload", "asked"),
    [
        ({"act": "pause", "batch_id": "bat_1"}, Asked(Act.PAUSE, batch_id="bat_1")),
        ({"act": "retry", "run_id": "run_1", "from_step": 2}, Asked(Act.RETRY, "run_1", from_step=2)),
        ({"act": "retry", "run_id": "run_1", "from_step": True}, Asked(Act.RETRY, "run_1")),
        ({"act": "retry", "run_id": "run_1", "from_step": "2"}, Asked(Act.RETRY, "run_1")),
        ({"act": "delete", "run_id": "run_1"}, None),
        ({"act": "cancel"}, None),
        ({"act": ["cancel"], "run_id": "run_1"}, None),
    ],
)
def test_a_button_asks_for_what_there_is_or_for_nothing(payload: dict[str, object], asked: Asked | None) -> None:
    assert asked_by(payload) == asked

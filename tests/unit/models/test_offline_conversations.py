"""The offline model tells what tools answered: every figure comes from them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.models.prompts import CHAT_TOOLS, converse

REVIEW = "rev_0a1b2c3d4e5f6g7h8j9k0m1n2"


@pytest.mark.parametrize(
    "result",
    [
        {"declined": 57, "reasons": {"Low score": 40, "Too much debt": 17}},
        {"total": 57, "by_reason": [{"reason": "Too much debt", "count": 17}, {"reason": "Low score", "count": 40}]},
        [{"reason": "Low score", "count": 40}, {"reason": "Too much debt", "count": 17}],
    ],
)
def test_declined_applications_are_told_by_reason_with_the_tools_numbers(result: Any) -> None:
    calls, text = converse("Summarise what was declined and why", {"summarise_declined": result})
    assert [call.name for call in calls] == ["summarise_declined"]
    assert text == "57 applications were declined. By reason:\n- Low score: 40\n- Too much debt: 17"


def test_open_runs_and_causes_of_waiting_are_told_with_the_counts() -> None:
    result = {
        "declined": 1,
        "decided": 4,
        "still_open": 2,
        "reasons": [{"reason": "The credit score is below 620.", "count": 1}],
    }
    _, text = converse("Summarise what was declined and why", {"summarise_declined": result})
    assert text.startswith("1 of 4 applications were declined.")
    assert text.endswith("- The credit score is below 620: 1\n\n2 runs not decided yet.")
    waits = ["3 queued: your cap of 3 at a time is in use", "1 waits for a reviewer's decision"]
    progress = {"total": 6, "queued": 3, "running": 2, "waiting": {"review": 1}, "files": "apps.csv", "waits": waits}
    _, text = converse("How far is it?", {"runs_progress": progress})
    assert text == (
        "Of 6 runs: queued 3, running 2, waiting for review 1.\n"
        "- 3 queued: your cap of 3 at a time is in use.\n"
        "- 1 waits for a reviewer's decision."
    )


def test_starting_a_file_again_says_that_nothing_was_started_twice() -> None:
    result = {"started": 0, "already_started_before": 20, "batch_id": "bat_1"}
    _, text = converse("Process this file\n[attachment: apps.csv]", {"start_loan_runs": result})
    assert text.startswith("20 runs of apps.csv had been started before.")


def test_nothing_declined_is_said_plainly() -> None:
    _, text = converse("why were they declined?", {"summarise_declined": {"declined": 0, "reasons": {}}})
    assert text == "Nothing was declined."


def test_progress_lists_the_counts_that_are_not_zero() -> None:
    result = {"total": 20, "by_status": {"succeeded": 12, "running": 3, "failed": 0}, "waiting": {"review": 5}}
    _, text = converse("How far is it?", {"runs_progress": result})
    assert text == "Of 20 runs: succeeded 12, running 3, waiting for review 5."


def test_runs_are_told_by_what_they_are_where_they_stand_and_why() -> None:
    rows = [
        {
            "run_id": "run_1",
            "application": "7",
            "workflow": "loan-approval",
            "status": "waiting",
            "waits_for": "budget",
        },
        {"run_id": "run_2", "workflow": "credit-line", "status": "failed", "error": "No answer."},
        {"run_id": "run_3", "workflow": "credit-line", "status": "approved"},
    ]
    _, text = converse("List the runs", {"list_runs": {"runs": rows, "message": "There are more."}})
    assert text == (
        "3 runs, newest first:\n- Application 7: waiting for budget\n- credit-line: failed, No answer.\n"
        "- credit-line: approved\nThere are more."
    )
    assert converse("List the runs", {"list_runs": {"runs": []}})[1] == "There are no such runs."
    steps = [{"name": "pull", "state": "done"}, {"name": "decide", "state": "started"}]
    _, text = converse(
        "Show run run_1m7zr1m3r99m28a9tw79cxavg", {"get_run": {**rows[0], "result": None, "steps": steps}}
    )
    assert text == "The loan-approval run of application 7 is waiting. It waits for: budget. 1 step done so far."


def test_a_question_is_answered_from_the_memories_that_fit_it() -> None:
    memories = ["Our compliance officer is Dana", "We never approve below 620", "The board prefers short reports"]
    result = {"memories": [{"id": f"mem_{n}", "statement": text} for n, text in enumerate(memories)]}
    for question in ("What is our minimum score?", "Below which score do we never approve?"):
        _, text = converse(question, {"recall": result})
        assert text == "From what I remember: We never approve below 620."
    _, text = converse("Who is our compliance officer?", {"recall": result})
    assert text == "From what I remember: Our compliance officer is Dana."


def test_without_a_memory_it_says_that_it_knows_nothing() -> None:
    _, text = converse("What is our minimum score?", {"recall": {"memories": []}})
    assert text == "I know nothing about that: no memory answers it."
    assert "620" not in text


def test_memories_given_in_the_instructions_answer_without_a_call() -> None:
    instructions = (
        "You help Regional Bank.\n\nMemories:\n- We never approve below 620\n- Dana leads compliance\n\nBe brief."
    )
    calls, text = converse("What is our minimum score?", {}, instructions=instructions)
    assert calls == []
    assert text == "From what I remember: We never approve below 620."


def test_forgetting_finds_the_memory_by_what_it_says() -> None:
    found = [
        {"id": "mem_1", "statement": "Dana leads compliance"},
        {"id": "mem_2", "statement": "We never approve below 620"},
    ]
    calls, text = converse("Forget that we never approve below 620", {"recall": found, "forget": {"ok": True}})
    assert [(call.name, call.arguments) for call in calls][1:] == [("forget", {"memory_id": "mem_2"})]
    assert text == "I forgot memory mem_2."


def test_the_only_open_review_can_be_decided_without_its_id() -> None:
    results = {"list_reviews": [{"review_id": REVIEW, "question": "income?"}], "decide_review": {"status": "decided"}}
    calls, text = converse("Approve it because the income is confirmed", results)
    assert calls[1].arguments == {"review_id": REVIEW, "verdict": "approve", "comment": "the income is confirmed"}
    assert text.startswith(f"Review {REVIEW} is decided: approve.")


def test_with_several_open_reviews_it_asks_which_one_is_meant() -> None:
    rows = [{"review_id": REVIEW, "question": "a"}, {"review_id": REVIEW[:-1] + "x", "question": "b"}]
    calls, text = converse("Approve it", {"list_reviews": rows})
    assert [call.name for call in calls] == ["list_reviews"]
    assert "more than one" in text


def test_a_schedule_is_paused_by_its_name() -> None:
    rows = [
        {"schedule_id": "sch_0a1b2c3d4e", "name": "Nightly re-check"},
        {"schedule_id": "sch_9z8y7x6w5v", "name": "Digest"},
    ]
    calls, text = converse("Pause the nightly re-check schedule", {"list_schedules": rows, "pause_schedule": {}})
    assert calls[1].arguments == {"schedule_id": "sch_0a1b2c3d4e"}
    assert "sch_0a1b2c3d4e" in text


def test_an_error_of_a_tool_is_told_and_not_tried_again() -> None:
    result = {"error": {"code": "quota_exceeded", "message": "The daily runs are used up."}}
    calls, text = converse("Process this file\n[attachment: a.csv]", {"start_loan_runs": result})
    assert len(calls) == 1
    assert "The daily runs are used up." in text


def test_each_part_of_a_request_is_answered() -> None:
    results = {"start_loan_runs": {"started": 10, "queued": 7}, "remember": {"memory_id": "mem_1"}}
    said = "Process the first 10. Remember that we never approve below 620.\n[attachment: apps.csv]"
    _, text = converse(said, results)
    assert "I started 10 loan-approval runs from apps.csv. Queued: 7." in text
    assert "I will remember: We never approve below 620." in text


def test_a_tool_that_answers_in_prose_or_in_another_shape_is_passed_on() -> None:
    assert converse("How far is it?", {"runs_progress": "Half of it."})[1] == "Half of it."
    assert converse("How far is it?", {"runs_progress": "{'total': 2, 'queued': 2}"})[1] == "Of 2 runs: queued 2."


def test_every_chat_tool_has_an_ending() -> None:
    said = {
        "list_runs": "List all runs",
        "get_run": "Show run run_0a1b2c3d4e5f6g7h8j9k0m1n2",
        "list_reviews": "What waits for review?",
        "list_schedules": "Which schedules are there?",
        "cancel_run": "Cancel run run_0a1b2c3d4e5f6g7h8j9k0m1n2",
    }
    for name, sentence in said.items():
        assert any(tool.name == name for tool in CHAT_TOOLS)
        shapes: tuple[Any, ...] = ([], {}, [{"run_id": "run_1", "status": "queued"}], "plain words", {"items": []})
        for result in shapes:
            assert converse(sentence, {name: result})[1]

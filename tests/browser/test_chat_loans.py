"""The main job in a real browser: attach, run, watch, review, summarise; and what other people see of it."""

from __future__ import annotations

from contextlib import closing

import pytest
from playwright.sync_api import FilePayload, expect

from tests.fixtures.applications import bad, csv_file, doubtful, good
from tests.fixtures.browser import DEADLINE_MS, FOR_RUNS_MS, Login, told
from tests.fixtures.installation import Installation

MIA = "mia@regional-bank.example"
RAVI = "ravi@regional-bank.example"
ROSA = "rosa@regional-bank.example"


@pytest.fixture
def nothing_to_review(installation: Installation) -> None:
    """Other tests leave cases to the bank's reviewers, and the chat shows the ten most urgent only."""
    with closing(installation.browser(RAVI)) as ravi:
        while reviews := ravi.get("/api/v1/reviews").raise_for_status().json()["reviews"]:
            for review in reviews:
                decision = {"verdict": review["choices"][0], "comment": ""}
                ravi.post(f"/api/v1/reviews/{review['review_id']}/decision", json=decision).raise_for_status()


@pytest.mark.usefixtures("nothing_to_review")
def test_a_file_becomes_runs_that_survive_a_reload_and_end_after_their_reviews(log_in: Login) -> None:
    mia = log_in(MIA)
    rows = (*(good(number) for number in range(1, 9)), bad(9), doubtful(10), doubtful(11))
    mia.say("Process these applications", ("main-job.csv", csv_file(*rows)))
    expect(mia.answers.first).to_contain_text("11 loan-approval runs", timeout=FOR_RUNS_MS)
    expect(mia.runs).to_have_count(1)
    mia.picture("chat-runs-started")

    mia.reload()  # in the middle: the conversation, its file and its card come back, and the card goes on
    expect(mia.runs).to_contain_text("9 of 11 runs finished", timeout=FOR_RUNS_MS)
    expect(mia.runs).to_contain_text("2 wait for a reviewer's decision")
    expect(mia.runs.locator("[data-count=approved]")).to_have_text("8 approved")
    expect(mia.runs.locator("[data-count=declined]")).to_have_text("1 declined")
    mia.picture("chat-runs-waiting")

    ravi, rosa = log_in(RAVI), log_in(ROSA)
    for reviewer in (ravi, rosa):
        reviewer.say("What waits for review?")
        expect(reviewer.review(10)).to_be_visible(timeout=DEADLINE_MS)
    expect(ravi.review(10)).to_contain_text("Derogatory reports")
    ravi.picture("chat-review")
    ravi.review(10).get_by_label("Comment").fill("Income confirmed by phone.")
    ravi.review(10).get_by_role("button", name="Approve").click()
    expect(ravi.review(10)).to_contain_text("Approve by you", timeout=DEADLINE_MS)
    expect(rosa.review(10)).to_contain_text("Approve by Ravi", timeout=DEADLINE_MS)
    rosa.review(11).get_by_role("button", name="Decline").click()
    expect(rosa.review(11)).to_contain_text("Decline by you", timeout=DEADLINE_MS)
    ravi.reload()
    expect(ravi.review(10)).to_contain_text("Income confirmed by phone.", timeout=DEADLINE_MS)
    expect(ravi.review(11)).to_contain_text("Decline by Rosa")

    expect(mia.runs).to_contain_text("All 11 runs finished", timeout=FOR_RUNS_MS)
    mia.say("Summarise what was declined and why")
    expect(mia.answers.last).to_contain_text("2 of 11 applications were declined", timeout=DEADLINE_MS)
    expect(mia.answers.last).to_contain_text("The credit score is below 620")
    expect(mia.answers.last).to_contain_text("A reviewer declined after looking at the case")
    mia.picture("chat-summary")


def test_asking_for_the_same_file_again_starts_nothing_twice_and_bad_rows_are_named(log_in: Login) -> None:
    mia = log_in("mia@credit-union.example")
    empty: FilePayload = {"name": "empty.csv", "mimeType": "text/csv", "buffer": b""}
    expect(mia.page.locator("#upload-button")).to_be_enabled(timeout=DEADLINE_MS)
    mia.page.set_input_files("#upload-button-input", empty)
    told(mia.page, "Failed to upload empty.csv: The file is empty.")
    content = csv_file(good(1), good(2).replace("yes,no", "perhaps,no"))
    mia.say("Start all of them", ("twice.csv", content))
    expect(mia.answers.first).to_contain_text("1 loan-approval run", timeout=FOR_RUNS_MS)
    expect(mia.answers.first).to_contain_text("line 3: owner: must be yes or no")

    mia.say("Start all of them", ("twice.csv", content))

    expect(mia.answers.last).to_contain_text("had been started before", timeout=FOR_RUNS_MS)
    expect(mia.runs.last).to_contain_text("The run is finished", timeout=FOR_RUNS_MS)


def test_a_tenant_over_its_limits_is_told_why_in_words(log_in: Login) -> None:
    mia = log_in("mia@fintech-startup.example")
    mia.say("Process all of them", ("limits.csv", csv_file(*(good(number) for number in range(1, 15)))))
    expect(mia.runs).to_contain_text("wait for an external service's rate limit to free up", timeout=FOR_RUNS_MS)
    mia.say("How far is it?")
    expect(mia.answers.last).to_contain_text("Of 14 runs", timeout=DEADLINE_MS)


def test_nobody_else_sees_a_conversation_its_files_or_its_runs(log_in: Login) -> None:
    mia = log_in("mia@credit-union.example")
    mia.say("Process it", ("private.csv", csv_file(good(77))))
    expect(mia.runs).to_contain_text("finished", timeout=FOR_RUNS_MS)
    mia.reload()
    address = mia.page.url
    link = mia.page.locator("a[download='private.csv']")
    expect(link).to_be_visible(timeout=DEADLINE_MS)
    file = link.get_attribute("href") or ""
    answer = mia.page.request.get(file)
    assert answer.body() == csv_file(good(77))
    assert answer.headers["content-disposition"].startswith("attachment")

    thread = address.rpartition("/")[2]
    for stranger in (log_in("ravi@credit-union.example"), log_in(MIA)):
        assert stranger.page.request.get(file).status == 404
        assert stranger.page.request.get(f"/chat/project/thread/{thread}").status == 404
        stranger.page.goto(address)
        expect(stranger.page.get_by_text("private.csv")).to_have_count(0)
        stranger.page.goto("/chat/")
        stranger.say("How far are the runs?")
        expect(stranger.answers.last).not_to_contain_text("private.csv", timeout=DEADLINE_MS)

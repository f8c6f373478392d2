"""Answers that are stopped or looked at again before they end, in a real browser."""

from __future__ import annotations

import time

import pytest
from playwright.sync_api import Route, expect

from tests.fixtures.applications import csv_file, good
from tests.fixtures.browser import DEADLINE_MS, FOR_RUNS_MS, Login, Person
from tests.fixtures.slow_model import SlowWeb, slow_web

__all__ = ["slow_web"]
MIA = "mia@regional-bank.example"
QUESTION = "What can you do?"
FIRST = "I am the offline model"
LAST = "cancel a run"


@pytest.fixture
def mia(log_in: Login, slow_web: SlowWeb) -> Person:
    """A member in the chat of the web process whose model is slow."""
    return log_in(MIA, base_url=slow_web.url)


def begin(mia: Person, slow_web: SlowWeb) -> str:
    """Ask, and see the beginning of an answer that does not go on."""
    mia.say(QUESTION)
    expect(mia.answers).to_have_count(1, timeout=DEADLINE_MS)
    assert slow_web.gate.held.wait(10)
    expect(mia.answers.last).to_contain_text(FIRST, timeout=DEADLINE_MS)
    mia.page.wait_for_url("**/thread/*")
    return mia.answers.last.inner_text()


def test_a_stopped_answer_ends_upstream_keeps_what_was_said_and_says_so(mia: Person, slow_web: SlowWeb) -> None:
    said = begin(mia, slow_web)
    pressed = time.monotonic()
    mia.page.locator("#stop-button").click()
    assert slow_web.gate.gone.wait(10)
    assert slow_web.gate.gone_at - pressed <= 0.5
    expect(mia.page.get_by_text("Stopped.", exact=True)).to_be_visible(timeout=DEADLINE_MS)
    mia.picture("chat-stopped")
    mia.page.reload()
    expect(mia.page.get_by_text("Stopped.", exact=True)).to_be_visible(timeout=DEADLINE_MS)
    assert mia.answers.first.inner_text().strip() == said.strip()

    slow_web.gate.holding = False
    mia.say(QUESTION)
    expect(mia.answers.last).to_contain_text(LAST, timeout=DEADLINE_MS)
    expect(mia.answers).to_have_count(2)


def test_an_answer_goes_on_before_the_eyes_of_whoever_reloads(mia: Person, slow_web: SlowWeb) -> None:
    said = begin(mia, slow_web)
    mia.page.reload()
    expect(mia.answers.last).to_contain_text(said.strip(), timeout=DEADLINE_MS)
    expect(mia.page.locator("#stop-button")).to_be_visible(timeout=DEADLINE_MS)
    slow_web.gate.open.set()
    expect(mia.answers.last).to_contain_text(LAST, timeout=DEADLINE_MS)
    expect(mia.page.locator("#stop-button")).to_have_count(0, timeout=DEADLINE_MS)
    seen = mia.answers.last.inner_text()
    mia.page.reload()
    expect(mia.answers).to_have_count(1, timeout=DEADLINE_MS)
    assert mia.answers.last.inner_text() == seen


def test_an_answer_can_be_stopped_after_a_reload(mia: Person, slow_web: SlowWeb) -> None:
    begin(mia, slow_web)
    mia.page.reload()
    mia.page.locator("#stop-button").click(timeout=DEADLINE_MS)
    assert slow_web.gate.gone.wait(10)
    expect(mia.page.get_by_text("Stopped.", exact=True)).to_be_visible(timeout=DEADLINE_MS)


def test_runs_that_were_started_before_the_stop_go_on_and_the_chat_says_so(mia: Person, slow_web: SlowWeb) -> None:
    slow_web.gate.only = b"function_call_output"
    mia.say("Process these applications", ("stopped.csv", csv_file(good(1), good(2), good(3))))
    assert slow_web.gate.held.wait(30)
    mia.page.locator("#stop-button").click()
    expect(mia.page.get_by_text("runs that have started go on")).to_be_visible(timeout=DEADLINE_MS)
    assert slow_web.gate.gone.wait(10)
    expect(mia.runs).to_contain_text("All 3 runs finished", timeout=FOR_RUNS_MS)
    mia.picture("chat-stopped-runs")


def test_a_conversation_opens_by_its_address_whichever_connection_is_answered_first(log_in: Login) -> None:
    mia = log_in(MIA)
    mia.say(QUESTION)
    expect(mia.answers.last).to_contain_text(LAST, timeout=DEADLINE_MS)
    mia.page.wait_for_url("**/thread/*")
    address = mia.page.url
    attempts: list[Route] = []

    def hold_the_first(route: Route) -> None:
        attempts.append(route)
        if len(attempts) > 1:
            route.continue_()

    mia.page.route("**/set-session-cookie", hold_the_first)
    mia.page.goto(address)
    expect(mia.answers.last).to_contain_text(LAST, timeout=DEADLINE_MS)
    assert len(attempts) > 1, "the page connects twice: that is what goes wrong"
    with mia.page.expect_response("**/set-session-cookie"):
        attempts[0].continue_()
    # A connection without a conversation would begin a new one with this.
    mia.say(QUESTION)
    expect(mia.answers).to_have_count(2, timeout=DEADLINE_MS)
    expect(mia.answers.last).to_contain_text(LAST, timeout=DEADLINE_MS)
    assert mia.page.url == address

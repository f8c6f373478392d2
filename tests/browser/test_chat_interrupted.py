"""Answers that are stopped or looked at again before they end, in a real browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import Request, Route, WebSocketRoute, expect

from tests.fixtures.applications import csv_file, good
from tests.fixtures.browser import DEADLINE_MS, FOR_RUNS_MS, Login, Person
from tests.fixtures.slow_model import SlowWeb, slow_web

__all__ = ["slow_web"]
MIA = "mia@regional-bank.example"
QUESTION = "What can you do?"
LAST = "cancel a run"


@pytest.fixture
def mia(log_in: Login, slow_web: SlowWeb) -> Person:
    """A member in the chat of the web process whose model is slow."""
    return log_in(MIA, base_url=slow_web.url)


def begin(mia: Person, slow_web: SlowWeb) -> str:
    """Ask, and see all there is of an answer that does not go on."""
    mia.say(QUESTION)
    assert slow_web.gate.held.wait(30)
    expect(mia.answers).to_have_count(1)
    expect(mia.answers.last).to_contain_text(slow_web.gate.said.rpartition("- ")[2].strip())  # the page draws a list
    mia.page.wait_for_url("**/thread/*")
    return mia.answers.last.inner_text()


def stop(mia: Person, slow_web: SlowWeb) -> float:
    """Press the stop button; the seconds from the click to the end of the call of the model."""
    mia.page.evaluate("addEventListener('click', () => { window.clickedAt = Date.now() }, { capture: true })")
    mia.page.locator("#stop-button").click()
    assert slow_web.gate.gone.wait(30)
    return slow_web.gate.gone_at - float(mia.page.evaluate("window.clickedAt")) / 1_000


def test_a_stopped_answer_ends_upstream_keeps_what_was_said_and_says_so(mia: Person, slow_web: SlowWeb) -> None:
    said = begin(mia, slow_web)
    assert stop(mia, slow_web) <= 0.5
    expect(mia.page.get_by_text("Stopped.", exact=True)).to_be_visible(timeout=DEADLINE_MS)
    mia.picture("chat-stopped")
    mia.reload()
    expect(mia.page.get_by_text("Stopped.", exact=True)).to_be_visible(timeout=DEADLINE_MS)
    expect(mia.answers.first).to_have_text(said.strip(), use_inner_text=True)

    slow_web.gate.holding = False
    mia.say(QUESTION)
    expect(mia.answers.last).to_contain_text(LAST, timeout=DEADLINE_MS)
    expect(mia.answers).to_have_count(2)


def test_an_answer_goes_on_before_the_eyes_of_whoever_reloads(mia: Person, slow_web: SlowWeb) -> None:
    said = begin(mia, slow_web)
    mia.reload()
    expect(mia.answers.last).to_contain_text(said.strip(), timeout=DEADLINE_MS)
    expect(mia.page.locator("#stop-button")).to_be_visible(timeout=DEADLINE_MS)
    slow_web.gate.open.set()
    expect(mia.answers.last).to_contain_text(LAST, timeout=DEADLINE_MS)
    expect(mia.page.locator("#stop-button")).to_have_count(0, timeout=DEADLINE_MS)
    seen = mia.answers.last.inner_text()
    mia.reload()
    expect(mia.answers).to_have_count(1, timeout=DEADLINE_MS)
    expect(mia.answers.last).to_have_text(seen, use_inner_text=True)


def test_an_answer_can_be_stopped_after_a_reload(mia: Person, slow_web: SlowWeb) -> None:
    said = begin(mia, slow_web)
    mia.reload()
    expect(mia.answers.last).to_contain_text(said.strip(), timeout=DEADLINE_MS)
    stop(mia, slow_web)
    expect(mia.page.get_by_text("Stopped.", exact=True)).to_be_visible(timeout=DEADLINE_MS)


def test_runs_that_were_started_before_the_stop_go_on_and_the_chat_says_so(mia: Person, slow_web: SlowWeb) -> None:
    slow_web.gate.only = b"function_call_output"
    mia.say("Process these applications", ("stopped.csv", csv_file(good(1), good(2), good(3))))
    assert slow_web.gate.held.wait(30)
    stop(mia, slow_web)
    expect(mia.page.get_by_text("runs that have started go on")).to_be_visible(timeout=DEADLINE_MS)
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


def test_a_conversation_opens_though_a_connection_breaks_or_falls_silent_before_it_was_sent(log_in: Login) -> None:
    mia = log_in(MIA)
    mia.say(QUESTION)
    expect(mia.answers.last).to_contain_text(LAST)
    mia.page.wait_for_url("**/thread/*")
    loads: list[Request] = []
    mia.page.on("request", lambda request: loads.append(request) if request.is_navigation_request() else None)
    thread = mia.page.url.rpartition("/")[2]
    asking: list[WebSocketRoute] = []
    broken: list[WebSocketRoute] = []

    def break_the_first(page: WebSocketRoute) -> None:
        server = page.connect_to_server()

        def pass_on(message: str | bytes) -> None:
            if thread in str(message):
                asking.append(page)
            if not broken and page in asking and "connection_successful" in str(message):
                broken.append(page)
                page.close()
                server.close()
            else:
                server.send(message)

        page.on_message(pass_on)

    def deaf_until_loaded_anew(page: WebSocketRoute) -> None:
        if len(loads) > 2:
            page.connect_to_server()

    mia.page.route_web_socket("**/ws/socket.io/**", break_the_first)
    mia.page.reload()
    expect(mia.answers.last).to_contain_text(LAST)
    assert (len(broken), len(loads)) == (1, 1)

    mia.page.route_web_socket("**/ws/socket.io/**", deaf_until_loaded_anew)
    mia.page.reload()
    expect(mia.answers.last).to_contain_text(LAST)
    assert len(loads) == 3

"""Memory, schedules, the list of conversations and the end of a login, in a real browser."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.fixtures.browser import DEADLINE_MS, Login

MIA = "mia@regional-bank.example"


def test_what_is_remembered_is_known_in_a_new_conversation_and_to_no_other_tenant(log_in: Login) -> None:
    mia = log_in(MIA)
    mia.say("Remember that we never approve below 620.")
    expect(mia.answers.last).to_contain_text("I will remember", timeout=DEADLINE_MS)

    mia.page.goto("/chat/")
    mia.say("Below which score do we never approve?")
    expect(mia.answers.last).to_contain_text("620", timeout=DEADLINE_MS)
    mia.picture("chat-memory")

    stranger = log_in("mia@credit-union.example")
    stranger.say("Below which score do we never approve?")
    expect(stranger.answers.last).to_contain_text(re.compile("know nothing|No memory"), timeout=DEADLINE_MS)


def test_a_schedule_is_made_by_asking_for_it(log_in: Login) -> None:
    mia = log_in(MIA)
    mia.say("Every weekday at 09:00 re-check pending applications")
    expect(mia.answers.last).to_contain_text("Scheduled", timeout=DEADLINE_MS)
    expect(mia.answers.last).to_contain_text("09:00")
    mia.say("Which schedules are there?")
    expect(mia.answers.last).to_contain_text("loan-recheck", timeout=DEADLINE_MS)


def test_the_chat_says_that_the_offline_model_answers_and_fits_a_phone_in_the_dark(log_in: Login) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "is_mobile": True, "has_touch": True}
    ravi = log_in("ravi@fintech-startup.example", **phone)
    expect(ravi.page.locator("html")).to_have_class("dark")
    expect(ravi.page.locator("#starters")).to_contain_text("What waits for review?")
    ravi.picture("chat-phone")
    ravi.say("What can you do?")
    expect(ravi.answers.last).to_contain_text("I am the offline model", timeout=DEADLINE_MS)
    expect(ravi.page.locator(".watermark")).to_contain_text("Offline model")
    width = ravi.page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390


def test_conversations_can_be_found_renamed_rated_and_deleted(log_in: Login) -> None:
    ada = log_in("ada@credit-union.example")
    ada.say("What can you do?")
    expect(ada.answers.last).to_contain_text("I am the offline model", timeout=DEADLINE_MS)
    ada.page.wait_for_url("**/thread/*")
    thread = ada.page.url.rpartition("/")[2]
    ada.page.locator(".positive-feedback-off").click()
    ada.page.get_by_role("button", name="Submit").click()
    expect(ada.page.locator(".positive-feedback-on")).to_be_visible()
    renamed = ada.page.request.put("/chat/project/thread", data={"threadId": thread, "name": "About you"})
    assert renamed.ok

    ada.reload()
    expect(ada.page.locator(".positive-feedback-on")).to_be_visible(timeout=DEADLINE_MS)
    expect(ada.page.get_by_text("About you")).to_be_visible()
    for search, found in (("about y", 1), ("offline model", 1), ("nothing like it", 0)):
        query = {"pagination": {"first": 20}, "filter": {"search": search}}
        answer = ada.page.request.post("/chat/project/threads", data=query).json()
        assert len(answer["data"]) == found, search

    assert ada.page.request.delete("/chat/project/thread", data={"threadId": thread}).ok
    ada.page.goto(f"/chat/thread/{thread}")
    expect(ada.page.get_by_text("About you")).to_have_count(0, timeout=DEADLINE_MS)


def test_an_open_conversation_stops_answering_when_the_login_ends(log_in: Login) -> None:
    ada = log_in("ada@fintech-startup.example")
    ada.say("What can you do?")
    expect(ada.answers).to_have_count(1, timeout=DEADLINE_MS)
    other_tab = ada.page.context.new_page()
    other_tab.goto("/logout")
    other_tab.get_by_role("button", name="Log out").click()
    expect(other_tab.get_by_role("button", name="Log in")).to_be_visible(timeout=DEADLINE_MS)

    ada.say("How far are the runs?")

    expect(ada.answers.last).to_contain_text("The session is over", timeout=DEADLINE_MS)
    ada.page.reload()
    ada.page.wait_for_url(re.compile(r"/login\?next="))


def test_an_operator_has_no_conversations(log_in: Login, installation: object) -> None:
    mia = log_in(MIA)
    mia.page.goto("/logout")
    mia.page.get_by_role("button", name="Log out").click()
    mia.page.goto("/login?next=/chat/")
    mia.page.fill("#email", "olga@platform.example")
    mia.page.fill("#password", "bailiwick-demo")
    mia.page.get_by_role("button", name="Log in").click()
    expect(mia.page.get_by_text("Your account has no conversations.")).to_be_visible(timeout=DEADLINE_MS)

"""A review with a form, filled in on its card in the chat."""

from __future__ import annotations

from contextlib import closing

from playwright.sync_api import expect

from tests.fixtures.browser import DEADLINE_MS, Login
from tests.fixtures.installation import Installation, until


def test_a_reviewer_fills_in_a_form_is_told_what_is_wrong_with_it_and_decides(
    log_in: Login, installation: Installation
) -> None:
    with closing(installation.browser("mia@credit-union.example")) as http:
        body = {"workflow": "credit-line", "input": {"name": "Cora"}}
        run = http.post("/api/v1/runs", json=body).raise_for_status().json()
        path = f"/api/v1/runs/{run['run_id']}"
        until(lambda: http.get(path).json()["state"] == "waiting", 30)

        ravi = log_in("ravi@credit-union.example")
        ravi.say("What waits for review?")
        card = ravi.page.locator("section[data-review]").filter(has_text="A credit line for Cora")
        expect(card).to_be_visible(timeout=DEADLINE_MS)
        titles = [
            "Amount in USD *",
            "Rate in per cent",
            "Purpose *",
            "Secured",
            "Valid until *",
            "Note to the customer",
        ]
        expect(card.locator("label")).to_have_text(titles)  # in the order in which the workflow's author wrote them
        card.get_by_label("Amount in USD").fill("9000")
        card.get_by_label("Purpose").select_option(label="home")
        card.get_by_label("Secured").check()
        card.get_by_label("Note to the customer").fill("Welcome.")
        card.get_by_label("Comment").fill("Known for years.")
        card.get_by_role("button", name="Approve").click()
        expect(card).to_contain_text("This is at most 5000.", timeout=DEADLINE_MS)
        expect(card).to_contain_text("This is needed.")
        ravi.picture("chat-form-faults")

        expect(card.get_by_label("Amount in USD")).to_have_value("9000")  # what was filled in is still there
        expect(card.get_by_label("Comment")).to_have_value("Known for years.")
        card.get_by_label("Amount in USD").fill("900")
        card.get_by_label("Valid until").fill("2027-03-31")
        card.get_by_role("button", name="Approve").click()
        expect(card).to_contain_text("Approve by you", timeout=DEADLINE_MS)
        ravi.picture("chat-form-decided")
        until(lambda: http.get(path).json()["state"] == "succeeded", 30)
        assert http.get(path).json()["output"] == {
            "amount_usd": 900,
            "rate": 7.5,
            "purpose": "home",
            "secured": True,
            "until": "2027-03-31",
            "note": "Welcome.",
        }

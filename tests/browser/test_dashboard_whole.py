"""The dashboard of a whole installation: the login it shares with the chat, and a case that is decided in it."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
from playwright.sync_api import Browser, Page, expect

from core.demo.keys import read_keys
from core.demo.tenants import PASSWORD
from core.settings import Port
from tests.fixtures.browser import DEADLINE_MS, FOR_RUNS_MS
from tests.fixtures.installation import Installation, until
from tests.fixtures.looking import settled
from tests.fixtures.web import APPLICATION

DOUBTFUL = APPLICATION | {"application_id": "901", "reports": 1, "income": 4.0, "share": 0.05, "active": 22}


def through_the_login(chromium: Browser, installation: Installation, email: str, path: str) -> Page:
    """Ask the dashboard for a page as a stranger, log in where it sends one to, and arrive at that page."""
    context = chromium.new_context(viewport={"width": 1440, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(DEADLINE_MS)
    page.goto(installation.url(Port.DASHBOARD, path))
    page.wait_for_url(f"{installation.url(Port.WEB)}/login**")
    page.fill("#email", email)
    page.fill("#password", PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(installation.url(Port.DASHBOARD, path))
    return page


def test_a_case_is_decided_in_the_dashboard_and_its_run_goes_on_to_its_end(
    installation: Installation, chromium: Browser, pictures: Path
) -> None:
    ravi = through_the_login(chromium, installation, "ravi@credit-union.example", "/reviews")
    key = read_keys(installation.settings)["credit-union"]
    with httpx.Client(base_url=installation.url(Port.WEB, "/api/v1"), trust_env=False) as http:
        http.headers["Authorization"] = f"Bearer {key}"
        submitted = http.post("/runs", json={"workflow": "loan-approval", "input": DOUBTFUL})
        assert submitted.is_success, submitted.text
        run = f"/runs/{submitted.json()['run_id']}"

        title = ravi.get_by_role("heading", name="Application 901")
        until(lambda: http.get(run).json()["cause"] == "review", FOR_RUNS_MS / 1000)
        ravi.goto(installation.url(Port.DASHBOARD, "/reviews"))
        expect(title).to_be_visible()
        settled(ravi)
        ravi.get_by_role("radio", name="approve", exact=True).click()
        ravi.get_by_label("Comment").fill("Known to the branch.")
        ravi.get_by_role("button", name="Decide").click()
        expect(title).to_have_count(0)
        until(lambda: http.get(run).json()["state"] == "succeeded", FOR_RUNS_MS / 1000)
        assert http.get(run).json()["outcome"] == "approved"

    ravi.goto(installation.url(Port.DASHBOARD, run.replace("/runs/", "/runs?run=")))
    expect(ravi.get_by_text("approved").first).to_be_visible()
    ravi.get_by_role("tab", name="Output").click()
    expect(ravi.get_by_text("Known to the branch.")).to_be_visible()
    ravi.context.close()

    olga = through_the_login(chromium, installation, "olga@platform.example", "/")
    workers = olga.get_by_test_id("stMetric").filter(has_text="Workers")
    expect(workers.get_by_test_id("stMetricValue")).to_have_text(re.compile("^[1-9]"))
    expect(workers).not_to_contain_text("silent")
    # Waits by cause join the other five as soon as somebody has waited.
    expect(olga.locator(".js-plotly-plot").nth(4)).to_be_visible()
    olga.screenshot(path=pictures / "dashboard-whole.png")
    olga.context.close()

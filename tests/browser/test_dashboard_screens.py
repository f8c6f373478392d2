"""The dashboard in a real browser, on three tenants after a busy hour: what each role sees, finds and does."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
from playwright.sync_api import expect

from core.runs.acts import Act
from core.settings import Port
from core.tenancy import Role
from tests.fixtures.browser import told
from tests.fixtures.busy import BusyDashboard
from tests.fixtures.looking import ADA, MIA, RAVI, Look, open_row, settled, tile
from tests.fixtures.web import LOAN
from tests.fixtures.work import Work


def test_somebody_without_a_session_is_sent_to_the_login_and_gets_nothing_else(busy_dashboard: BusyDashboard) -> None:
    with httpx.Client(base_url=busy_dashboard.url, trust_env=False) as http:
        for cookies in ({}, {"bailiwick_session": "x" * 43}):
            http.cookies = httpx.Cookies(cookies)
            answer = http.get("/runs?state=failed")
            assert answer.status_code == 303
            to = urlsplit(answer.headers["location"])
            assert (to.port, to.path) == (busy_dashboard.settings.port(Port.WEB), "/login")
            assert parse_qs(to.query)["next"] == [f"{busy_dashboard.url}/runs?state=failed"]
        assert http.get("/", headers={"Host": "evil.example"}).status_code == 421
        assert http.get("/healthz").json() == {"status": "ok"}
        assert "bailiwick_build_info" in http.get("/metrics").text
        static = http.get("/static/none.js")
        assert static.headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in static.headers["content-security-policy"]


def test_an_admin_filters_failed_runs_opens_one_retries_it_and_returns_to_the_filter(
    look: Look, pictures: Path
) -> None:
    page = look(ADA, "/runs")
    page.get_by_text("failed", exact=True).click()
    page.wait_for_url("**/runs?state=failed")
    # The browser writes the address before anybody has filtered anything. All runs are more than a page, these are not.
    expect(page.get_by_role("button", name="Older")).to_be_disabled()
    open_row(page, 1, "**run=run_*")
    expect(page.locator(".js-plotly-plot")).to_be_visible()
    page.get_by_role("tab", name="Output").click()
    expect(page.get_by_text("a secret of the tenant")).to_be_visible()  # their own error, for their eyes
    page.get_by_role("button", name="Retry").click()
    page.get_by_role("dialog").get_by_role("button", name="Retry the run").click()
    expect(page.get_by_text("queued:")).to_be_visible()
    # What is shown above it has changed; the tab that was chosen stays.
    expect(page.get_by_role("tab", name="Output")).to_have_attribute("aria-selected", "true")
    page.screenshot(path=pictures / "dashboard-run.png")
    settled(page)
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the run").click()
    expect(page.get_by_text("cancelled").first).to_be_visible()
    settled(page)
    page.get_by_role("button", name="All runs").click()
    page.wait_for_url("**/runs?state=failed")


def test_an_admin_pauses_a_run_resumes_it_and_forks_it(
    look: Look, busy_dashboard: BusyDashboard, pictures: Path
) -> None:
    page = look(ADA, f"/runs?run={busy_dashboard.busy.parked}")
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("dialog").get_by_role("button", name="Pause the run").click()
    expect(page.get_by_text("waiting: paused")).to_be_visible()
    page.screenshot(path=pictures / "dashboard-paused.png")
    settled(page)
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("dialog").get_by_role("button", name="Resume the run").click()
    expect(page.get_by_text("waiting: review")).to_be_visible()
    settled(page)
    page.get_by_role("button", name="Budget").click()
    dialog = page.get_by_role("dialog")
    amount = dialog.get_by_role("spinbutton", name="Budget in USD")
    amount.fill("99")
    amount.press("Tab")
    dialog.get_by_role("button", name="Set the budget").click()
    expect(dialog.get_by_text("The policy allows a run at most")).to_be_visible()
    expect(amount).to_have_value("99.0000")
    amount.fill("0.07")
    page.screenshot(path=pictures / "dashboard-budget.png")
    dialog.get_by_role("button", name="Set the budget").click()
    expect(page.get_by_text("of $0.07")).to_be_visible()
    settled(page)
    page.get_by_role("button", name="Fork").click()
    dialog.get_by_role("textbox", name="Input").fill("{")
    dialog.get_by_role("button", name="Fork the run").click()
    expect(dialog.get_by_text("This is not JSON")).to_be_visible()
    dialog.get_by_role("textbox", name="Input").fill(json.dumps(LOAN["input"]))
    page.keyboard.press("Tab")
    expect(dialog.get_by_text("This is not JSON")).to_have_count(0)
    page.screenshot(path=pictures / "dashboard-fork.png")
    dialog.get_by_role("button", name="Fork the run").click()
    expect(page.get_by_text("forked from")).to_be_visible()
    page.get_by_role("tab", name="Input").click()
    expect(page.get_by_text("expenditure")).to_be_visible()


def test_an_admin_looks_at_what_a_filter_finds_and_cancels_all_of_it(
    look: Look, busy_dashboard: BusyDashboard, pictures: Path
) -> None:
    page = look(ADA, "/runs")
    page.get_by_text("queued", exact=True).first.click()
    page.wait_for_url("**/runs?state=queued")
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("dialog").get_by_text("There is nothing to resume")).to_be_visible()
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    settled(page)
    page.get_by_role("button", name="Cancel").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", name="Cancel")).to_be_visible()
    page.screenshot(path=pictures / "dashboard-bulk.png")
    dialog.get_by_test_id("stBaseButton-primary").click()
    expect(page.get_by_text("Cancel:")).to_be_visible()

    async def go_on(work: Work) -> None:
        """As the scheduler does; there is none here."""
        ctx = await work.context("regional-bank", Role.ADMIN)
        for left in await work.bulk.unfinished():
            assert await work.bulk.go_on(ctx, left.bulk_id, Act.CANCEL, for_s=30)

    busy_dashboard.work(go_on)
    expect(page.get_by_text("No run matches these filters.")).to_be_visible()
    page.screenshot(path=pictures / "dashboard-bulk-done.png")
    close = page.locator(".st-key-close_bulk button")
    close.click()
    expect(close).to_have_count(0)


def test_a_reviewer_decides_the_chosen_case_and_the_most_urgent_one_comes_next(look: Look, pictures: Path) -> None:
    page = look(RAVI, "/reviews")
    urgent = page.get_by_role("heading", level=3)
    expect(urgent).to_be_visible()
    first = urgent.inner_text()
    open_before = int(tile(page, "Open").inner_text())
    open_row(page, 3, "**review=rev_*")
    expect(urgent).not_to_have_text(first)
    settled(page)  # while the page is drawn anew, the form of the case before is still there
    page.get_by_role("button", name="Decide").click()
    expect(page.get_by_text("Choose a decision first.")).to_be_visible()
    settled(page)
    page.get_by_role("radio", name="decline", exact=True).click()
    page.get_by_label("Comment").fill("The income cannot be shown.")
    page.screenshot(path=pictures / "dashboard-review.png")
    page.get_by_role("button", name="Decide").click()
    expect(tile(page, "Open")).to_have_text(str(open_before - 1))
    expect(urgent).to_have_text(first)


def test_a_claimed_case_is_taken_for_colleagues_and_several_are_decided_at_once(look: Look, pictures: Path) -> None:
    page = look(RAVI, "/reviews")
    urgent = page.get_by_role("heading", level=3)
    expect(urgent).to_be_visible()
    mine = urgent.inner_text()
    page.get_by_role("button", name="Claim").click()
    expect(page.get_by_role("button", name="Release")).to_be_visible()
    expect(page.get_by_text("Ravi works on it")).to_be_visible()
    page.screenshot(path=pictures / "dashboard-claimed.png")
    colleague = look(ADA, "/reviews")
    theirs = colleague.get_by_role("heading", level=3)
    expect(theirs).to_be_visible()
    expect(theirs).not_to_have_text(mine)
    page.get_by_role("button", name="Release").click()
    expect(page.get_by_role("button", name="Claim")).to_be_visible()
    settled(page)  # the list of cases in the other tab is drawn last

    open_before = int(tile(page, "Open").inner_text())
    page.get_by_role("tab", name="Many at once").click()
    cases = page.get_by_role("combobox", name="Cases")
    for _ in range(2):
        cases.click()
        page.get_by_role("option").filter(has_text="Application").first.click()  # before them: all of them
    page.keyboard.press("Escape")
    why = page.get_by_label("Why, for all of them")
    why.fill("Known to the branch.")
    page.get_by_role("button", name="Decide all").click()
    expect(page.get_by_text("Choose the cases and a decision first.")).to_be_visible()
    expect(why).to_have_value("Known to the branch.")
    page.get_by_role("radio", name="decline", exact=True).click()
    page.screenshot(path=pictures / "dashboard-many.png")
    page.get_by_role("button", name="Decide all").click()
    page.get_by_role("tab", name="To decide").click()
    expect(tile(page, "Open")).to_have_text(str(open_before - 2))


def test_an_admin_edits_a_schedule_sees_its_next_times_and_what_is_wrong(look: Look, pictures: Path) -> None:
    page = look(ADA, "/schedules")
    expect(page.get_by_text("09:00:00")).to_be_visible()
    page.get_by_role("button", name="Edit").first.click()
    dialog = page.get_by_role("dialog")
    cron = dialog.get_by_label("Cron")
    cron.fill("61 9 * * *")
    expect(dialog.get_by_text("out of range")).to_be_visible()
    cron.fill("30 7 * * mon")
    expect(dialog.get_by_text("07:30:00").first).to_be_visible()
    page.screenshot(path=pictures / "dashboard-schedule.png")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_have_count(0)
    expect(page.get_by_text("Mon").first).to_be_visible()
    expect(page.get_by_text("30 7 * * mon")).to_be_visible()
    settled(page)
    page.get_by_role("button", name="Run now").click()
    told(page, "A run was started.")
    settled(page)
    page.get_by_role("button", name="Pause").first.click()
    expect(page.get_by_text("Fires nothing until it is resumed.")).to_be_visible()
    page.get_by_role("tab", name="By a change").click()
    expect(page.get_by_text("https://bureau.example/feed.json")).to_be_visible()


def test_an_admin_makes_a_webhook_whose_secret_is_shown_once(look: Look, pictures: Path) -> None:
    page = look(ADA, "/schedules")
    page.get_by_role("tab", name="By a webhook").click()
    expect(page.get_by_text("No trigger yet.")).to_be_visible()
    page.get_by_role("button", name="New trigger").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Create").click()
    expect(dialog.get_by_text("A name has 1 to 200 characters.")).to_be_visible()
    name = dialog.get_by_label("Name", exact=True)
    name.fill("Signed contracts")
    name.press("Enter")
    expect(dialog.get_by_text("A name has 1 to 200 characters.")).to_have_count(0)
    dialog.get_by_role("button", name="Create").click()
    expect(dialog.get_by_text("whsec_")).to_be_visible()
    page.screenshot(path=pictures / "dashboard-trigger.png")
    page.keyboard.press("Escape")
    expect(page.get_by_text("webhook at /api/v1/hooks/trg_")).to_be_visible()
    expect(page.get_by_text("whsec_")).to_have_count(0)
    settled(page)
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()


def test_an_admin_issues_a_key_and_verifies_the_chain_but_cannot_raise_the_own_cap(look: Look) -> None:
    page = look(ADA, "/tenants")
    expect(page.get_by_role("spinbutton", name="Cap (runs at a time)")).to_be_disabled()
    page.get_by_role("tab", name="API keys").click()
    page.get_by_role("button", name="New key").click()
    page.get_by_label("What is it for?").fill("loan desk")
    page.get_by_label("What is it for?").press("Tab")
    page.get_by_role("dialog").get_by_role("button", name="Issue").click()
    expect(page.get_by_role("dialog").locator("code")).to_contain_text("bw_")
    page.goto("/audit")
    page.get_by_role("button", name="Verify chain").click()
    told(page, "is whole")


def test_a_member_sees_own_runs_only_and_a_logout_closes_every_tab(look: Look, busy_dashboard: BusyDashboard) -> None:
    page = look(MIA)
    expect(page.get_by_text("No run yet.")).to_be_visible()
    for screen in ("Overview", "Reviews", "Tenants", "Audit"):
        expect(page.get_by_role("link", name=screen)).to_have_count(0)
    other = look(MIA, f"/?run={busy_dashboard.busy.failed}", page.context)
    expect(other.get_by_text("There is no such run")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    for tab in (page, other):
        expect(tab.get_by_role("link", name="Log in")).to_be_visible()

"""The dashboard in a real browser, as an operator sees it: all tenants, and no content."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import expect

from core.ids import WorkerId
from core.runs.children import Spawning
from core.runs.model import RunRequest
from core.tenancy import Policy, Role
from tests.fixtures.browser import told
from tests.fixtures.busy import BusyDashboard
from tests.fixtures.looking import OLGA, Look, settled, tile
from tests.fixtures.work import Work

CUT = """() => [...document.querySelectorAll("[data-testid=stMetric] p")].filter(
    text => text.getBoundingClientRect().right > text.parentElement.getBoundingClientRect().right + 1
).map(text => text.innerText)"""
"""What is written in the tiles beyond the room that it has."""


def test_an_operator_sees_every_tenant_live_and_no_content(
    look: Look, busy_dashboard: BusyDashboard, pictures: Path
) -> None:
    page = look(OLGA)
    expect(tile(page, "Jain's index, 5 min")).to_have_text(re.compile(r"^0\.\d{3}$|^1\.000$"))
    expect(page.locator(".js-plotly-plot")).to_have_count(6)
    expect(tile(page, "Cross-tenant correlation")).to_be_visible()
    expect(page.get_by_text("Who is hit, and why")).to_be_visible()
    expect(page.get_by_role("link", name="Reviews")).to_have_count(0)
    expect(page.get_by_role("link", name="Schedules")).to_have_count(0)
    page.screenshot(path=pictures / "dashboard-operator.png")
    page.set_viewport_size({"width": 390, "height": 1400})
    expect(page.get_by_role("radio", name="Auto")).to_be_in_viewport()
    assert page.evaluate(CUT) == []
    page.screenshot(path=pictures / "dashboard-operator-phone.png")

    queued = int(tile(page, "Queued").inner_text())

    async def submit(work: Work) -> None:
        await work.submit(await work.context("credit-union", Role.ADMIN), 5)

    busy_dashboard.work(submit)
    expect(tile(page, "Queued")).to_have_text(str(queued + 5))  # nobody reloads

    page.goto(f"/runs?run={busy_dashboard.busy.failed}")
    expect(page.get_by_text("failed").first).to_be_visible()
    expect(page.get_by_text("Inputs and outputs belong to the tenant")).to_be_visible()
    expect(page.get_by_role("tab", name="Input")).to_have_count(0)
    expect(page.get_by_role("button", name="Retry")).to_have_count(0)
    assert "a secret of the tenant" not in page.content()


def test_an_operator_replays_a_dead_run_after_a_look_at_its_children_and_sees_what_steps_cost(
    look: Look, busy_dashboard: BusyDashboard, pictures: Path
) -> None:
    async def die(work: Work) -> str:
        """It breaks once too often, with three children, one of which has ended."""
        ctx = await work.tenant("mutual-society", Policy(max_recoveries=0))
        (run,) = await work.submit(ctx, 1, workflow="doomed")
        worker = WorkerId("doomed-worker")
        (claim,) = await work.claim(worker, 1, codes=["doomed@1"])
        on = await work.executing(claim)
        attempt = await work.execution.begin_step(on, 1, "weigh", "step", estimate_microusd=1_000)
        await work.execution.finish_step(on, 1, attempt, {}, cost_microusd=2_500)
        three = Spawning(2, "spawn: doomed-child", of=3, at_once=3)
        await work.children.spawn(on, three, [0, 1, 2], [RunRequest("doomed-child", {})] * 3)
        (child,) = await work.claim(worker, 1, codes=["doomed-child@1"])
        await work.finish(child)
        given_back = await work.queue.give_back(claim.held, {"code": "internal_error", "message": "It broke."})
        assert given_back is not None
        assert given_back.dead
        await work.queue.leave(worker)
        return run.run_id

    run_id = busy_dashboard.work(die)
    page = look(OLGA, f"/runs?run={run_id}")
    expect(page.get_by_text("of Mutual Society")).to_be_visible()
    page.get_by_text("Children: 2 queued · 1 succeeded").click()
    expect(page.get_by_role("link", name="run_").first).to_be_visible()
    page.screenshot(path=pictures / "dashboard-dead.png")
    page.get_by_role("button", name="Replay").click()
    page.get_by_role("dialog").get_by_role("button", name="Replay the run").click()
    told(page, "The run is queued again.")
    expect(page.get_by_role("button", name="Replay")).to_have_count(0)

    async def audited(work: Work) -> tuple[str, str]:
        ctx = await work.context("mutual-society", Role.ADMIN)
        entry = (await work.audit.recent(ctx, 1))[0]
        return entry.act, entry.subject

    assert busy_dashboard.work(audited) == ("run.retry", f"run:{run_id}")
    page.goto("/tenants?policy_of=mutual-society")
    page.get_by_role("tab", name="Costs of steps").click()
    cells = page.get_by_role("row").filter(has_text="weigh").get_by_role("cell")
    expect(cells).to_have_text(["doomed", "weigh", "1", "$0.0025", "100 %", "$0.0015"])
    page.screenshot(path=pictures / "dashboard-costs.png")


def test_an_operator_changes_a_policy_after_seeing_before_and_after_and_pauses_the_tenant(
    look: Look, busy_dashboard: BusyDashboard, pictures: Path
) -> None:
    page = look(OLGA, "/tenants?policy_of=nobody")
    expect(page.get_by_text("There is no tenant nobody.")).to_be_visible()
    page.goto("/tenants?policy_of=fintech-startup")
    cap = page.get_by_role("spinbutton", name="Cap (runs at a time)")
    expect(cap).to_have_value("3")
    cap.fill("-5")
    cap.press("Enter")
    expect(page.get_by_text("Cap (runs at a time): at least 1")).to_be_visible()
    cap.fill("1e5")
    cap.press("Enter")
    expect(cap).to_have_value("100000")
    cap.fill("1.5")
    cap.press("Enter")
    expect(page.get_by_text("Cap (runs at a time): a whole number")).to_be_visible()
    cap.fill("6")
    cap.press("Enter")
    page.get_by_role("button", name="Review 1 change").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("version 1 → 2")).to_be_visible()
    page.screenshot(path=pictures / "dashboard-policy.png")
    dialog.get_by_role("button", name="Put it in force").click()
    expect(tile(page, "Running")).to_have_text("3 / 6")
    settled(page)
    page.get_by_role("button", name="Pause this tenant").click()
    page.get_by_role("dialog").get_by_role("button", name="Pause", exact=True).click()
    expect(page.get_by_role("button", name="Resume this tenant")).to_be_visible()
    settled(page)
    page.get_by_role("button", name="Drain this tenant").click()
    page.get_by_role("dialog").get_by_role("button", name="Drain", exact=True).click()
    expect(page.get_by_role("button", name="End draining this tenant")).to_be_visible()
    settled(page)
    page.get_by_text("Platform", exact=True).click()
    page.get_by_role("spinbutton", name="Slots that may be held at once").fill("20")
    page.get_by_role("button", name="Put it in force").click()
    told(page, "The platform's cap is 20.")

    async def audited(work: Work) -> list[str]:
        ctx = await work.context("fintech-startup", Role.ADMIN)
        return [entry.act for entry in await work.audit.recent(ctx, 3)]

    assert busy_dashboard.work(audited) == ["tenant.drain", "tenant.pause", "policy.change"]


def test_an_operator_tries_promotes_and_takes_back_a_version(
    look: Look, busy_dashboard: BusyDashboard, pictures: Path
) -> None:
    async def appear(work: Work) -> None:
        """Version 2 has code and a run; who routes is another process, which sees it in the database."""
        ctx = await work.context("credit-union", Role.ADMIN)
        await work.submit(ctx, 1, version="2")

    busy_dashboard.work(appear)
    page = look(OLGA, "/versions?workflow=loan-approval")
    expect(page.locator(".js-plotly-plot")).to_have_count(2)
    page.get_by_role("button", name="Promote the canary").click()
    expect(page.get_by_text("There is nothing to promote")).to_be_visible()
    settled(page)
    page.get_by_label("All new runs of these tenants").fill("credit-union")
    page.get_by_role("button", name="Try").click()
    expect(
        page.get_by_text("5 % of the new runs of loan-approval and all of credit-union go to version 2")
    ).to_be_visible()
    page.screenshot(path=pictures / "dashboard-canary.png")
    settled(page)
    page.get_by_role("button", name="Promote the canary").click()
    expect(page.get_by_text("New runs of loan-approval go to version 2.")).to_be_visible()
    settled(page)
    page.get_by_role("button", name="Roll back").click()
    expect(page.get_by_text("New runs of loan-approval go to version 1.")).to_be_visible()
    settled(page)
    page.get_by_role("button", name="Follow the newest").click()
    expect(page.get_by_text("New runs of loan-approval go to its newest version.")).to_be_visible()
    page.screenshot(path=pictures / "dashboard-versions.png")

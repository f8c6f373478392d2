"""The dashboard in a real browser, on a tenant that calls everything as nobody would: names are nobody's markup."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page, expect

from core.ids import ReviewId, TenantId, WorkerId
from core.runs.model import RunState
from core.tenancy import Policy, Role
from tests.fixtures.busy import BusyDashboard
from tests.fixtures.looking import OLGA, Look
from tests.fixtures.people import PEOPLE_PASSWORD
from tests.fixtures.work import Work

NAME = "**x** [a](javascript:1) $x$ :red[y] <b>z</b> `c` :material/home:"
WORKER, EVE = "strange-worker", "eve@strange.example"
DRAWN = "strong:text-is('x'), a[href^=javascript], .katex, b, code:text-is('c'), [role=img][aria-label*=home]"
"""What the name would become where somebody reads it as markup."""


@dataclass(frozen=True, slots=True)
class _Strange:
    token: str
    failed: str
    review: ReviewId


async def called(work: Work) -> _Strange:
    """A tenant in which all that can have a name has this one."""
    operator = await work.people.operator()
    tenant = TenantId("strange")
    await work.tenants.create_tenant(operator, tenant, NAME, tenant, operator.region, Policy())
    roles = (Role.MEMBER, Role.REVIEWER, Role.ADMIN)
    await work.tenants.add_user(operator, tenant, EVE, NAME, PEOPLE_PASSWORD, roles)
    ctx = await work.context(tenant, *roles)
    await work.schedules.create(ctx, name=NAME, cron="0 9 * * *", workflow=NAME)
    await work.pollers.create(ctx, name=NAME, url="https://bureau.example/`x`", workflow=NAME)
    await work.submit(ctx, 2, workflow=NAME)
    failing, asking = await work.claim(WORKER, 2, codes=[f"{NAME}@1"])
    on = await work.executing(failing)
    attempt = await work.execution.begin_step(on, 1, NAME, "step", estimate_microusd=1_000)
    await work.execution.finish_step(on, 1, attempt, {}, cost_microusd=2_500)
    assert await work.execution.end(on, RunState.FAILED, outcome=NAME, error={"code": NAME, "message": NAME})
    on = await work.executing(asking)
    await work.reviews.request(on, 1, pool=NAME, title=NAME, evidence={NAME: NAME}, choices=[NAME, "decline"], sla_s=60)
    await work.execution.park(on)
    await work.queue.leave(WorkerId(WORKER))
    (review,) = await work.reviews.open(ctx)
    token = (await work.tenants.login(EVE, PEOPLE_PASSWORD)).token
    return _Strange(token, failing.run_id, review.review_id)


def literally(page: Page, times: int) -> None:
    """The page says the name so many times at least, as it is, and never as what it would be in markup."""
    expect(page.get_by_text(NAME).nth(times - 1)).to_be_attached()
    assert page.locator(DRAWN).count() == 0, page.locator(DRAWN).first.evaluate("element => element.outerHTML")


def test_a_name_that_is_markup_is_shown_as_it_is_on_every_screen(
    look: Look, busy_dashboard: BusyDashboard, pictures: Path
) -> None:
    strange = busy_dashboard.work(called)
    busy_dashboard.busy.tokens[EVE] = strange.token

    page = look(EVE, "/tenants")  # beside it stands who is logged in, and where
    literally(page, 3)
    page.get_by_role("tab", name="Costs of steps").click()
    literally(page, 5)
    page.goto("/schedules")
    literally(page, 4)
    page.goto(f"/reviews?review={strange.review}")
    literally(page, 5)
    page.screenshot(path=pictures / "dashboard-names.png")

    page = look(OLGA, f"/runs?run={strange.failed}")
    literally(page, 5)
    page.screenshot(path=pictures / "dashboard-names-operator.png")
    page.goto("/tenants?policy_of=strange")
    literally(page, 1)

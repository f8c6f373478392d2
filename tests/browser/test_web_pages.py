"""Login, home and the API's page in a real browser: small and large, light and dark, by keyboard alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from core.demo.tenants import PASSWORD
from core.settings import Port
from tests.fixtures.installation import Installation

Scheme = Literal["light", "dark"]

CONTRAST = """
() => {
  const number = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = number(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("h1, p, a, label, button, summary, strong, span, code, td, th")) {
    if (!element.innerText || !element.checkVisibility()) continue;
    const [a, b] = [light(number(getComputedStyle(element).color)), light(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${element.tagName} ${element.innerText.slice(0, 40)} ${ratio.toFixed(2)}`);
  }
  return found;
}
"""
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


@contextmanager
def page_of(chromium: Browser, installation: Installation, scheme: Scheme, width: int) -> Iterator[Page]:
    """A fresh browser; whatever it complains about (a policy, a missing file, a script) fails the test."""
    options: dict[str, Any] = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}}
    context = chromium.new_context(base_url=installation.url(Port.WEB), **options)
    page = context.new_page()
    complaints: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type == "error" and "401 (Unauthorized)" not in message.text:
            complaints.append(message.text)

    page.on("console", heard)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()
    assert complaints == []


def readable(page: Page) -> None:
    """Every text stands out from its ground, and nothing is wider than the screen."""
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate(OVERFLOW) <= 0


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_a_person_finds_in_and_out_by_keyboard_alone(
    chromium: Browser, installation: Installation, pictures: Path, scheme: Scheme, width: int
) -> None:
    with page_of(chromium, installation, scheme, width) as page:
        page.goto("/")
        readable(page)
        page.screenshot(path=pictures / f"home-{scheme}.png")
        page.goto("/login")
        expect(page.get_by_label("E-mail")).to_be_focused()
        readable(page)
        page.keyboard.type("ada@regional-bank.example")
        page.keyboard.press("Tab")
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("E-mail or password is wrong.")
        expect(page.get_by_label("Password")).to_be_focused()
        readable(page)
        page.screenshot(path=pictures / f"login-{scheme}.png")
        page.keyboard.type(PASSWORD)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Hello Ada.")).to_be_visible()
        readable(page)
        page.get_by_role("link", name="API").press("Enter")
        expect(page.get_by_role("heading", name="The API")).to_be_visible()
        readable(page)
        page.screenshot(path=pictures / f"api-{scheme}.png")
        page.go_back()
        page.get_by_role("link", name="Log out").press("Enter")
        page.get_by_role("button", name="Log out").press("Enter")
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()


def test_the_dashboard_sends_to_the_login_and_the_login_back(chromium: Browser, installation: Installation) -> None:
    with page_of(chromium, installation, "light", 1280) as page:
        page.goto(installation.url(Port.DASHBOARD, "/"))
        page.wait_for_url("**/login?next=**")
        page.get_by_label("E-mail").fill("olga@platform.example")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url(installation.url(Port.DASHBOARD, "/**"))
        expect(page.get_by_role("link", name="Overview")).to_be_visible()
        page.goto("/")
        expect(page.get_by_role("link", name="Dashboard")).to_be_visible()
        expect(page.get_by_role("link", name="Chat")).to_have_count(0)

"""One run on its card in the chat: what it writes while it writes it, and what people do to it, by keyboard alone."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from playwright.sync_api import expect

from tests.fixtures.browser import DEADLINE_MS, FOR_RUNS_MS, Login, told
from tests.fixtures.installation import Installation

MIA = "mia@regional-bank.example"


def test_what_a_run_writes_is_seen_again_after_a_reload_and_the_run_is_paused_and_resumed_by_keyboard(
    log_in: Login, installation: Installation, tmp_path: Path
) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    with closing(installation.browser(MIA)) as http:
        body = {"workflow": "write-letter", "input": {"to": "Cora", "hold": str(hold)}}
        run_id = http.post("/api/v1/runs", json=body).raise_for_status().json()["run_id"]
    mia = log_in(MIA, viewport={"width": 390, "height": 844})
    mia.say(f"Show run {run_id}")
    written = mia.page.locator(f"[data-writing={run_id}]")
    expect(written).to_have_text("Dear Cora, ", timeout=FOR_RUNS_MS)
    mia.reload()
    expect(written).to_have_text("Dear Cora, ", timeout=DEADLINE_MS)
    mia.picture("chat-run-writes")
    assert mia.page.evaluate("document.documentElement.scrollWidth") == 390

    def press(name: str) -> None:
        button = mia.page.get_by_role("button", name=f"{name}: Write letter")
        expect(button).to_be_enabled(timeout=DEADLINE_MS)  # buttons rest until the act before is answered
        button.focus()
        mia.page.keyboard.press("Enter")

    press("Pause")
    told(mia.page, "It pauses before its next step.")
    resume = mia.page.get_by_role("button", name="Resume: Write letter")
    expect(resume).to_be_enabled(timeout=DEADLINE_MS)
    mia.page.keyboard.press("Tab")  # from the buttons' place, which kept the focus
    expect(resume).to_be_focused()
    hold.unlink()
    expect(mia.runs).to_contain_text("until somebody resumes it", timeout=FOR_RUNS_MS)
    expect(written).to_have_count(0)
    press("Cancel")
    expect(mia.page.get_by_role("button", name="No")).to_be_focused()
    mia.page.keyboard.press("Enter")
    press("Resume")
    expect(mia.runs).to_contain_text("Dear Cora, goodbye.", timeout=FOR_RUNS_MS)
    expect(mia.runs).to_have_attribute("data-done", "true")
    mia.picture("chat-run-done")

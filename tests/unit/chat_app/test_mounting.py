"""Chainlit's folder: made anew at every start, with our words and without other sites."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chat_app.mounting import OFFLINE_NOTE, ONLINE_NOTE, in_the_chat, own_page, prepare_folder
from chat_app.routes.pages import Pages
from core.errors import SetupError, Unavailable
from core.settings import Settings


def test_the_page_names_no_other_site_and_keeps_its_own_files(tmp_path: Path) -> None:
    root = prepare_folder(tmp_path / "chat", offline=True)
    page = (root / "build" / "index.html").read_text("utf-8")
    assert "https://" not in page
    assert 'src="/assets/index-' in page
    assert next((root / "build" / "assets").glob("index-*.js")).stat().st_size > 100_000


@pytest.mark.parametrize(("offline", "note"), [(True, OFFLINE_NOTE), (False, ONLINE_NOTE)])
def test_who_answers_is_said_on_every_screen(tmp_path: Path, offline: bool, note: str) -> None:
    root = prepare_folder(tmp_path / "chat", offline=offline)
    texts = json.loads((root / ".chainlit" / "translations" / "en-US.json").read_text("utf-8"))
    assert texts["chat"]["watermark"] == note
    assert note in (root / "chainlit.md").read_text("utf-8")
    assert note in (root / "public" / "bailiwick.css").read_text("utf-8")


def test_a_second_start_replaces_what_the_first_made_and_forgets_uploads(tmp_path: Path) -> None:
    root = prepare_folder(tmp_path / "chat", offline=True)
    (root / ".files").mkdir()
    (root / ".files" / "upload.csv").write_text("secret")
    prepare_folder(root, offline=False)
    assert not (root / ".files").exists()
    assert OFFLINE_NOTE not in (root / "public" / "bailiwick.css").read_text("utf-8")


def test_a_folder_that_cannot_be_made_gives_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "chat").write_text("in the way")
    with pytest.raises(SetupError, match="cannot be written"):
        prepare_folder(tmp_path / "chat", offline=True)


def test_only_links_to_other_sites_are_taken_out() -> None:
    html = '<link rel="a" href="https://x.example/a.css" /><link rel="b" href="/b.css"><script src="/c.js"></script>'
    assert own_page(html) == '<link rel="b" href="/b.css"><script src="/c.js"></script>'


def test_a_button_pressed_while_the_database_is_away_is_answered_with_what_to_do() -> None:
    respond, gone = in_the_chat(Pages(Settings())), Unavailable("Postgres went away: 10.0.0.1", retry_after_s=2)
    scope = {
        "type": "http",
        "path": "/chat/project/action",
        "query_string": b"",
        "headers": [(b"accept", b"text/html")],
    }
    pressed, opened = respond({**scope, "method": "POST"}, gone), respond({**scope, "method": "GET"}, gone)
    said = "A part that is needed here does not answer. Try again in 2 seconds."
    assert json.loads(bytes(pressed.body))["detail"] == said
    assert opened.headers["content-type"].startswith("text/html")
    assert (pressed.status_code, opened.status_code) == (503, 503)

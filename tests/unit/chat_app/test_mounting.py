"""Chainlit's folder: made anew at every start, with our words and without other sites."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chat_app.mounting import OFFLINE_NOTE, ONLINE_NOTE, own_page, prepare_folder
from core.errors import SetupError


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

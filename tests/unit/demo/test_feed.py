"""The feed and its validators."""

from __future__ import annotations

import json
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path

from core.clock import FakeClock
from core.demo.services.feed import Feed, NewEntry

NEW = NewEntry(title="Guideline 2", text="Ask for a second identity document.")


def test_a_new_entry_changes_both_validators_and_survives_a_restart(tmp_path: Path) -> None:
    clock = FakeClock()
    feed = Feed(tmp_path / "feed.jsonl")
    before = feed.headers
    clock.advance(60)
    added = feed.add(NEW, "k1", clock.now())
    assert feed.headers["ETag"] != before["ETag"]
    assert feed.headers["Last-Modified"] != before["Last-Modified"]
    again = Feed(tmp_path / "feed.jsonl")
    assert again.headers == feed.headers
    assert json.loads(again.body)["items"][0] == added


def test_the_same_key_publishes_once(tmp_path: Path) -> None:
    feed = Feed(tmp_path / "feed.jsonl")
    now = FakeClock().now()
    assert feed.add(NEW, "k1", now) == feed.add(NEW, "k1", now)
    assert len(json.loads(feed.body)["items"]) == 2


def test_a_client_is_up_to_date_by_etag_first_and_by_date_otherwise(tmp_path: Path) -> None:
    feed = Feed(tmp_path / "feed.jsonl")
    modified = feed.headers["Last-Modified"]
    earlier = format_datetime(feed.modified - timedelta(seconds=1), usegmt=True)
    assert feed.unchanged(feed.etag, None)
    assert feed.unchanged(f'"other", W/{feed.etag}', earlier)
    assert not feed.unchanged('"other"', modified)
    assert feed.unchanged(None, modified)
    assert not feed.unchanged(None, earlier)
    assert not feed.unchanged(None, "yesterday")
    assert not feed.unchanged(None, None)

"""What a poller takes for news, and when it looks again."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Conflict, InvalidInput, QuotaExceeded, Unavailable
from core.http import retry_after_s
from core.schedules.feed import Comparison, Response, compare, read_entries
from core.schedules.model import MAX_BACK_OFF_S, Seen, passes_by_itself, poll_delay, retry_delay

URL = "https://feeds.example.org/news"
ATOM = """<?xml version="1.0" encoding="utf-8"?>
<feed xmlns="http://www.w3.org/2005/Atom"><title>News</title><updated>{updated}</updated>
{entries}</feed>"""
ENTRY = (
    '<entry><id>urn:{id}</id><title type="html">Title {id}</title><link href="https://example.org/{id}"/>'
    "<summary>{text}</summary></entry>"
)
RSS = """<rss version="2.0"><channel><title>News</title><item><guid>1</guid><title>One</title>
<link>https://example.org/1</link><description>First</description></item></channel></rss>"""


def atom(*entries: tuple[int, str], updated: str = "2026-01-01T00:00:00Z") -> bytes:
    return ATOM.format(updated=updated, entries="".join(ENTRY.format(id=i, text=text) for i, text in entries)).encode()


def look(before: Seen, body: bytes, content_type: str = "application/atom+xml") -> Comparison:
    return compare(before, Response(URL, body, content_type, etag='"e"', last_modified="Mon"))


def test_the_first_look_only_remembers() -> None:
    first = look(Seen(), atom((1, "a")))
    assert first.first
    assert first.change is None
    assert (first.seen.etag, first.seen.last_modified, len(first.seen.entry_keys)) == ('"e"', "Mon", 1)


def test_only_entries_that_are_new_or_say_something_else_are_news() -> None:
    seen = look(Seen(), atom((1, "a"), (2, "b"))).seen
    assert look(seen, atom((1, "a"), (2, "b"), updated="2026-02-02T00:00:00Z")).change is None, "only the stamp moved"
    assert look(seen, atom((2, "b"))).change is None, "an entry that leaves is no news"
    news = look(seen, atom((3, "c"), (1, "a"), (2, "corrected")))
    assert news.change is not None
    assert [(e.id, e.title, e.link, e.content) for e in news.change.entries] == [
        ("urn:3", "Title 3", "https://example.org/3", "c"),
        ("urn:2", "Title 2", "https://example.org/2", "corrected"),
    ]
    assert news.change.content == ""
    assert not news.change.truncated


def test_the_same_news_have_the_same_key_whatever_surrounds_them() -> None:
    seen = look(Seen(), atom((1, "a"))).seen
    early = look(seen, atom((1, "a"), (2, "b"), updated="2026-01-01T10:00:00Z"))
    late = look(seen, atom((1, "a"), (2, "b"), updated="2026-01-01T10:00:05Z"))
    other = look(seen, atom((1, "a"), (3, "c")))
    assert early.key == late.key != other.key
    assert early.change == late.change


def test_rss_json_feeds_and_json_lists_are_read_as_entries() -> None:
    rss = read_entries(Response(URL, RSS.encode(), "application/rss+xml"))
    assert rss is not None
    assert (rss[0].id, rss[0].title, rss[0].link, rss[0].content) == ("1", "One", "https://example.org/1", "First")
    items = [{"id": 7, "title": "Seven", "url": "https://example.org/7"}, {"rate": 4.25}]
    for document in (items, {"version": "https://jsonfeed.org/version/1.1", "items": items}):
        entries = read_entries(Response(URL, json.dumps(document).encode(), "application/json"))
        assert entries is not None
        assert (entries[0].id, entries[0].title, entries[0].link) == ("7", "Seven", "https://example.org/7")
        assert json.loads(entries[1].content) == {"rate": 4.25}


def test_whatever_is_no_feed_has_changed_when_its_bytes_have() -> None:
    seen = look(Seen(), b"rate: 4.00 %", "text/plain").seen
    assert look(seen, b"rate: 4.00 %", "text/plain").change is None
    changed = look(seen, "Zins: 4,25 % für alle".encode("latin-1"), "text/plain; charset=latin-1").change
    assert changed is not None
    assert changed.content == "Zins: 4,25 % für alle"


def test_xml_with_a_document_type_is_not_parsed() -> None:
    bomb = '<!DOCTYPE rss [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]>' + RSS.replace("First", "&b;")
    assert read_entries(Response(URL, bomb.encode(), "application/rss+xml")) is None


def test_what_is_handed_on_is_bounded() -> None:
    seen = look(Seen(), atom((0, "a"))).seen
    entries = look(seen, atom(*((i, "x" * 1_000) for i in range(1, 400))))
    assert entries.change is not None
    assert entries.change.truncated
    assert 40 < len(entries.change.entries) < 100
    text = look(look(Seen(), b"", "text/plain").seen, "ü".encode() * 50_000, "text/plain").change
    assert text is not None
    assert text.truncated
    assert len(text.content.encode()) == 60_000


@given(
    st.binary(max_size=300), st.sampled_from(["application/json", "text/xml; charset=utf-16", "x; charset=nope", ""])
)
def test_no_answer_whatever_breaks_the_comparison(body: bytes, content_type: str) -> None:
    seen = Seen(content_hash=b"another")
    found = look(seen, body, content_type)
    again = look(found.seen, body, content_type)
    assert again.change is None
    assert not again.first


@given(st.integers(10, 604_800), st.integers(1, 100), st.floats(0, 1, exclude_max=True))
def test_looks_become_rarer_with_failures_and_never_too_rare(interval_s: int, failures: int, jitter: float) -> None:
    delay_s = poll_delay(interval_s, failures, None, jitter).total_seconds()
    assert interval_s <= delay_s <= max(MAX_BACK_OFF_S, interval_s)
    assert poll_delay(interval_s, 0, None, jitter) == timedelta(seconds=interval_s)
    assert poll_delay(interval_s, failures, 90_000, jitter).total_seconds() >= 86_400


def test_two_failures_wait_up_to_four_intervals() -> None:
    assert poll_delay(60, 2, None, 0.5) == timedelta(seconds=150)


def test_retry_after_is_read_in_both_its_forms() -> None:
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert retry_after_s({"retry-after": "120"}, now) == 120
    assert retry_after_s({"retry-after": "0.25"}, now) == 0.25
    assert retry_after_s({"retry-after": "Thu, 01 Jan 2026 12:05:00 GMT"}, now) == 300
    assert retry_after_s({"retry-after": "Thu, 01 Jan 2026 11:05:00 GMT"}, now) == 0
    for nonsense in ("", "soon", "-5", "1" * 40, "inf", "nan", "1e9", "1.2.3", "."):
        assert retry_after_s({"retry-after": nonsense}, now) is None


@pytest.mark.parametrize(
    ("error", "passes", "delay_s"),
    [
        (QuotaExceeded("daily", retry_after_s=80_000), True, 3_600),
        (Unavailable("gone"), True, 30),
        (Conflict("the same submission", retry_after_s=0.1), True, 1),
        (InvalidInput("a field is missing"), False, 30),
    ],
)
def test_refusals_that_pass_by_themselves_are_told_from_others(
    error: QuotaExceeded, passes: bool, delay_s: float
) -> None:
    assert passes_by_itself(error) is passes
    assert retry_delay(error) == timedelta(seconds=delay_s)

"""Bodies are read strictly: what gets through can be stored, and what does not says why."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_app.api import MAX_DEPTH, parse_json
from core.errors import InvalidInput

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_what_can_be_stored_comes_through_unchanged(value: object) -> None:
    text = json.dumps(value)
    if "\\u0000" in text:
        with pytest.raises(InvalidInput):
            parse_json(text.encode())
    else:
        assert parse_json(text.encode()) == value


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1e999}',
        b'{"a": "\\u0000"}',
        b'{"\\u0000": 1}',
        b'{"a": "\\ud800"}',
        b'"\xff\xfe"',
        b"1" * 5_000,
        b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
        b"[" * 100_000,
        b"\xef\xbb\xbf{}",
    ],
)
def test_what_no_database_could_hold_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse_json(content)


def test_nesting_is_allowed_up_to_its_limit() -> None:
    assert parse_json(b"[" * (MAX_DEPTH - 1) + b"1" + b"]" * (MAX_DEPTH - 1))


@given(st.binary(max_size=200))
def test_bytes_are_read_or_refused_and_nothing_else(content: bytes) -> None:
    with contextlib.suppress(InvalidInput):
        json.dumps(parse_json(content), allow_nan=False).encode()

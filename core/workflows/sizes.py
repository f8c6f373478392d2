"""What a run may write down: JSON whose text is UTF-8, of limited size. More is kept as a blob, by reference."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from core.errors import InvalidInput, PayloadTooLarge
from core.runs.model import MAX_INPUT_BYTES

MAX_WORDS = 1_000
"""Characters of what lists and screens show: a title, an outcome."""

MAX_NAME = 200
"""Characters of the name of a step, and of an event and its key: as many as the API takes."""

_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)


def check_value(what: str, value: Any) -> None:
    """Raise ``PayloadTooLarge`` for more than 256 KiB, ``InvalidInput`` for no JSON. ``what``: "Step x returned"."""
    try:
        size = len(_ANYTHING.dump_json(value))
    except ValueError as error:  # pydantic's error of serialisation, too
        raise InvalidInput(f"{what} what cannot be written as JSON. {error}") from None
    if size > MAX_INPUT_BYTES:
        raise PayloadTooLarge(
            f"{what} {size} bytes; at most {MAX_INPUT_BYTES} are kept. A blob may be larger.", limit=MAX_INPUT_BYTES
        )


def check_words(what: str, words: str, limit: int = MAX_WORDS) -> None:
    """Raise ``InvalidInput`` for more characters, or some that no database keeps. ``what``: "An outcome"."""
    if len(words) > limit:
        raise InvalidInput(f"{what} has at most {limit} characters; it has {len(words)}.", limit=limit)
    if "\x00" in words or words != words.encode(errors="replace").decode():
        raise InvalidInput(f"{what} is text without zero bytes and lone surrogates.")


def check_name(what: str, name: str) -> None:
    """The same for more than 200 characters. ``what``: "The name of a step"."""
    check_words(what, name, MAX_NAME)

"""An answer that fails in a way that nobody expected: people hear of it, and of nothing inside the house."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from chat_app import turn
from core.errors import BailiwickError


class Broken:
    """An agent with a fault."""

    def answer(self, _: object) -> AsyncIterator[object]:
        raise RuntimeError("secret of the house")


async def test_what_nobody_expected_is_told_in_the_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[BailiwickError] = []

    async def complain(error: BailiwickError) -> None:
        told.append(error)

    monkeypatch.setattr(turn, "complain", complain)
    nothing = cast(Any, None)
    shown = turn.ShownTurn(nothing, nothing, answer=SimpleNamespace(content=""))
    await turn._answer(cast(Any, SimpleNamespace(agent=Broken())), shown)
    assert [error.message for error in told] == [turn.FAILED]

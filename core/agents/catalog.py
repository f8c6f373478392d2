"""Which tools there are, and which of them a caller gets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from core.agents.toolkit import Tool
from core.tenancy import TenantContext


class Catalog:
    """All tools of an installation. Names are unique."""

    def __init__(self, tools: Iterable[Tool[Any]]) -> None:
        self._tools: dict[str, Tool[Any]] = {}
        for tool in tools:
            if tool.name in self._tools:
                raise ValueError(f"Two tools are named {tool.name}.")
            self._tools[tool.name] = tool

    @property
    def names(self) -> tuple[str, ...]:
        """Every tool's name."""
        return tuple(self._tools)

    def on_offer(self, ctx: TenantContext) -> list[Tool[Any]]:
        """The tools this caller may use: by their rights, and by the tenant's policy."""
        return [tool for tool in self._tools.values() if tool.on_offer(ctx)]

"""Tools about memory: remember, recall, forget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import Field

from core.agents.guardrails import as_line
from core.agents.model import Turn
from core.agents.toolkit import Arguments, Tool
from core.errors import NotFound
from core.ids import MemoryId
from core.ports import MemoryPort, Recalled
from core.tenancy import Scope


class Remember(Arguments):
    """What to remember."""

    statement: str = Field(min_length=3, max_length=2_000, description="What to remember, as one plain sentence.")


class Recall(Arguments):
    """What to look for."""

    query: str = Field(min_length=1, max_length=500, description="What to look for, in the user's words.")


class Forget(Arguments):
    """Which memory."""

    memory_id: str = Field(min_length=1, max_length=100, description="Id of the memory, as recall gave it.")


@dataclass(frozen=True, slots=True)
class MemoryTools:
    """What the tools about memory stand on."""

    memory: MemoryPort

    def tools(self) -> tuple[Tool[Any], ...]:
        """All of them."""
        return (
            Tool(
                "remember",
                Scope.MEMORY_WRITE,
                "Remember a statement for the user's organisation, beyond this conversation.",
                Remember,
                self.remember,
                timeout_s=60.0,
            ),
            Tool("recall", Scope.MEMORY_READ, "Look for what is remembered about something.", Recall, self.recall),
            Tool("forget", Scope.MEMORY_WRITE, "Forget one memory for good.", Forget, self.forget),
        )

    async def remember(self, turn: Turn, asked: Remember) -> dict[str, Any]:
        """Learn it now, so that the next conversation knows it."""
        stored = await self.memory.remember(turn.ctx, asked.statement, thread_id=turn.thread_id)
        return {"remembered": [row(memory) for memory in stored]}

    async def recall(self, turn: Turn, asked: Recall) -> dict[str, Any]:
        """The memories that fit best."""
        return {"memories": [row(memory) for memory in await self.memory.recall(turn.ctx, asked.query)]}

    async def forget(self, turn: Turn, asked: Forget) -> dict[str, Any]:
        """Stop knowing it."""
        if not await self.memory.forget(turn.ctx, MemoryId(asked.memory_id)):
            raise NotFound("There is no such memory.")
        return {"forgotten": asked.memory_id}


def row(memory: Recalled) -> dict[str, Any]:
    """A memory as the model reads it."""
    return {
        "memory_id": memory.memory_id,
        "text": as_line(memory.text),
        "learned": memory.created_at.date().isoformat(),
    }

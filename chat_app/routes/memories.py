"""Memories: what the tenant's agents know."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from chat_app.api import Caller, Id, Services, api_router, needs
from core.errors import NotFound
from core.ids import MemoryId
from core.tenancy import Scope

router = api_router("Memories")


class MemoryOut(BaseModel):
    """A memory."""

    model_config = ConfigDict(from_attributes=True)

    memory_id: str
    text: str
    kind: str
    score: float = Field(description="How well it fits the query; comparable within one answer only.")
    source_thread: str | None = Field(description="The conversation it was learned from.")
    created_at: datetime


class MemoriesOut(BaseModel):
    """Memories."""

    memories: list[MemoryOut]


@router.get("/memories", **needs(Scope.MEMORY_READ))
async def list_memories(
    caller: Caller,
    services: Services,
    query: Annotated[str | None, Query(min_length=1, max_length=1_000, description="What is known about this.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> MemoriesOut:
    """What is known: the newest, or with a query the most fitting (at most 50)."""
    memory = services.memory
    found = await (memory.recall(caller, query, limit) if query else memory.list(caller, limit))
    return MemoriesOut(memories=[MemoryOut.model_validate(one) for one in found])


@router.delete("/memories/{memory_id}", status_code=204, **needs(Scope.MEMORY_WRITE, NotFound))
async def forget_memory(memory_id: Id, caller: Caller, services: Services) -> None:
    """Stop knowing something."""
    if not await services.memory.forget(caller, MemoryId(memory_id)):
        raise NotFound("There is no such memory.")

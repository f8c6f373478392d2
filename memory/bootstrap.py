"""Opens memory on top of a platform: the one place that connects to the graph."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from core.bootstrap import Platform
from core.settings import Settings
from memory.graph import MemoryGraph
from memory.service import MemoryService


@asynccontextmanager
async def open_memory(platform: Platform) -> AsyncIterator[MemoryService]:
    """The memory of this process. Connects to nothing yet: a graph that is away costs neighbours, not the start."""
    graph = open_graph(platform)
    try:
        yield MemoryService(
            platform.db,
            platform.models,
            graph,
            platform.audit,
            platform.clock,
            space=embedding_space(platform.settings),
        )
    finally:
        await graph.close()


def open_graph(platform: Platform) -> MemoryGraph:
    """The graph database of this installation. Raises ``SetupError`` when its address is missing."""
    settings = platform.settings
    url, password = settings.required("graph_url"), settings.required("graph_password")
    return MemoryGraph(url, settings.graph_user, password, platform.clock)


def embedding_space(settings: Settings) -> str:
    """What makes embeddings comparable. The offline model answers to any name, so its own is used."""
    return "offline" if settings.model_url is None else settings.model_embedding

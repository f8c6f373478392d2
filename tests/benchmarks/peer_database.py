"""Where the peers keep their tables: DBOS in a database of its own, on the server that ours is measured on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from dbos import DBOS, Serializer

from core.settings import Settings


class JsonSerializer(Serializer):
    """What a peer records is JSON, as what ours records is."""

    def serialize(self, data: Any) -> str:
        return json.dumps(data, ensure_ascii=False, default=repr)

    def deserialize(cls, serialized_data: str) -> Any:  # noqa: N805 - the library's own signature
        return json.loads(serialized_data)

    def name(self) -> str:
        return "json"


@asynccontextmanager
async def beside(settings: Settings) -> AsyncIterator[str]:
    """The address of one beside the installation's database, migrated, as its owner; dropped at the end."""
    dsn = f"{settings.required('database_url')}_dbos"
    name = dsn.rpartition("/")[2]
    owner = await asyncpg.connect(settings.required("database_url"))
    try:
        await owner.execute(f"create database {name}")
        await asyncio.to_thread(DBOS.migrate, dsn)
        yield dsn
    finally:
        await owner.execute(f"drop database if exists {name} with (force)")
        await owner.close()

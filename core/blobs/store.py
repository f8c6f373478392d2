"""Rows of blobs."""

from __future__ import annotations

from datetime import datetime

from core.blobs.model import Blob, BlobRef
from core.db.pool import Transaction
from core.db.queries import load_queries

SQL = load_queries(__file__)


async def touch(tx: Transaction, blob_id: str, now: datetime) -> BlobRef | None:
    """The blob of this id is kept as if it came now; None when there is none."""
    row = await tx.fetchrow(SQL["touch"], blob_id, now)
    return None if row is None else BlobRef(blob_id=blob_id, media_type=row["media_type"], size=row["size"])


async def count_bytes(tx: Transaction, change: int) -> int:
    """What the tenant keeps after this change, in bytes; its other changes wait until the transaction ends."""
    return int(await tx.fetchval(SQL["count_bytes"], change))


async def insert(tx: Transaction, ref: BlobRef, content: bytes, actor: str, now: datetime) -> None:
    """Keep a blob that is not there."""
    await tx.execute(SQL["insert_blob"], ref.blob_id, ref.media_type, ref.size, content, actor, now)


async def blob(tx: Transaction, blob_id: str) -> Blob | None:
    """A blob and its content."""
    row = await tx.fetchrow(SQL["blob"], blob_id)
    if row is None:
        return None
    return Blob(BlobRef(blob_id=row["blob_id"], media_type=row["media_type"], size=row["size"]), row["content"])


async def delete(tx: Transaction, blob_id: str) -> int | None:
    """Remove a blob; its size in bytes, None when there is none."""
    size: int | None = await tx.fetchval(SQL["delete_blob"], blob_id)
    return size


async def total(tx: Transaction) -> int:
    """Bytes that the tenant keeps."""
    return int(await tx.fetchval(SQL["total"]))


async def purge(tx: Transaction, now: datetime, limit: int) -> int:
    """Delete what policies keep no longer; how many."""
    return int(await tx.fetchval(SQL["purge"], now, limit))

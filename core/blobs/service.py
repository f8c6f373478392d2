"""Blobs as steps and callers of the API use them: put, get, remove.

``0023_blobs.sql`` draws their life. Putting is idempotent by content, so a step that is tried again keeps one blob. A
put that is refused, or cut off by a crash, keeps nothing and counts nothing.
"""

from __future__ import annotations

from core.audit.service import AuditService
from core.blobs import store
from core.blobs.model import Blob, BlobRef, reference
from core.clock import Clock
from core.db.pool import Database
from core.errors import NotFound, QuotaExceeded
from core.tenancy import Scope, TenantContext

_PURGE_AT_ONCE = 500


class BlobService:
    """The blobs of one region."""

    def __init__(self, db: Database, audit: AuditService, clock: Clock) -> None:
        self._db = db
        self._audit = audit
        self._clock = clock

    async def put(self, ctx: TenantContext, content: bytes, media_type: str) -> BlobRef:
        """Keep content; how to refer to it. Content that is there already is kept on, under its first media type.

        Raises ``InvalidInput``, ``PayloadTooLarge`` above 16 MiB, ``QuotaExceeded`` when the tenant keeps too much.
        """
        ctx.require(Scope.RUNS_WRITE)
        ref, now = reference(content, media_type), self._clock.now()
        async with self._db.tenant_transaction(ctx) as tx:
            if (known := await store.touch(tx, ref.blob_id, now)) is not None:
                return known
            kept, limit = await store.count_bytes(tx, ref.size), ctx.policy.blob_bytes
            if (known := await store.touch(tx, ref.blob_id, now)) is not None:  # put by somebody else meanwhile
                await store.count_bytes(tx, -ref.size)
                return known
            if kept > limit:
                raise QuotaExceeded(
                    f"{ref.size} bytes more are over the {limit} bytes of blobs that you may keep. Remove some, or ask "
                    "the operator for more.",
                    quota="blob_bytes",
                    limit=limit,
                )
            await store.insert(tx, ref, content, ctx.actor, now)
        return ref

    async def get(self, ctx: TenantContext, blob_id: str) -> Blob:
        """A blob and its content. Raises ``NotFound`` for foreign and missing alike."""
        ctx.require(Scope.RUNS_READ)
        async with self._db.tenant_transaction(ctx) as tx:
            found = await store.blob(tx, blob_id)
        if found is None:
            raise NotFound("There is no such blob.")
        return found

    async def delete(self, ctx: TenantContext, blob_id: str) -> None:
        """Remove a blob; what refers to it finds nothing from now on. Raises ``Forbidden`` and ``NotFound``."""
        ctx.require(Scope.TENANT_WRITE)
        async with self._db.tenant_transaction(ctx) as tx:
            await store.count_bytes(tx, 0)  # locks the total before the blob, as a put does
            size = await store.delete(tx, blob_id)
            if size is None:
                raise NotFound("There is no such blob.")
            await store.count_bytes(tx, -size)
            await self._audit.record(tx, ctx, "blob.delete", f"blob:{blob_id}", before={"size": size})

    async def total(self, ctx: TenantContext) -> int:
        """Bytes that the tenant keeps."""
        ctx.require(Scope.RUNS_READ)
        async with self._db.tenant_transaction(ctx) as tx:
            return await store.total(tx)

    async def purge(self) -> int:
        """Delete what policies keep no longer, of all tenants; how many."""
        now = self._clock.now()
        return await self._db.in_batches(lambda tx: store.purge(tx, now, _PURGE_AT_ONCE), _PURGE_AT_ONCE)

"""What people do to schedules, pollers and triggers alike: look, add, edit, remove.

Every change is one transaction with its record in the audit, and is told afterwards to whoever ``changed`` tells.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from core.audit.service import AuditService
from core.clock import Clock
from core.db.pool import Database, Transaction
from core.errors import QuotaExceeded
from core.schedules.model import check_version, found
from core.tenancy import Scope, TenantContext


class Editable(Protocol):
    """What can be edited: a frozen dataclass with the number of its latest edit."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def version(self) -> int:
        """Counts edits, from 1."""
        ...

    def definition(self) -> dict[str, Any]:
        """What people decide about it, as the audit keeps it."""
        ...


View = TypeVar("View", bound=Editable)
Found_co = TypeVar("Found_co", covariant=True)


class FindOne(Protocol[Found_co]):
    """Reads one row."""

    async def __call__(self, tx: Transaction, key: str, /, *, lock: bool = False) -> Found_co | None:
        """None when there is none; ``lock``: nobody else edits it until the transaction ends."""
        ...


@dataclass(frozen=True, slots=True)
class Rows(Generic[View]):
    """Where they are kept. ``insert`` answers False when the tenant has ``limit`` already."""

    word: str
    limit: int
    key: Callable[[View], str]
    all: Callable[[Transaction], Awaitable[Sequence[View]]]
    one: FindOne[View]
    insert: Callable[[Transaction, View], Awaitable[bool]]
    update: Callable[[Transaction, View, View, datetime], Awaitable[None]]
    """From, to, when."""
    delete: Callable[[Transaction, str], Awaitable[None]]


class Editor(Generic[View]):
    """Edits the rows of one kind."""

    def __init__(
        self,
        db: Database,
        audit: AuditService,
        clock: Clock,
        rows: Rows[View],
        changed: Callable[[TenantContext, str], Awaitable[None]],
    ) -> None:
        self._db = db
        self._audit = audit
        self._clock = clock
        self._rows = rows
        self._changed = changed

    async def list(self, ctx: TenantContext) -> Sequence[View]:
        """All of the tenant's, oldest first."""
        ctx.require(Scope.SCHEDULES_READ)
        async with self._db.tenant_transaction(ctx) as tx:
            return await self._rows.all(tx)

    async def get(self, ctx: TenantContext, key: str) -> View:
        """One. Raises ``NotFound`` for foreign and missing alike."""
        ctx.require(Scope.SCHEDULES_READ)
        async with self._db.tenant_transaction(ctx) as tx:
            return found(await self._rows.one(tx, key), self._rows.word)

    async def add(self, ctx: TenantContext, make: Callable[[datetime], View]) -> View:
        """Add what ``make`` makes now. Raises ``Forbidden``, ``QuotaExceeded`` beyond the limit, and what it raises."""
        ctx.require(Scope.SCHEDULES_WRITE)
        ctx.require(Scope.RUNS_WRITE)
        view = make(self._clock.now())
        word, limit = self._rows.word, self._rows.limit
        async with self._db.tenant_transaction(ctx) as tx:
            if not await self._rows.insert(tx, view):
                raise QuotaExceeded(f"A tenant has at most {limit} {word}s.", quota=f"{word}s")
            await self._record(tx, ctx, "create", self._rows.key(view), after=view.definition())
        await self._changed(ctx, self._rows.key(view))
        return view

    async def edit(
        self, ctx: TenantContext, key: str, act: str, change: Callable[[View], View], version: int | None = None
    ) -> View:
        """Make it what ``change`` makes of it; nothing happens when that is what it was.

        Raises ``Forbidden``, ``NotFound``, ``Conflict`` when ``version`` is given and not the current one, and what
        ``change`` raises.
        """
        ctx.require(Scope.SCHEDULES_WRITE)
        now = self._clock.now()
        async with self._db.tenant_transaction(ctx) as tx:
            before = found(await self._rows.one(tx, key, lock=True), self._rows.word)
            check_version(before.version, version, self._rows.word)
            after = change(before)
            if after == before:
                return before
            await self._rows.update(tx, before, after, now)
            await self._record(tx, ctx, act, key, before=before.definition(), after=after.definition())
        await self._changed(ctx, key)
        return replace(after, version=before.version + 1, updated_at=now)

    async def delete(self, ctx: TenantContext, key: str) -> None:
        """Remove one; its runs stay. Raises ``Forbidden`` and ``NotFound``."""
        ctx.require(Scope.SCHEDULES_WRITE)
        async with self._db.tenant_transaction(ctx) as tx:
            before = found(await self._rows.one(tx, key, lock=True), self._rows.word)
            await self._rows.delete(tx, key)
            await self._record(tx, ctx, "delete", key, before=before.definition())
        await self._changed(ctx, key)

    async def _record(
        self,
        tx: Transaction,
        ctx: TenantContext,
        act: str,
        key: str,
        before: dict[str, Any] | None = None,
        after: dict[str, Any] | None = None,
    ) -> None:
        word = self._rows.word
        await self._audit.record(tx, ctx, f"{word}.{act}", f"{word}:{key}", before, after)

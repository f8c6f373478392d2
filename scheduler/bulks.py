"""Goes on with acts on many runs: what the request that began them had no time for, or a process left when it died."""

from __future__ import annotations

from core.bootstrap import Platform
from core.runs.bulk import Unfinished
from core.tenancy import Scope

_FOR_S = 2.0
_RIGHTS = frozenset({Scope.RUNS_READ, Scope.RUNS_WRITE})


async def go_on_with_bulks(platform: Platform) -> float | None:
    """Work on every bulk for a moment, as who applied it; 0.0 while something is left, else None.

    Raises what the first of those that failed raised, after all others had their moment.
    """
    busy, failed = False, list[Exception]()
    for left in await platform.bulk.unfinished():
        try:
            busy |= await _left_of(platform, left)
        except Exception as error:
            failed.append(error)
    if failed:
        raise failed[0]
    return 0.0 if busy else None


async def _left_of(platform: Platform, left: Unfinished) -> bool:
    """Whether something is left of one bulk, after a moment of work on it."""
    ctx = await platform.tenants.context_for(
        left.tenant_id, actor_kind=left.actor_kind, actor_id=left.actor_id, user_id=left.user_id, scopes=_RIGHTS
    )
    bulk = await platform.bulk.get(ctx, left.bulk_id)
    return not await platform.bulk.go_on(ctx, left.bulk_id, bulk.act, for_s=_FOR_S)

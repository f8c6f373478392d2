"""Patch markers: whether a run takes the new way at a change of its workflow's code.

A marker is decided when a run first comes to it, and the decision is recorded: every later execution of the run, after
a wait, a crash or a retry, goes the same way. The way is the old one when an earlier execution began anything after
the marker: then the code that executed it had no marker there, and its records fit the old way only.
"""

from __future__ import annotations

from core.db.pool import Database
from core.db.queries import load_queries
from core.runs.execution import Executing, Lost

SQL = load_queries(__file__, "patches.sql")


class RunPatches:
    """The patch markers of the runs of an installation."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def patched(self, on: Executing, name: str, after_step: int) -> bool:
        """Whether the run takes the new way at the marker ``name``, which comes after step ``after_step`` (0: first).

        Raises ``Lost``.
        """
        async with self._db.tenant_transaction(on.ctx) as tx:
            taken = await tx.fetchval(SQL["patched"], on.run_id, on.claim, name, after_step, on.claim == 1)
        if taken is None:
            raise Lost
        return bool(taken)

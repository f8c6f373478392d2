"""Which version of a workflow a new run gets. Pure.

A route goes (none: the newest version) → base + canary (a version is tried) → base (promoted, or rolled back). A run
keeps the version it was submitted with; routes decide for runs to come, and only for those that name no version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from core.errors import Conflict, InvalidInput
from core.queue.model import code_of


@dataclass(frozen=True, slots=True)
class Route:
    """Where new runs of a workflow go.

    ``base``: to this version, unless ``canary`` is not None and the run is one of its ``percent`` or of its
    ``tenants``. ``before``: the base to which a roll-back goes.
    """

    workflow: str
    base: str
    before: str | None = None
    canary: str | None = None
    percent: float = 0.0
    tenants: tuple[str, ...] = ()

    def version_for(self, tenant_id: str, key: str) -> str:
        """The version of a new run. The same key gets the same version while the route stays as it is, and a run that
        went to the canary still does at a higher percentage."""
        if self.canary is None:
            return self.base
        return self.canary if tenant_id in self.tenants or place_of(self.workflow, key) < self.percent else self.base

    def tried(self, canary: str, percent: float, tenants: tuple[str, ...]) -> Route:
        """With a canary; one that was tried before is replaced. Raises ``InvalidInput``."""
        if not 0 <= percent <= 100:
            raise InvalidInput("A canary gets 0 to 100 percent of the runs.")
        if canary == self.base:
            raise InvalidInput(f"Version {canary} is where runs go already.")
        return Route(self.workflow, self.base, self.before, canary, percent, tuple(sorted(set(tenants))))

    def promoted(self, version: str | None) -> Route:
        """Everything goes to ``version`` (None: the canary). Raises ``Conflict`` when there is nothing to promote."""
        chosen = version or self.canary
        if chosen is None or (chosen == self.base and self.canary is None):
            raise Conflict(f"There is nothing to promote: all new runs of {self.workflow} go to version {self.base}.")
        return Route(self.workflow, chosen, self.base if chosen != self.base else self.before)

    def rolled_back(self) -> Route:
        """Without its canary; without one, back to the base before. Raises ``Conflict`` when there is none."""
        if self.canary is not None:
            return Route(self.workflow, self.base, self.before)
        if self.before is None:
            raise Conflict(f"There is no version of {self.workflow} to go back to.")
        return Route(self.workflow, self.before)


@dataclass(frozen=True, slots=True)
class VersionView:
    """One version of a workflow: what of it is open, and who can execute it.

    ``installed``: the process that was asked has its code, and so may take new runs. ``workers``: live ones that have
    it. ``share``: percent of the new runs of most tenants. ``oldest_at``: when its oldest open run was submitted.
    """

    workflow: str
    version: str
    installed: bool
    workers: int
    share: float
    tenants: tuple[str, ...] = ()
    queued: int = 0
    running: int = 0
    waiting: int = 0
    oldest_at: datetime | None = None

    @property
    def open_runs(self) -> int:
        """Runs that have not ended: as long as there are any, the code is needed."""
        return self.queued + self.running + self.waiting

    @property
    def removable(self) -> bool:
        """Whether its code may be removed: nothing of it is open, and nothing new goes there."""
        return self.open_runs == 0 and self.share == 0 and not self.tenants

    @property
    def stuck(self) -> bool:
        """Whether runs wait for its code: no live worker has it."""
        return self.queued > 0 and self.workers == 0


@dataclass(frozen=True, slots=True)
class Changed:
    """A route as it is now (None: the newest version), and what to see to."""

    route: Route | None
    warnings: tuple[str, ...] = field(default=())


def place_of(workflow: str, key: str) -> float:
    """Where a key stands among all keys, from 0 to below 100, evenly: which runs a percentage takes."""
    digest = hashlib.sha256(f"{workflow}\n{key}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64 * 100


def warnings_of(route: Route, installed: Callable[[str], bool], live: frozenset[str] | None) -> tuple[str, ...]:
    """What an operator should know who puts a route in force. ``live``: the code of live workers, None: whatever."""
    told = []
    for version in dict.fromkeys(one for one in (route.base, route.canary) if one is not None):
        name = f"{route.workflow} version {version}"
        if live is not None and code_of(route.workflow, version) not in live:
            told.append(f"No live worker has {name}: its runs wait, with cause no_code, until one comes.")
        if not installed(version):
            told.append(f"This process does not have {name}: deploy it wherever runs are submitted.")
    return tuple(told)

"""Whom to kill and when: by seed, so that a performance can be repeated as nearly as real processes allow.

Half of the kills are workers'. While one process is down another may die, too. Now and then a worker is frozen instead,
until others have taken over its runs, and goes on: it must notice that they are not its own.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass

from tests.durability.chaos.scene import Scene, Victim

WEIGHTS = {"worker": 10, "postgres": 3, "web": 3, "scheduler": 3, "redis": 2, "graph": 1}
_LONGEST_OUTAGE_S = 2.0
_FREEZE_INSTEAD = 0.15
_FROZEN_S = (9.0, 14.0)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between two kills, evenly between the two. ``once``: each kind once in random order, and no more.

    Of so many that are ``down`` at a time none more is killed: on a slow machine nothing would ever be up.
    """

    least_s: float
    most_s: float
    down: int = 2
    once: bool = False


class Killer:
    """Kills until told to stop."""

    def __init__(self, scene: Scene, seed: int, pace: Pace) -> None:
        self._scene = scene
        self._dice = random.Random(f"killer/{seed}")
        self._pace = pace
        self._kinds = list(WEIGHTS)
        self._dice.shuffle(self._kinds)

    @property
    def kills(self) -> Counter[str]:
        """How many of each kind."""
        kills: Counter[str] = Counter()
        for victim in self._scene.victims:
            kills[victim.kind] += victim.kills
        return kills

    @property
    def freezes(self) -> int:
        """How often a worker was frozen."""
        return sum(victim.freezes for victim in self._scene.victims)

    async def run(self) -> None:
        """Until cancelled, or each has had its turn."""
        while not self._pace.once or self._kinds:
            await asyncio.sleep(self._dice.uniform(self._pace.least_s, self._pace.most_s))
            victim = self._choose()
            if victim is None:
                continue
            if victim.kind == "worker" and not self._pace.once and self._dice.random() < _FREEZE_INSTEAD:
                self._scene.freeze(victim, self._dice.uniform(*_FROZEN_S))
            else:
                await self._scene.strike(victim, self._dice.uniform(0, _LONGEST_OUTAGE_S))

    def _choose(self) -> Victim | None:
        up = [victim for victim in self._scene.victims if victim.up]
        if len(self._scene.victims) - len(up) >= self._pace.down:
            return None
        if self._pace.once:
            kind = self._kinds[-1]
            up = [victim for victim in up if victim.kind == kind]
            if up:
                self._kinds.pop()
        else:
            (kind,) = self._dice.choices(list(WEIGHTS), list(WEIGHTS.values()))
            up = [victim for victim in up if victim.kind == kind and victim.settled]
        return self._dice.choice(up) if up else None

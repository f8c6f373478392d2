"""When a queued run will probably start. Pure; what it counts comes from ``app.queue_place``.

A run waits for slots of its tenant; with a cap per user or per workflow it waits for those, too, and starts when the
last of them lets it through. Each is a circle of ``s`` slots with ``a`` runs before it in the order of claims, which
need ``A`` seconds by the learned mean of their workflows, while those that hold slots need ``R`` seconds more. When a
slot is free for it, all ``a`` have begun and the ``s - 1`` other slots are, on average, half through a run of mean
``m``. So the circle lets it through after

    t = max(0, (R + A - (s - 1) m / 2) / s)          0 when fewer runs than slots are before it or execute

- ``soonest``: the tenant gets all slots its cap and burst allow, as if no other tenant wanted any.
- ``latest``: it gets its max-min share, by weight, of the slots outside the headroom, as all tenants want them now;
  and each tenth claim takes one of the older runs that stand behind it in the order.

By that tenth claim the run itself starts after ``10 (k + 1)`` claims of its tenant, when ``k`` of its runs are older.

Error: with runs that last as long as their mean and nobody coming or going, the start lies between the two, or outside
by no more than two means and a tenth of ``latest`` (``tests/integration/test_visibility.py`` holds that against real
claims). It is no promise: whoever submits more urgent work, or a tenant that comes, delays it; who ends early hastens
it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from core.queue.fairness import OLDEST_TURN


@dataclass(frozen=True, slots=True)
class Circle:
    """Slots that a run competes for, and what is before it there. ``slots`` None: no cap, so no obstacle."""

    slots: float | None
    ahead: float
    ahead_s: float
    running: int
    left_s: float

    def opens_in_s(self, mean_s: float) -> float:
        """Seconds until a run of this mean gets a slot; infinite when there are no slots."""
        if self.slots is None or self.running + self.ahead < self.slots:
            return 0.0
        if self.slots <= 0:
            return math.inf
        mean_s = (self.ahead_s + mean_s) / (self.ahead + 1)
        return max(0.0, (self.left_s + self.ahead_s - (self.slots - 1) * mean_s / 2) / self.slots)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a queued run stands. ``code``: what its worker must have; ``older``: runs of its tenant queued before it;
    ``passed``: those of them that stand behind it in the order of claims; ``by_user``, ``by_workflow``: circles with
    the caps inside the tenant."""

    code: str
    paused: bool
    weight: float
    cap: int
    burst_slots: int
    estimate_s: float
    older: int
    passed: int
    tenant: Circle
    by_user: Circle
    by_workflow: Circle


@dataclass(frozen=True, slots=True)
class StartsIn:
    """Seconds until a queued run starts, if nobody comes or goes."""

    soonest_s: float
    latest_s: float


def starts_in(place: Place, slots: int, level: float | None) -> StartsIn | None:
    """The estimate; None when nobody can know: paused, no worker, a cap of 0.

    ``slots``: those that tenants share out; ``level``: what a tenant of weight 1 gets of them, None: enough for all.
    """
    best = min(place.cap + place.burst_slots, slots)
    share = min(place.cap, slots if level is None else place.weight * level)
    if place.paused or best <= 0 or share <= 0:
        return None
    inside = max(place.by_user.opens_in_s(place.estimate_s), place.by_workflow.opens_in_s(place.estimate_s))
    by_age = OLDEST_TURN * (place.older + 1) - 1  # then a tenth claim has taken it, whatever its lane
    in_order = place.tenant.ahead
    with_oldest = in_order + min(place.passed, in_order / (OLDEST_TURN - 1))
    soonest = max(inside, _with(place.tenant, best, min(in_order, by_age)).opens_in_s(place.estimate_s))
    latest = max(inside, _with(place.tenant, share, min(with_oldest, by_age)).opens_in_s(place.estimate_s))
    return None if math.isinf(soonest) else StartsIn(soonest, max(soonest, latest))


def _with(circle: Circle, slots: float, ahead: float) -> Circle:
    mean_s = circle.ahead_s / circle.ahead if circle.ahead else 0.0
    return Circle(slots, ahead, ahead * mean_s, circle.running, circle.left_s)

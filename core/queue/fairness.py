"""The fair queue's decisions on plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Terms:
    """What a tenant's policy says to the queue. Caps count slots; None: no cap."""

    weight: float = 1.0
    cap: int = 1_000
    burst_slots: int = 0
    burst_credit_s: float = 0.0
    user_cap: int | None = None
    workflow_caps: Mapping[str, int] = field(default_factory=dict)

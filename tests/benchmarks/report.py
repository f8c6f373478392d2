"""The form of a benchmark's result, and the table it prints."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Literal

Comparison = Literal[">=", "<="]
RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement. ``peers`` are what the same run measured for comparison; ``target`` None: a fact, no promise."""

    what: str
    ours: float
    unit: str
    target: float | None
    comparison: Comparison
    peers: Mapping[str, float] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether the target is reached."""
        if self.target is None:
            return True
        return self.ours >= self.target if self.comparison == ">=" else self.ours <= self.target


def write(name: str, rows: Sequence[Row], *, packages: Sequence[str], seeds: Sequence[int] = ()) -> None:
    """Print the rows and write ``results/NAME.json``."""
    document = {
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version(), **{one: version(one) for one in packages}},
        "seeds": list(seeds),
        "date": date.today().isoformat(),  # noqa: DTZ011 - the day at the machine that measured
        "rows": [{**asdict(row), "holds": row.holds} for row in rows],
    }
    RESULTS.mkdir(exist_ok=True)
    RESULTS.joinpath(f"{name}.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")
    print()
    for row in rows:
        promise = "" if row.target is None else f"{row.comparison} {row.target:g}: {'holds' if row.holds else 'MISSED'}"
        peers = ", ".join(f"{peer} {value:.3g}" for peer, value in row.peers.items())
        print(f"{row.what:<58} {row.ours:>9.3g} {row.unit:<8} {promise:<18} {peers}")

"""Named SQL: a ``queries.sql`` beside each store, split into blocks at ``-- name: …`` lines.

    -- name: run_by_id
    -- The run, if it is this tenant's.
    select … from runs where run_id = $1

A store loads its file once (``SQL = load_queries(__file__)``) and names the block at the call:
``await tx.fetchrow(SQL["run_by_id"], run_id)``. An unknown name fails at import of the caller's test, a
block that does not prepare against the schema fails ``tests/architecture``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NewType

Query = NewType("Query", str)

_HEADER = re.compile(r"^-- name: (?P<name>[a-z][a-z0-9_]*)\s*$", re.MULTILINE)


class Queries(Mapping[str, Query]):
    """The blocks of one file, by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        text = path.read_text("utf-8")
        headers = list(_HEADER.finditer(text))
        ends = [header.start() for header in headers[1:]] + [len(text)]
        self._blocks: dict[str, Query] = {}
        for header, end in zip(headers, ends, strict=True):
            name = header["name"]
            if name in self._blocks:
                raise ValueError(f"{path}: query {name} is defined twice")
            self._blocks[name] = Query(text[header.end() : end].strip().rstrip(";"))

    def __getitem__(self, name: str) -> Query:
        return self._blocks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._blocks)

    def __len__(self) -> int:
        return len(self._blocks)


def load_queries(module_file: str, name: str = "queries.sql") -> Queries:
    """The queries beside the module whose ``__file__`` is given."""
    return Queries(Path(module_file).with_name(name))

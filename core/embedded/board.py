"""What ``bailiwick up`` shows while it works: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text


class Board(Protocol):
    """Where progress is shown."""

    def starting(self, name: str) -> None:
        """Work on ``name`` begins."""

    def ready(self, name: str) -> None:
        """It is done, or healthy."""

    def note(self, text: str) -> None:
        """Something worth a line of its own."""


class ConsoleBoard:
    """Shows progress on a console; a context, live until it ends."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began: dict[str, float] = {}
        self._took: dict[str, float] = {}
        self._live = Live(get_renderable=self._table, console=console, refresh_per_second=8, transient=True)

    def __enter__(self) -> ConsoleBoard:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the live part; notes go on."""
        self._live.stop()

    def starting(self, name: str) -> None:
        """Show a row with a spinner."""
        self._began[name] = time.monotonic()

    def ready(self, name: str) -> None:
        """Show how long it took."""
        self._took[name] = time.monotonic() - self._began[name]
        if not self._console.is_terminal:
            self._console.print(f"  {name:<10} ready in {self._took[name]:.1f} s")

    def note(self, text: str) -> None:
        """Print a line, above the live part if there is one."""
        self._console.print(text, highlight=False, markup=False)

    def _table(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for name, began in self._began.items():
            if name in self._took:
                table.add_row(Text("✓", "green"), name, f"{self._took[name]:.1f} s")
            else:
                table.add_row(Spinner("dots"), name, Text(f"{time.monotonic() - began:.0f} s", "dim"))
        return Group(Text("Starting Bailiwick", "bold"), table)

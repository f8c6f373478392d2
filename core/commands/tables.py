"""How commands show tables to people."""

from __future__ import annotations

from rich.console import Console, RenderableType

_WIDEST = 1_000


def show(content: RenderableType) -> None:
    """Print it in as many columns as it takes, into a file or a pipe, too: no id is cut because a terminal is narrow.

    A terminal goes on in its next line.
    """
    console = Console(highlight=False)
    needed = console.measure(content, options=console.options.update(max_width=_WIDEST)).maximum
    Console(highlight=False, width=max(console.width, needed)).print(content)

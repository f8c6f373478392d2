"""Where the wheels keep the servers they ship. None of their Python is imported."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from core.errors import SetupError


def shipped(package: str, path: str) -> Path:
    """A file or folder inside an installed package. Raises ``SetupError`` when it is not there."""
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        found = Path(folder) / path
        if found.exists():
            return found
    raise SetupError(
        f"The library {package} with its {Path(path).name} is not installed on this machine: run `make up` to install "
        "it, or use a server of your own (see `bailiwick doctor`)."
    )

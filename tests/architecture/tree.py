"""The product's source files, read once per test run."""

from __future__ import annotations

import ast
import gc
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("chat_app", "core", "memory", "ops_dashboard", "scheduler")


def name_of(path: Path) -> str:
    """Path from the root, as the messages show it."""
    return path.relative_to(ROOT).as_posix()


@cache
def tracked() -> tuple[Path, ...]:
    """Every file that belongs to the project: in git, or new and not ignored."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    paths = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    return tuple(path for path in paths if path.is_file())


def sources(*suffixes: str, tests: bool = False) -> list[Path]:
    """Files of the packages (and of the tests) with one of these suffixes."""
    folders = (*PACKAGES, "tests") if tests else PACKAGES
    return [path for path in tracked() if path.suffix in suffixes and path.relative_to(ROOT).parts[0] in folders]


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a module."""
    # A finaliser that runs while Python 3.11 builds a tree makes it lose count of its own depth.
    gc.disable()
    try:
        return ast.parse(path.read_text("utf-8"), name_of(path))
    finally:
        gc.enable()


def modules(*, tests: bool = False) -> Iterator[tuple[str, ast.Module]]:
    """Name and syntax tree of every Python file."""
    for path in sources(".py", tests=tests):
        yield name_of(path), parsed(path)


def imported(tree: ast.Module) -> set[str]:
    """Full names of all imported modules and, for ``from m import n``, ``m`` and ``m.n``."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def dotted(node: ast.expr) -> str:
    """``a.b.c`` of an attribute chain; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return f"{before}.{node.attr}"
    return ""


def texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and value of every string that is not a docstring; an f-string's constant parts as one."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inside: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and id(node) not in docstrings:
            parts = [part for part in node.values if isinstance(part, ast.Constant)]
            inside |= {id(part) for part in parts}
            yield node.lineno, " ".join(str(part.value) for part in parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings | inside:
            yield node.lineno, node.value

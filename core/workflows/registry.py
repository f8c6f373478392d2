"""The registered workflows: ours, those of installed packages, those of the configured modules."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any, Self

from pydantic import ValidationError

from core.errors import InvalidInput, SetupError, WorkflowUnknown
from core.queue.model import code_of
from core.runs.submission import WorkflowInfo
from core.settings import Settings
from core.workflows.definition import WorkflowDefinition

ENTRY_POINT = "bailiwick.workflows"
OURS = ("core.workflows.loans", "core.workflows.recheck")

Definition = WorkflowDefinition[Any, Any]


class Registry:
    """Workflows by name and version. Immutable once made."""

    def __init__(self, definitions: Iterable[Definition]) -> None:
        self._by_name: dict[str, dict[str, Definition]] = {}
        for definition in definitions:
            versions = self._by_name.setdefault(definition.name, {})
            known = versions.setdefault(definition.version, definition)
            if known is not definition:
                raise SetupError(f"Workflow {definition.name} version {definition.version} is defined twice.")

    @classmethod
    def load(cls, settings: Settings) -> Self:
        """Everything that this installation knows: of each module all workflows, whatever its entry point names in it.

        Raises ``SetupError`` for a module that cannot be imported.
        """
        installed = [point.module for point in entry_points(group=ENTRY_POINT)]
        found: dict[int, Definition] = {}
        for name in (*OURS, *settings.workflow_modules, *installed):
            for value in vars(_import(name)).values():
                if isinstance(value, WorkflowDefinition):
                    found[id(value)] = value
        return cls(found.values())

    def names(self) -> list[str]:
        """All workflows, by name."""
        return sorted(self._by_name)

    def versions(self, name: str) -> list[str]:
        """The versions of a workflow that are here, the newest first; empty for an unknown name."""
        return sorted(self._by_name.get(name, {}), key=_order, reverse=True)

    def codes(self) -> list[str]:
        """All versions of all workflows, in order, as a worker tells the queue what it can execute (``code_of``)."""
        return sorted(code_of(name, version) for name, versions in self._by_name.items() for version in versions)

    def at(self, name: str, version: str) -> Definition:
        """One definition, whose code is here."""
        return self._by_name[name][version]

    def is_private(self, name: str) -> bool:
        """Whether any version of it keeps input and output to the submitter. A name that is gone counts as private."""
        versions = self._by_name.get(name, {})
        return not versions or any(definition.private for definition in versions.values())

    def resolve(self, name: str, version: str | None) -> WorkflowInfo:
        """What admission needs of a workflow; ``version`` None: the newest. Raises ``WorkflowUnknown``."""
        versions = self.versions(name)
        if not versions:
            raise WorkflowUnknown(f"There is no workflow {name!r}.", known=self.names())
        chosen = version or versions[0]
        if chosen not in versions:
            raise WorkflowUnknown(
                f"Version {chosen!r} of workflow {name!r} is not installed where runs are submitted; "
                f"there is {', '.join(versions)}.",
                known=self.names(),
                versions=versions,
            )
        definition = self.at(name, chosen)
        return WorkflowInfo(name, chosen, definition.lane, definition.budget_microusd, definition.timeout_s)

    def validate(self, info: WorkflowInfo, document: Mapping[str, Any]) -> dict[str, Any]:
        """The input as the workflow's model writes it. Raises ``InvalidInput`` pointing at each fault."""
        model = self._by_name[info.name][info.version].input_model
        try:
            value: dict[str, Any] = model.model_validate(dict(document)).model_dump(mode="json")
        except ValidationError as error:
            raise InvalidInput(
                f"The input does not fit workflow {info.name}.",
                errors=[
                    {"pointer": "/input/" + "/".join(str(part) for part in fault["loc"]), "message": fault["msg"]}
                    for fault in error.errors(include_url=False, include_input=False, include_context=False)
                ],
            ) from None
        return value


_Parts = list[tuple[bool, int, str]]


def _order(version: str) -> tuple[_Parts, bool, _Parts]:
    """As semantic versions: numbers by their value, and what has a suffix (``2.0-rc.1``) before what has none."""
    release, _, suffix = version.partition("-")
    return _parts(release), not suffix, _parts(suffix)


def _parts(text: str) -> _Parts:
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in text.split(".")]


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SetupError(f"Cannot import the workflow module {name}: {error}") from error

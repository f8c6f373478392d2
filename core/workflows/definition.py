"""What a workflow is: a typed function with a name and a version.

    @workflow("greeting", version="1")
    async def greeting(run: Run, who: Person) -> Greeting: ...

The decorator returns a ``WorkflowDefinition``; the registry finds those in the modules it is given. Nothing
is registered by importing.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, get_type_hints

from pydantic import BaseModel, TypeAdapter

from core.runs.model import Lane
from core.workflows.run import Run

In = TypeVar("In", bound=BaseModel)
Out = TypeVar("Out")

MAX_NAME = 100


def hours(count: float) -> float:
    """Seconds."""
    return count * 3600.0


@dataclass(frozen=True)
class WorkflowDefinition(Generic[In, Out]):
    """A workflow, ready to be registered. ``budget_microusd`` None: the tenant's budget per run;
    ``timeout_s`` None: the tenant's duration per run.

    What a ``private`` workflow is given and returns is shown to the person who submitted the run, and to nobody
    else of the tenant.
    """

    name: str
    version: str
    lane: Lane
    budget_microusd: int | None
    private: bool
    timeout_s: float | None
    function: Callable[[Run, In], Awaitable[Out]]
    input_model: type[In]
    output: TypeAdapter[Out]


def workflow(
    name: str,
    *,
    version: str,
    lane: Lane = Lane.NORMAL,
    budget: int | None = None,
    timeout_s: float | None = None,
    private: bool = False,
) -> Callable[[Callable[[Run, In], Awaitable[Out]]], WorkflowDefinition[In, Out]]:
    """Declare a workflow. ``budget`` is in micro-USD (``usd("0.50")``) and never exceeds the tenant's own;
    ``timeout_s``: how long a run may last from its first start, waits included, never longer than the tenant's policy
    lets it; ``private``: only the submitter sees input and output.

    The function takes ``run`` and one pydantic model, and returns anything pydantic can write as JSON.
    Raises ``TypeError`` at import when it does not.
    """
    if not name or len(name) > MAX_NAME:
        raise TypeError(f"A workflow needs a name of at most {MAX_NAME} characters.")
    if not version or len(version) > MAX_NAME or "@" in version:
        raise TypeError(f"Workflow {name} needs a version of at most {MAX_NAME} characters, without @.")

    if timeout_s is not None and timeout_s <= 0:
        raise TypeError(f"Workflow {name} needs a timeout of more than 0 seconds, or none.")

    def declare(function: Callable[[Run, In], Awaitable[Out]]) -> WorkflowDefinition[In, Out]:
        given, returned = _input_model(name, function), TypeAdapter(_output(function))
        return WorkflowDefinition(name, version, lane, budget, private, timeout_s, function, given, returned)

    return declare


def _input_model(name: str, function: Callable[..., Any]) -> Any:
    hints = get_type_hints(function)
    parameters = list(inspect.signature(function).parameters)
    model = hints.get(parameters[1]) if len(parameters) == 2 else None
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise TypeError(f"Workflow {name}: write it as (run: Run, input: YourModel) with a pydantic model.")
    return model


def _output(function: Callable[..., Any]) -> Any:
    return get_type_hints(function).get("return", Any)

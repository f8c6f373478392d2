"""A step that is a function of its author's: what it returns is recorded as JSON and read back as its type."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter

from core.workflows.performing import Performer, Work
from core.workflows.step import Step
from core.workflows.undoing import How, undo_of

Arg = TypeVar("Arg")
Result = TypeVar("Result")


async def returned(
    performer: Performer,
    number: int,
    function: Callable[[Step, Arg], Awaitable[Result]],
    argument: Arg,
    work: Work,
    undo: How[Arg, Result] | None,
) -> Result | None:
    """What the function returned, now or in an earlier execution; None when the step was skipped.

    ``work``: all about the step but what it does. Raises what ``Performer.perform`` raises.
    """
    result: TypeAdapter[Result] = _returned_by(function)

    async def action(step: Step) -> Any:
        return result.dump_python(await function(step, argument), mode="json")

    title = work.name or str(getattr(function, "__name__", work.kind))
    undone = None if undo is None else undo_of(undo, argument, result, title, work.service)
    return work.read(result, await performer.perform(number, replace(work, name=title, action=action, undo=undone)))


@lru_cache(1_000)
def _returned_by(function: Callable[..., Any]) -> TypeAdapter[Any]:
    return TypeAdapter(get_type_hints(function).get("return", Any))

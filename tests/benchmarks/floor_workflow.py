"""The smallest run: one step that returns a small document. What the peer executes is the same."""

from __future__ import annotations

import time

from pydantic import BaseModel

from core.workflows import Run, Step, workflow

# Run numbers and when their first line was executed, on the clock of ``time.perf_counter``; this process only.
first_lines: dict[int, float] = {}


class Number(BaseModel):
    """The input."""

    number: int


def answer(number: int) -> dict[str, int]:
    """What the step returns, ours and the peer's."""
    return {"number": number, "square": number * number}


async def square(step: Step, given: Number) -> dict[str, int]:
    """The step."""
    return answer(given.number)


@workflow("floor", version="1")
async def floor(run: Run, given: Number) -> dict[str, int]:
    """One step."""
    first_lines[given.number] = time.perf_counter()
    return await run.step(square, given)

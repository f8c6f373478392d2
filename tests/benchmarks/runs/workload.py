"""What is executed while runs are measured. What the peer executes is the same.

Clocks are read in workflows here, which is against the one rule of workflows: what is returned is a stamp of the
execution that reached it, on the clock of ``time.perf_counter``, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from core.workflows import Run, Step, workflow
from tests.fixtures.sample_workflows import append

# Run numbers and when their first line was executed; this process only.
first_lines: dict[int, float] = {}


class Number(BaseModel):
    """The input."""

    number: int


class Stamps(BaseModel):
    """When the steps began and had ended."""

    began: float
    ended: float


class Parked(BaseModel):
    """What a run waits for."""

    number: int
    on: Literal["event", "review", "timer"] = "event"
    sleep_s: float = 0.0


class Resumed(BaseModel):
    """When the first line after a wait was executed, on both clocks."""

    clock: float
    time: float


class Held(BaseModel):
    """A file whose presence keeps the run in its step, and one that is told of each attempt."""

    hold: str
    log: str


def answer(number: int) -> dict[str, int]:
    """What the step returns, ours and the peer's."""
    return {"number": number, "square": number * number}


async def square(step: Step, given: Number) -> dict[str, int]:
    """The step."""
    return answer(given.number)


async def hold(step: Step, given: Held) -> None:
    """Say when the attempt began, then stay while the file is there."""
    append(given.log, f"{step.attempt} {time.perf_counter()}")
    while Path(given.hold).exists():  # noqa: ASYNC110 - another process removes it
        await asyncio.sleep(0.05)


@workflow("floor", version="1")
async def floor(run: Run, given: Number) -> dict[str, int]:
    """One step."""
    first_lines[given.number] = time.perf_counter()
    return await run.step(square, given)


@workflow("chain", version="1")
async def chain(run: Run, given: Number) -> Stamps:
    """So many steps, one after the other."""
    began = time.perf_counter()
    for _ in range(given.number):
        await run.step(square, given)
    return Stamps(began=began, ended=time.perf_counter())


@workflow("parked", version="1")
async def parked(run: Run, given: Parked) -> Resumed:
    """A wait."""
    match given.on:
        case "event":
            await run.event("go", str(given.number), timeout_s=30 * 86_400)
        case "review":
            await run.review("general", title="Go on?", evidence=Number(number=given.number))
        case "timer":
            await run.sleep(given.sleep_s)
    return Resumed(clock=time.perf_counter(), time=time.time())


@workflow("held", version="1")
async def held(run: Run, given: Held) -> None:
    """A step that lasts."""
    await run.step(hold, given, timeout_s=600)


@workflow("telling", version="1")
async def telling(run: Run, given: Number) -> None:
    """So many words on how far it is, each with the moment at which it is said, 20 ms apart."""
    for number in range(given.number):
        await asyncio.sleep(0.02)
        await run.progress(number, given.number, str(time.perf_counter()))

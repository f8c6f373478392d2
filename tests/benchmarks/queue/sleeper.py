"""The run of the rows in real time: it holds its slot for a while and says when its first line was executed."""

from __future__ import annotations

import asyncio
import time

from pydantic import BaseModel

from core.workflows import Run, Step, workflow


class Nap(BaseModel):
    """The input."""

    seconds: float


async def sleep(step: Step, given: Nap) -> None:
    """The step."""
    await asyncio.sleep(given.seconds)


@workflow("nap", version="1")
async def nap(run: Run, given: Nap) -> dict[str, float]:
    """One step; returns when it began, in seconds since 1970."""
    began = time.time()
    await run.step(sleep, given)
    return {"began": began}

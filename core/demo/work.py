"""The workflow of ``bailiwick demo burst``: it holds a slot for as long as it is told, as a slow model call does.

Only an installation with the demo's services knows it; ``bailiwick up`` registers it for its processes.
"""

from __future__ import annotations

import asyncio

from pydantic import BaseModel, ConfigDict, Field

from core.workflows import Run, Step, workflow

NAME = "demo-work"


class DemoWork(BaseModel):
    """How long to hold the slot."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    seconds: float = Field(1.0, ge=0, le=60)


class DemoWorkDone(BaseModel):
    """How long the slot was held."""

    seconds: float


@workflow(NAME, version="1")
async def demo_work(run: Run, work: DemoWork) -> DemoWorkDone:
    """Hold a slot for some seconds, and end."""
    return await run.step(hold, work, timeout_s=90)


async def hold(_: Step, work: DemoWork) -> DemoWorkDone:
    """What would be a call of a model or a service. It has no effect: doing it again after a crash does no harm."""
    await asyncio.sleep(work.seconds)
    return DemoWorkDone(seconds=work.seconds)

"""The runs of the fault harness: every primitive once, with an effect in the world outside wherever one can be."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from pydantic import BaseModel

from core.workflows import Retry, Run, Step, usd, workflow

if TYPE_CHECKING:
    from agents import Agent

SERVICE = "effects"
EFFECT_COST = usd("0.01")
_INSISTENT = Retry(attempts=40, initial_s=0.05, max_s=1.0)
_TIMEOUT_S = 2.0


class Job(BaseModel):
    """What one run does. ``refused``: the world refuses one of its effects until somebody heals it."""

    number: int
    sleep_s: float = 0.3
    refused: bool = False
    remembers: bool = False


class Wish(BaseModel):
    """One effect."""

    what: str
    refusable: bool = False


class Opinion(BaseModel):
    """What the agent says."""

    word: str


class Case(BaseModel):
    """Evidence of the review, and what the agent reads."""

    number: int
    word: str


class Done(BaseModel):
    """What a run came to."""

    effects: list[str]
    word: str
    payload: int
    verdict: str


async def have(step: Step, wish: Wish) -> str:
    """Have an effect outside."""
    key = {"Idempotency-Key": step.idempotency_key}
    response = await step.http(SERVICE).post("/effects", json=wish.model_dump(), headers=key)
    response.raise_for_status()
    return str(response.json()["what"])


async def remember(step: Step, job: Job) -> int:
    """Leave something in the tenant's memory, and so in the graph."""
    return len(await step.rooms.memory.remember(step.tenant, statement(job.number), thread_id=None))


def statement(number: int) -> str:
    """What a run remembers."""
    return f"Crate {number} stands in hall {number}."


@workflow("chaos", version="1", budget=usd("1.00"))
async def chaos(run: Run, job: Job) -> Done:
    """Everything."""

    async def effect(name: str, *, refusable: bool = False) -> str:
        wish = Wish(what=f"{job.number}/{name}", refusable=refusable)
        return await run.step(have, wish, name=name, retry=_INSISTENT, timeout_s=_TIMEOUT_S, estimate=EFFECT_COST)

    first = await effect("first")
    await run.progress(1, 5, "begun")
    wish = Wish(what=f"{job.number}/called")
    called = await run.call(
        SERVICE, have, wish, name="called", retry=_INSISTENT, timeout_s=_TIMEOUT_S, estimate=EFFECT_COST
    )
    opinion = Opinion.model_validate(
        await run.agent(
            clerk(), Case(number=job.number, word=f"word-{job.number}"), estimate=usd("0.05"), retry=_INSISTENT
        )
    )
    await run.progress(2, 5)
    left, right, _ = await run.gather(effect("left"), effect("right"), run.sleep(job.sleep_s))
    if job.remembers:
        await run.step(remember, job, retry=_INSISTENT, timeout_s=60)
    payload = await run.event("go", str(job.number), timeout_s=3600)
    await run.progress(3, 5)
    case = Case(number=job.number, word=opinion.word)
    verdict = await run.review("general", title=f"Job {job.number}", evidence=case)
    last = await effect("last", refusable=job.refused)
    await run.progress(5, 5, "done")
    run.outcome(verdict.verdict)
    return Done(
        effects=[first, called, left, right, last],
        word=opinion.word,
        payload=payload["number"],
        verdict=verdict.verdict,
    )


@cache
def clerk() -> Agent[Step]:
    """An agent that says the word it is given."""
    from agents import Agent  # the SDK takes half a second to import

    return Agent(name="clerk", instructions="Answer with the word of the case.", output_type=Opinion)

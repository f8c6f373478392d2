"""The runs of the fault harness: every primitive once, with an effect in the world outside wherever one can be."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from pydantic import BaseModel

from core.workflows import Retry, Run, Step, usd, workflow
from core.workflows.undoing import Undo

if TYPE_CHECKING:
    from agents import Agent

SERVICE = "effects"
EFFECT_COST = usd("0.01")
_INSISTENT = Retry(attempts=40, initial_s=0.05, max_s=1.0)
UNDOABLE = ("first", "right")
_TIMEOUT_S = 2.0


class Job(BaseModel):
    """What one run does. ``refused``: the world refuses one of its effects until somebody heals it; ``maps``: so many
    children, two at once; ``spawns``: one, and something else meanwhile.
    """

    number: int
    sleep_s: float = 0.3
    refused: bool = False
    remembers: bool = False
    spawns: bool = False
    maps: int = 0


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


async def take_back(step: Step, wish: Wish, had: str) -> None:
    """Undo an effect: another effect."""
    await have(step, Wish(what=f"undo/{had}"))


async def remember(step: Step, job: Job) -> int:
    """Leave something in the tenant's memory, and so in the graph."""
    return len(await step.rooms.memory.remember(step.tenant, statement(job.number), thread_id=None))


def statement(number: int) -> str:
    """What a run remembers."""
    return f"Crate {number} stands in hall {number}."


@workflow("chaos-errand", version="1", budget=usd("1.00"))
async def errand(run: Run, wish: Wish) -> str:
    """A child: it waits, too, and has one effect."""
    await run.sleep(0.2)
    return await run.step(have, wish, retry=_INSISTENT, timeout_s=_TIMEOUT_S, estimate=EFFECT_COST)


@workflow("chaos", version="1", budget=usd("1.00"))
async def chaos(run: Run, job: Job) -> Done:
    """Everything."""
    effects = [await _effect(run, job, "first")]
    if await run.patched("since the harness knows of changes"):
        effects.append(await _effect(run, job, "patched"))
    await run.progress(1, 5, "begun")
    wish = Wish(what=f"{job.number}/called")
    called = run.call(SERVICE, have, wish, name="called", retry=_INSISTENT, timeout_s=_TIMEOUT_S, estimate=EFFECT_COST)
    effects.append(await called)
    wish = Wish(what=f"{job.number}/optional")
    skippable = run.step(
        have, wish, name="optional", retry=_INSISTENT, timeout_s=_TIMEOUT_S, estimate=EFFECT_COST, optional=True
    )
    effects.append(await skippable or "skipped")
    case = Case(number=job.number, word=f"word-{job.number}")
    opinion = Opinion.model_validate(await run.agent(clerk(), case, estimate=usd("0.05"), retry=_INSISTENT))
    await run.progress(2, 5)
    left, right, _ = await run.gather(_effect(run, job, "left"), _effect(run, job, "right"), run.sleep(job.sleep_s))
    effects += [left, right, *await _family(run, job)]
    if job.remembers:
        await run.step(remember, job, retry=_INSISTENT, timeout_s=60)
    payload = await run.event("go", str(job.number), timeout_s=3600)
    await run.progress(3, 5)
    evidence = Case(number=job.number, word=opinion.word)
    verdict = await run.review("general", title=f"Job {job.number}", evidence=evidence)
    effects.append(await _effect(run, job, "last", refusable=job.refused))
    await run.progress(5, 5, "done")
    run.outcome(verdict.verdict)
    return Done(effects=effects, word=opinion.word, payload=payload["number"], verdict=verdict.verdict)


async def _effect(run: Run, job: Job, name: str, *, refusable: bool = False) -> str:
    wish = Wish(what=f"{job.number}/{name}", refusable=refusable)
    undo = Undo(take_back, _INSISTENT, _TIMEOUT_S, EFFECT_COST) if name in UNDOABLE else None
    return await run.step(
        have, wish, name=name, retry=_INSISTENT, timeout_s=_TIMEOUT_S, estimate=EFFECT_COST, undo=undo
    )


async def _family(run: Run, job: Job) -> list[str]:
    had = []
    if job.spawns:
        child = await run.spawn(errand, Wish(what=f"{job.number}/spawned"))
        had.append(await _effect(run, job, "meanwhile"))
        had.append(await run.result(child))
    if job.maps:
        wishes = [Wish(what=f"{job.number}/mapped-{one}") for one in range(job.maps)]
        had += await run.map(errand, wishes, at_once=2)
    return had


def effects_of(job: Job) -> list[str]:
    """What a run that succeeds has had, in order; the judge's own words, not the run's."""
    names = ["first", "patched", "called", "optional", "left", "right"]
    if job.spawns:
        names += ["meanwhile", "spawned"]
    names += [f"mapped-{one}" for one in range(job.maps)]
    return [f"{job.number}/{name}" for name in [*names, "last"]]


@cache
def clerk() -> Agent[Step]:
    """An agent that says the word it is given."""
    from agents import Agent  # the SDK takes half a second to import

    return Agent(name="clerk", instructions="Answer with the word of the case.", output_type=Opinion)

"""What must hold when the curtain falls: asked of the database in SQL, of the world outside, and of the audit."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx

from core.bootstrap import Platform
from core.db.queries import load_queries
from core.tenancy import TenantContext
from memory.bootstrap import open_memory
from tests.durability.chaos.people import Told, is_cancelled, verdict_of
from tests.durability.chaos.workflow import EFFECT_COST, UNDOABLE, Job, effects_of

INVARIANTS = load_queries(__file__, "invariants.sql")
SQL = load_queries(__file__, "judge.sql")
_GIVEN: Mapping[str, object] = {"charged_twice": EFFECT_COST, "undone": list(UNDOABLE)}

Faults = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The exceptions by invariant, and how much was looked at."""

    faults: Faults
    measured: Mapping[str, int]

    @property
    def clean(self) -> bool:
        """Whether there are none."""
        return not any(self.faults.values())


async def judge(platform: Platform, admin: TenantContext, jobs: list[Job], told: Told, effects: str) -> Verdict:
    """Look at everything, once all processes but the servers have stopped."""
    async with open_memory(platform) as memory:
        await memory.drain(admin)
    # Model calls that pay for themselves and were cut off: housekeeping gives their money back, an hour later.
    await platform.usage.release_forsaken(0.0)
    await platform.audit.seal_all()
    broken = await platform.audit.verify(admin)
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        outside = (await http.get(f"{effects}/effects")).raise_for_status().json()
    owner = await asyncpg.connect(platform.settings.required("database_url"))
    try:
        faults = {name: await _exceptions(owner, name) for name in INVARIANTS}
        runs = [dict(row) for row in await owner.fetch(SQL["ended"])]
        attempts = {row["key"]: dict(row) for row in await owner.fetch(SQL["attempts"])}
        measured = await owner.fetchrow(SQL["measured"])
    finally:
        await owner.close()
    assert measured is not None
    faults |= {
        "audit": [] if broken is None else [f"the chain breaks at {broken}"],
        "submissions": _submissions(jobs, runs, told),
        "endings": [fault for run in runs for fault in _ending(run, jobs[run["number"]])],
        "effects": effect_faults(runs, jobs, outside, attempts),
    }
    facts = dict(measured) | {
        "deliveries": sum(effect["deliveries"] for effect in outside),
        "effects": sum(effect["had"] for effect in outside),
        # By a worker that was not heard of for so long that another one had done the step meanwhile.
        "late": sum(
            effect["last_at"] > (attempts[_step_of(effect["key"])]["done_at"] or effect["last_at"])
            for effect in outside
        ),
        "ended": sum(run["state"] in {"succeeded", "failed", "cancelled"} for run in runs),
    }
    return Verdict(faults, facts)


async def _exceptions(owner: asyncpg.Connection[asyncpg.Record], name: str) -> list[str]:
    given = [_GIVEN[name]] if name in _GIVEN else []
    return [row["fault"] for row in await owner.fetch(INVARIANTS[name], *given)]


def _submissions(jobs: list[Job], runs: list[dict[str, Any]], told: Told) -> list[str]:
    """Each job is one run, and it is the run of which the API told."""
    found = {run["number"]: run["run_id"] for run in runs}
    times = Counter(run["number"] for run in runs)
    return [
        *(f"job {job.number}: {times[job.number]} runs" for job in jobs if times[job.number] != 1),
        *(f"job {number}: told {run_id}" for number, run_id in told.runs.items() if found.get(number) != run_id),
    ]


def _ending(run: dict[str, Any], job: Job) -> Iterable[str]:
    """Each run ends as its job says, with everything that it did."""
    number, state = run["number"], run["state"]
    if state != "succeeded":
        if not (state == "cancelled" and is_cancelled(number)):
            yield f"job {number} ended {state}"
        return
    expected = {
        "effects": effects_of(job),
        "word": f"word-{number}",
        "payload": number,
        "verdict": verdict_of(number),
    }
    output = json.loads(run["output"])
    if output != expected or run["outcome"] != verdict_of(number):
        yield f"job {number} returned {output}"


def effect_faults(
    runs: list[dict[str, Any]], jobs: list[Job], outside: list[dict[str, Any]], attempts: dict[str, Any]
) -> list[str]:
    """Each effect of a run that succeeded was had once, but for those undone, and asked for at most once an attempt."""
    keys = Counter(effect["what"] for effect in outside if effect["had"])
    net = {what: times - keys[f"undo/{what}"] for what, times in keys.items() if not what.startswith("undo/")}
    wanted = {what for run in runs if run["state"] == "succeeded" for what in effects_of(jobs[run["number"]])}
    faults = [f"lost: {what}" for what in wanted if net.get(what, 0) < 1]
    faults += [f"had {times} times: {what}" for what, times in net.items() if times > 1 or times < 0]
    faults += [f"one key for two effects: {effect}" for effect in outside if effect["differing"]]
    deliveries: Counter[str] = Counter()
    for effect in outside:
        deliveries[_step_of(effect["key"])] += effect["deliveries"]
    tried = {key: row["attempts"] for key, row in attempts.items()}
    faults += [
        f"asked for {times} times, tried {tried.get(key, 0)}: {key}"
        for key, times in deliveries.items()
        if times > tried.get(key, 0)
    ]
    return faults


def _step_of(key: str) -> str:
    """The step that gave a key; one that was done again gives another key."""
    return "/".join(key.split("/")[:2])

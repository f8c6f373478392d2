"""The people and programs around the installation: they act over the API alone, and again when it does not answer.

What is sent again carries the same idempotency key, or is of a kind that may be sent again: so nobody has to know
whether the web process died before or after it had done what it was asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httpx

from tests.durability.chaos.workflow import Job

_AGAIN_S, _LOOK_S = 0.25, 0.5
_BATCH = 10
_FINAL = {"succeeded", "failed", "cancelled", "dead"}
CHOICES = ("approve", "decline")


@dataclass(slots=True)
class Told:
    """What the API answered. ``again``: requests that had to be repeated; ``broken``: answers that nobody expects."""

    runs: dict[int, str] = field(default_factory=dict)
    again: int = 0
    broken: list[str] = field(default_factory=list)
    cancelled: set[int] = field(default_factory=set)
    retried: set[int] = field(default_factory=set)


def verdict_of(number: int) -> str:
    """What the reviewer decides about a job."""
    return CHOICES[number % 7 == 0]


def is_cancelled(number: int) -> bool:
    """Whether somebody cancels this job while it is under way."""
    return number % 10 == 3


def jobs_of(count: int, seed: int) -> list[Job]:
    """The jobs of one performance."""
    dice = random.Random(f"jobs/{seed}")
    return [
        Job(
            number=number,
            sleep_s=round(dice.uniform(0.05, 2.0), 2),
            refused=number % 10 == 7,
            remembers=number % 10 == 5,
            spawns=number % 5 == 2,
            maps=3 * (number % 5 == 1),
        )
        for number in range(count)
    ]


class Door:
    """The API, asked by one key until it answers."""

    def __init__(self, url: str, key: str, told: Told) -> None:
        self._told = told
        headers = {"Authorization": f"Bearer {key}"}
        self._http = httpx.AsyncClient(base_url=f"{url}/api/v1", headers=headers, timeout=10, trust_env=False)

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def ask(self, method: str, path: str, *, key: str | None = None, **request: Any) -> httpx.Response:
        """The answer, once there is one that does not say "later". A problem that nobody expects is written down."""
        headers = {} if key is None else {"Idempotency-Key": key}
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = await self._http.request(method, path, headers=headers, **request)
                if not self._says_later(answer):
                    return answer
            self._told.again += 1
            await asyncio.sleep(_AGAIN_S)

    def _says_later(self, answer: httpx.Response) -> bool:
        if answer.status_code >= 500 and answer.status_code != HTTPStatus.SERVICE_UNAVAILABLE:
            self._told.broken.append(f"{answer.request.method} {answer.request.url.path}: {answer.text[:500]}")
        same_under_way = answer.status_code == HTTPStatus.CONFLICT and "under way" in answer.text
        return same_under_way or answer.status_code == HTTPStatus.TOO_MANY_REQUESTS or answer.status_code >= 500


class People:
    """A program that submits and steers, and a reviewer."""

    def __init__(self, url: str, effects: str, program_key: str, reviewer_key: str, *, seed: int) -> None:
        self.told = Told()
        self._program = Door(url, program_key, self.told)
        self._reviewer = Door(url, reviewer_key, self.told)
        self._effects = effects
        self._seed = seed
        self._dice = random.Random(f"people/{seed}")

    async def close(self) -> None:
        """Go home."""
        await self._program.close()
        await self._reviewer.close()

    async def play(self, jobs: Sequence[Job], *, over_s: float, deadline_s: float) -> float:
        """Submit the jobs over some seconds, and do all that they need until each has ended; the seconds it took.

        Raises ``TimeoutError`` at the deadline.
        """
        began = time.monotonic()
        async with asyncio.timeout(deadline_s):
            reviewing = asyncio.create_task(self._review())
            try:
                async with asyncio.TaskGroup() as tasks:
                    for start in range(0, len(jobs), _BATCH):
                        tasks.create_task(self._later(jobs[start : start + _BATCH], over_s * start / len(jobs)))
            finally:
                reviewing.cancel()
                await asyncio.gather(reviewing, return_exceptions=True)
        return time.monotonic() - began

    # Runs -----------------------------------------------------------------------------------------------

    async def _later(self, jobs: Sequence[Job], after_s: float) -> None:
        await asyncio.sleep(after_s)
        if jobs[0].number // _BATCH % 2:
            run_ids = await self._submit_batch(jobs)
        else:
            run_ids = [await self._submit(job) for job in jobs]
        self.told.runs.update(zip([job.number for job in jobs], run_ids, strict=True))
        async with asyncio.TaskGroup() as tasks:
            for job, run_id in zip(jobs, run_ids, strict=True):
                tasks.create_task(self._follow(job, run_id))

    async def _submit(self, job: Job) -> str:
        body = {"workflow": "chaos", "input": job.model_dump()}
        answer = await self._program.ask("POST", "/runs", key=f"job-{job.number}", json=body)
        answer.raise_for_status()
        return str(answer.json()["run_id"])

    async def _submit_batch(self, jobs: Sequence[Job]) -> list[str]:
        body = {"runs": [{"workflow": "chaos", "input": job.model_dump()} for job in jobs]}
        answer = await self._program.ask("POST", "/runs/batch", key=f"batch-{jobs[0].number}", json=body)
        answer.raise_for_status()
        return [str(run["run_id"]) for run in answer.json()["runs"]]

    async def _follow(self, job: Job, run_id: str) -> None:
        await asyncio.sleep(self._dice.uniform(0, 3))
        body = {"name": "go", "key": str(job.number), "payload": {"number": job.number}}
        (await self._program.ask("POST", "/events", json=body)).raise_for_status()
        if is_cancelled(job.number):
            await asyncio.sleep(self._dice.uniform(0, 3))
            await self._program.ask("POST", f"/runs/{run_id}/cancel")
            self.told.cancelled.add(job.number)
        state = await self._ended(run_id)
        if job.refused and state == "failed":
            async with httpx.AsyncClient(trust_env=False, timeout=10) as http:
                (await http.post(f"{self._effects}/heal", json={"what": f"{job.number}/last"})).raise_for_status()
            await self._program.ask("POST", f"/runs/{run_id}/retry")
            self.told.retried.add(job.number)
            await self._ended(run_id)

    async def _ended(self, run_id: str) -> str:
        while True:
            run = (await self._program.ask("GET", f"/runs/{run_id}")).raise_for_status().json()
            if run["state"] in _FINAL:
                return str(run["state"])
            await asyncio.sleep(self._dice.uniform(_LOOK_S, 4 * _LOOK_S))

    # Reviews --------------------------------------------------------------------------------------------

    async def _review(self) -> None:
        """Decide whatever is asked: some one by one, some together."""
        while True:
            found = await self._reviewer.ask("GET", "/reviews", params={"state": "open", "limit": 100})
            reviews = found.raise_for_status().json()["reviews"]
            together: dict[str, list[str]] = {choice: [] for choice in CHOICES}
            for review in reviews:
                verdict = verdict_of(review["evidence"]["number"])
                if self._dice.random() < 0.5:
                    together[verdict].append(review["review_id"])
                else:
                    decision = {"verdict": verdict, "comment": f"seed {self._seed}"}
                    await self._reviewer.ask("POST", f"/reviews/{review['review_id']}/decision", json=decision)
            for verdict, ids in together.items():
                if ids:
                    body = {"review_ids": ids, "verdict": verdict}
                    await self._reviewer.ask("POST", "/reviews/decisions", json=body)
            await asyncio.sleep(_LOOK_S)

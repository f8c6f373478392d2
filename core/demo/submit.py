"""``bailiwick demo loans``: real applications through the public API, counted to the last one.

Every application becomes one run of one batch. When all have settled (ended, or parked for a person) each
submitted run is counted exactly once, by asking the API for it; the demo's services say whether any of its
effects was carried out twice. Progress goes to standard error, one JSON line to standard output.

It stops earlier when nothing is queued or executing any more and nothing has changed for ``PATIENCE_S``
(the rest waits, visibly, for a rate window or the like), and at the timeout.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from core.demo.client import ApiClient
from core.demo.keys import keys_path, read_keys
from core.errors import SetupError
from core.settings import Port, Settings
from core.workflows.loan_intake import Intake, read_applications
from core.workflows.loan_model import LoanApplication

WORKFLOW = "loan-approval"
CHUNK = 500
PATIENCE_S = 15.0
TOGETHER_S = 0.25
"""Changes in so short a time are looked at together."""
LOOK_AGAIN_S = 5.0
"""When nothing has been heard of for so long, all the same."""
SHOWN_PROBLEMS = 5


@dataclass(frozen=True, slots=True)
class Tally:
    """How the submitted runs ended; each is in exactly one of the counts from ``succeeded`` to ``lost``.

    ``succeeded`` and ``declined`` are the two ways of being decided; ``waiting`` is queued, executing or
    parked for anything but a person; ``lost`` is known to us and not to the API.
    """

    submitted: int
    succeeded: int
    declined: int
    in_review: int
    failed: int
    waiting: int
    lost: int
    duplicated_effects: int
    wall_s: float

    @property
    def good(self) -> bool:
        """Nothing lost, nothing failed, nothing done twice."""
        return self.lost == self.failed == self.duplicated_effects == 0


def tally(
    submitted: Sequence[str], found: Mapping[str, Mapping[str, Any]], duplicated: Mapping[str, int], wall_s: float
) -> Tally:
    """Count every submitted run once. ``duplicated``: surplus effects by run."""
    counts = Counter(_ending(found.get(run_id)) for run_id in submitted)
    return Tally(
        submitted=len(submitted),
        **{name: counts[name] for name in ("succeeded", "declined", "in_review", "failed", "waiting", "lost")},
        duplicated_effects=sum(duplicated.get(run_id, 0) for run_id in submitted),
        wall_s=round(wall_s, 3),
    )


def _ending(run: Mapping[str, Any] | None) -> str:
    if run is None:
        return "lost"
    match run["state"], run["outcome"], run["cause"]:
        case "succeeded", "declined", _:
            return "declined"
        case "succeeded", _, _:
            return "succeeded"
        case (("failed" | "cancelled" | "dead"), _, _):
            return "failed"
        case "waiting", _, "review":
            return "in_review"
        case _:
            return "waiting"


def loans(file: Path, tenant: str, *, limit: int | None = None, timeout_s: float = 300.0) -> int:
    """Submit, wait, count, print. The exit code: 0 when nothing was lost, failed or done twice.

    Raises ``SetupError`` or ``InvalidInput`` with one clear line when it cannot even begin.
    """
    settings = Settings()
    key = read_keys(settings).get(tenant)
    if key is None:
        raise SetupError(f"{keys_path(settings)} holds no key of {tenant!r}: start `make up` first, or check the name.")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise SetupError(f"{file} cannot be read: {error.strerror}.") from error
    intake = read_applications(content, limit=limit)
    console = Console(stderr=True, highlight=False)
    _tell_problems(console, intake)
    if not intake.applications:
        raise SetupError(f"No row of {file} is an application.")
    result = asyncio.run(_Demo(settings, key, console, timeout_s).run(intake.applications))
    sys.stdout.write(json.dumps(asdict(result)) + "\n")
    return 0 if result.good else 1


def _tell_problems(console: Console, intake: Intake) -> None:
    for problem in intake.problems[:SHOWN_PROBLEMS]:
        console.print(f"line {problem.line}: {problem.message}", markup=False)
    if len(intake.problems) > SHOWN_PROBLEMS:
        console.print(f"… and {len(intake.problems) - SHOWN_PROBLEMS} more rows that are no applications.")


class _Demo:
    def __init__(self, settings: Settings, key: str, console: Console, timeout_s: float) -> None:
        self._settings = settings
        self._key = key
        self._console = console
        self._deadline = time.monotonic() + timeout_s
        self._batch_id = f"demo-{secrets.token_hex(8)}"

    async def run(self, applications: Sequence[LoanApplication]) -> Tally:
        began = time.monotonic()
        async with ApiClient(self._settings.web_url(), self._key, deadline=self._deadline) as api:
            with _Show(self._console, len(applications)) as show:
                submitted = await self._submit(api, applications)
                async with api.told(self._batch_id) as changed:
                    left = await self._settle(api, len(submitted), show, changed)
            wall_s = time.monotonic() - began
            found = {run["run_id"]: run async for run in api.runs(batch_id=self._batch_id)}
        if left:
            waits = ", ".join(f"{count} × {cause}" for cause, count in sorted(left.items()))
            self._console.print(f"Not settled, and visible in the API: {waits}.", markup=False)
        return tally(submitted, found, await self._duplicated(), wall_s)

    async def _submit(self, api: ApiClient, applications: Sequence[LoanApplication]) -> list[str]:
        submitted: list[str] = []
        for start in range(0, len(applications), CHUNK):
            runs = [self._request(application) for application in applications[start : start + CHUNK]]
            answer = await api.post("/runs/batch", {"batch_id": self._batch_id, "runs": runs})
            submitted += [run["run_id"] for run in answer["runs"]]
        return submitted

    def _request(self, application: LoanApplication) -> dict[str, Any]:
        return {
            "workflow": WORKFLOW,
            "input": application.model_dump(mode="json"),
            "idempotency_key": f"{self._batch_id}:{application.application_id}",
        }

    async def _settle(self, api: ApiClient, total: int, show: _Show, changed: asyncio.Event) -> dict[str, int]:
        """Wait until nothing moves any more; what has not settled, by cause. Looks when something has changed."""
        before: dict[str, Any] = {}
        changed_at = time.monotonic()
        while True:
            changed.clear()
            batch = await api.get(f"/batches/{self._batch_id}")
            show(batch)
            left = _unsettled(batch)
            now = time.monotonic()
            if batch != before:
                before, changed_at = batch, now
            moving = batch["queued"] + batch["running"]
            still = not moving and now - changed_at > PATIENCE_S
            if (not left and batch["total"] >= total) or still or now > self._deadline:
                return left
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(LOOK_AGAIN_S, max(0.0, self._deadline - now))):
                    await changed.wait()
            await asyncio.sleep(TOGETHER_S)

    async def _duplicated(self) -> dict[str, int]:
        url = f"http://127.0.0.1:{self._settings.port(Port.DEMO)}/effects"
        try:
            async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
                services = (await http.get(url)).raise_for_status().json()
        except httpx.HTTPError as error:
            raise SetupError(f"The demo's services do not tell their effects at {url}: {error!r}") from error
        surplus: Counter[str] = Counter()
        for service in services.values():
            surplus.update(service["duplicated"])
        return dict(surplus)


def _unsettled(batch: Mapping[str, Any]) -> dict[str, int]:
    """What is neither decided nor a person's turn, by cause."""
    waiting = {cause: count for cause, count in batch["waiting_by_cause"].items() if cause != "review"}
    parts = {"queued": batch["queued"], "running": batch["running"], **waiting}
    return {cause: count for cause, count in parts.items() if count}


class _Show:
    """The live line on standard error; where that is no terminal, a plain line every few seconds."""

    PLAIN_EVERY_S = 5.0

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._told_at = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("submitting", total=total)

    def __enter__(self) -> _Show:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, batch: Mapping[str, Any]) -> None:
        in_review = batch["waiting_by_cause"].get("review", 0)
        ended = [(word, batch["by_outcome"].get(word, 0)) for word in ("approved", "declined")]
        others = [("in review", in_review), ("failed", batch["failed"]), *_unsettled(batch).items()]
        words = _words([*ended, *others])
        self._progress.update(self._task, description=words, completed=batch["finished"] + in_review)
        if not self._console.is_terminal and time.monotonic() - self._told_at > self.PLAIN_EVERY_S:
            self._told_at = time.monotonic()
            self._console.print(words, markup=False)


def _words(counts: Iterable[tuple[str, int]]) -> str:
    return " · ".join(f"{count} {name}" for name, count in counts if count) or "starting"

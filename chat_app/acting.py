"""What a person does to runs from their card: to one, or to all of a batch that the act fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, assert_never

from core.agents.words import plural
from core.runs.acts import Act
from core.runs.bulk import Bulk, BulkControl, Choice
from core.runs.control import RunControl
from core.runs.model import RunState
from core.tenancy import TenantContext

_FOR_S = 5.0
_LAST_STEP = 1_000_000
_DONE = {
    Act.CANCEL: "Cancelled",
    Act.RETRY: "Queued again",
    Act.PAUSE: "Paused",
    Act.RESUME: "Resumed",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """An act, and on what: a run (retried from a step on, if one is named), or a batch."""

    act: Act
    run_id: str = ""
    batch_id: str = ""
    from_step: int | None = None


def asked_by(payload: Mapping[str, Any]) -> Asked | None:
    """What a button of a card asks for; None: nothing that there is."""
    act, run_id, batch_id, step = (payload.get(name) for name in ("act", "run_id", "batch_id", "from_step"))
    if act not in list(Act) or not (run_id or batch_id):
        return None
    from_step = step if type(step) is int and 1 <= step <= _LAST_STEP else None
    return Asked(Act(act), str(run_id or ""), str(batch_id or ""), from_step)


async def act_on_runs(control: RunControl, bulk: BulkControl, ctx: TenantContext, asked: Asked) -> str:
    """Do it; what was done, in a sentence. Raises what ``RunControl`` and ``BulkControl`` raise."""
    if not asked.run_id:
        chosen = await bulk.preview(ctx, asked.act, Choice(batch_id=asked.batch_id))
        return _of_many(await bulk.apply(ctx, chosen.bulk_id, for_s=_FOR_S))
    match asked.act:
        case Act.CANCEL:
            ended = (await control.cancel(ctx, asked.run_id)).state.final
            return "Cancelled." if ended else "It is being stopped."
        case Act.PAUSE:
            executes = (await control.pause(ctx, asked.run_id)).state is RunState.RUNNING
            return "It pauses before its next step." if executes else "Paused."
        case Act.RESUME:
            await control.resume(ctx, asked.run_id)
            return "Resumed."
        case Act.RETRY:
            await control.retry(ctx, asked.run_id, from_step=asked.from_step)
            return "It starts again." if asked.from_step is None else f"It starts again from step {asked.from_step}."
        case _:
            assert_never(asked.act)


def _of_many(bulk: Bulk) -> str:
    if not bulk.runs:
        return f"There was nothing to {bulk.act}."
    parts = [f"{_DONE[bulk.act]}: {plural(bulk.done, 'run')}."]
    if bulk.skipped:
        parts.append(f"{plural(bulk.skipped, 'run')} had moved on and stayed as they are.")
    if bulk.left:
        parts.append(f"{plural(bulk.left, 'run')} more will follow by themselves.")
    return " ".join(parts)

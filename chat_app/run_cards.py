"""The card of a batch, or of one run: how far it is, what its runs do, what may be done to them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chat_app.rendering import MAX_FACTS, duration, fact, facts
from core.agents.words import cause_in_words, plural, waits_in_words
from core.ids import RunId
from core.queue.estimate import StartsIn
from core.runs.acts import Act
from core.runs.model import BatchProgress, Cause, RunState, RunView, Standstill, StepView, progress_of
from core.tenancy import Policy
from core.usage.model import format_usd

RUNS_CARD = "RunsCard"
LISTED_RUNS = 8
MAX_STEPS = 50
MAX_RESULT = 2_000
_CENT = 10_000

_TONES = {
    "approved": "good",
    "succeeded": "good",
    "declined": "plain",
    "running": "busy",
    "waiting": "held",
    "paused": "held",
    "queued": "idle",
    "failed": "bad",
    "cancelled": "idle",
    "dead": "bad",
}
_STEP_TONES = {"done": "good", "failed": "bad", "skipped": "idle", "at work": "busy", "waiting": "held"}


@dataclass(frozen=True, slots=True)
class Seen:
    """What this person may do, and which of the runs they have opened: their steps, by run."""

    may_act: bool = False
    opened: Mapping[RunId, Sequence[StepView]] = field(default_factory=dict)


def runs_card(
    label: str,
    progress: BatchProgress,
    recent: Sequence[RunView],
    policy: Policy,
    last_start: StartsIn | None = None,
    seen: Seen | None = None,
) -> dict[str, Any]:
    """Props of the card that shows how far a batch is. ``last_start``: when the last queued run should start."""
    seen = seen or Seen()
    counts = _segments(progress)
    done = progress.finished == progress.total
    return {
        "batch_id": progress.batch_id,
        "title": label,
        "total": progress.total,
        "finished": progress.finished,
        "done": done,
        "headline": _headline(progress, done),
        "segments": [
            {"key": key, "label": key.capitalize(), "count": count, "tone": _TONES.get(key, "good")}
            for key, count in counts
        ],
        "waits": [*waits_in_words(progress, policy), *_start_in_words(last_start)],
        "runs": [run_line(run, seen) for run in recent],
        "cost": _cost(progress, done),
        "busy": bool(progress.queued + progress.running),
        "acts": _acts_on_all(progress) if seen.may_act else [],
    }


def run_card(run: RunView, policy: Policy, seen: Seen) -> dict[str, Any]:
    """Props of the same card for one run."""
    counted = {"state": run.state, "cause": run.cause, "outcome": run.outcome, "workflow": run.workflow}
    row = {**counted, "version": run.version, "runs": 1, "cost_microusd": run.cost_microusd}
    progress = progress_of("", [row], Standstill(run.cause or Cause.SHARE))
    card = runs_card(_name(run), progress, [run], policy, seen=seen)
    (line,) = card["runs"]
    return {**card, "run_id": run.run_id, "batch_id": None, "headline": _name(run), "title": line["note"], "acts": []}


def listed(card: Mapping[str, Any]) -> Iterable[str]:
    """The runs that a card lists."""
    return (str(run["run_id"]) for run in card.get("runs", ()))


def writing(card: Mapping[str, Any]) -> Iterable[str]:
    """Those of them that may write something now."""
    return (str(run["run_id"]) for run in card.get("runs", ()) if run["state"] == RunState.RUNNING)


def unfinished(card: Mapping[str, Any]) -> bool:
    """Whether a runs card may still change."""
    return not card.get("done", False)


def executing(card: Mapping[str, Any]) -> bool:
    """Whether something of the batch is queued or running now, so that it changes by the second."""
    return any(segment["key"] in ("queued", "running") for segment in card.get("segments", []))


def _cost(progress: BatchProgress, done: bool) -> str:
    cost = progress.cost_microusd
    said = "under $0.01" if 0 < cost < _CENT else format_usd(cost)
    return f"cost {said}" if done else f"cost so far {said}"


def _start_in_words(last: StartsIn | None) -> list[str]:
    if last is None or last.latest_s < 1:
        return []
    return [f"The last should start in about {duration(last.latest_s)}."]


def _headline(progress: BatchProgress, done: bool) -> str:
    if not done:
        return f"{progress.finished:,} of {plural(progress.total, 'run')} finished"
    if progress.failed or progress.cancelled or progress.dead:
        return "The run has ended" if progress.total == 1 else f"All {progress.total:,} runs ended"
    return "The run is finished" if progress.total == 1 else f"All {progress.total:,} runs finished"


def _segments(progress: BatchProgress) -> list[tuple[str, int]]:
    """Counts that add up to the total, finished ones first, none of them zero."""
    plain = progress.succeeded - sum(progress.by_outcome.values())
    counts = [
        *sorted(progress.by_outcome.items()),
        ("succeeded", plain),
        ("failed", progress.failed),
        ("cancelled", progress.cancelled),
        ("dead", progress.dead),
        ("running", progress.running),
        ("waiting", progress.waiting),
        ("queued", progress.queued),
    ]
    return [(key, count) for key, count in counts if count > 0]


# One run of the list ------------------------------------------------------------------------------------


def run_line(run: RunView, seen: Seen) -> dict[str, Any]:
    """One run in the list of a card; opened: with its steps, its result and what may be done to it."""
    word = run.outcome or ("paused" if run.held and not run.state.final else run.state.value)
    steps = seen.opened.get(run.run_id)
    line = {
        "run_id": run.run_id,
        "label": _name(run),
        "word": word,
        "tone": _TONES.get(word, "good"),
        "note": _note(run),
        "state": run.state.value,
        "opened": steps is not None,
    }
    if steps is None:
        return line
    latest = {step.step: step for step in steps}
    shown = [_step_line(step, run.state) for step in latest.values()][:MAX_STEPS]
    return {
        **line,
        "steps": shown,
        "result": _result(run),
        "acts": _acts_on(run) if seen.may_act else [],
        "again_from": [step for step in shown if step["step"] > 0] if seen.may_act and _may_begin_again(run) else [],
    }


def _name(run: RunView) -> str:
    application = run.input.get("application_id")
    return f"Application {application}" if application else run.workflow.replace("-", " ").capitalize()


def _note(run: RunView) -> str:
    if run.cause is Cause.PAUSED and run.state is RunState.WAITING:
        return "until somebody resumes it"
    if run.cause:
        return f"waits for {cause_in_words(run.cause)}" if run.state is RunState.WAITING else cause_in_words(run.cause)
    if run.error:
        return str(run.error.get("message", ""))
    if run.state is RunState.RUNNING and run.progress:
        return str(run.progress.get("note", ""))
    reasons = run.output.get("reasons") if isinstance(run.output, dict) else None
    return str(reasons[0]) if reasons else ""


def _step_line(step: StepView, state: RunState) -> dict[str, Any]:
    word = step.state if step.state != "started" else "at work" if state is RunState.RUNNING else "waiting"
    lasted = (step.finished_at - step.started_at).total_seconds() if step.finished_at else None
    return {
        "step": step.step,
        "name": step.name.replace("_", " ").replace("-", " "),
        "word": word,
        "tone": _STEP_TONES.get(word, "plain"),
        "note": str(step.error.get("message", "")) if step.error else _lasting(lasted),
    }


def _lasting(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return duration(seconds) if seconds >= 1 else "under a second"


def _result(run: RunView) -> list[dict[str, Any]]:
    """What a run returned, as labelled values."""
    if run.state is not RunState.SUCCEEDED or run.output is None:
        return []
    output = run.output if isinstance(run.output, Mapping) else {"result": run.output}
    reasons = output.get("reasons")
    told = [("Reasons", "; ".join(map(str, reasons)))] if isinstance(reasons, list) and reasons else []
    return [fact(label, value[:MAX_RESULT]) for label, value in [*facts(output), *told]][:MAX_FACTS]


# What may be done ---------------------------------------------------------------------------------------


def _act(act: Act, label: str, sure: str = "") -> dict[str, str]:
    """A button; ``sure``: what is asked before it does anything."""
    return {"act": act.value, "label": label, "sure": sure}


def _may_begin_again(run: RunView) -> bool:
    return run.state.final and run.state is not RunState.SUCCEEDED


def _acts_on(run: RunView) -> list[dict[str, str]]:
    again = [_act(Act.RETRY, "Try again")] if _may_begin_again(run) else []
    if run.undoing or (run.state.final and run.state is not RunState.DEAD):
        return again
    hold = [] if again else [_act(Act.RESUME, "Resume") if run.held else _act(Act.PAUSE, "Pause")]
    cancel = _act(Act.CANCEL, "Cancel", "Cancel this run? What it has done so far is undone where it can be.")
    return [*again, *hold, cancel]


def _acts_on_all(progress: BatchProgress) -> list[dict[str, str]]:
    left = progress.total - progress.finished
    paused = progress.waiting_by_cause.get(Cause.PAUSED, 0)
    unsuccessful = progress.failed + progress.cancelled + progress.dead
    acts = []
    if left > paused:
        acts.append(_act(Act.PAUSE, "Pause"))
    if paused:
        acts.append(_act(Act.RESUME, "Resume"))
    if left:
        sure = f"Cancel {plural(left, 'run')} that {'has' if left == 1 else 'have'} not ended?"
        acts.append(_act(Act.CANCEL, "Cancel" if left == progress.total else "Cancel the rest", sure))
    if unsuccessful:
        acts.append(_act(Act.RETRY, f"Try {unsuccessful:,} again"))
    return acts

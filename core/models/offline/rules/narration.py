"""Says in English what a tool answered. Every figure and name comes from the answer or the call.

Tools may answer in JSON of slightly different shapes; each narrator looks for the fields it knows and
falls back to a plain list of whatever is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from core.models.offline.prompt import Call
from core.models.offline.rules.words import as_sentence, plural, relevant, stems

_STATEMENTS = ("statement", "text", "content", "memory", "fact")
_LIMIT = 30


def candidates(data: Any) -> list[dict[str, Any]]:
    """The rows in a tool's answer: the answer itself if it is a list, else the first list in it."""
    rows = data
    if isinstance(data, Mapping):
        rows = next((value for value in data.values() if isinstance(value, list)), [data])
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def failure_of(data: Any) -> str | None:
    """The sentence to say when a tool answered with an error."""
    if isinstance(data, str) and data.lower().startswith(("error", "an error occurred")):
        return f"That did not work. {data}"
    if not isinstance(data, Mapping):
        return None
    error = data.get("error")
    if isinstance(error, Mapping):
        error = error.get("message") or error.get("code")
    if error:
        return f"That did not work: {data.get('message') or data.get('detail') or error}"
    return None


def narrate(call: Call, data: Any) -> str:
    """What to tell the user about one call and its answer."""
    if problem := failure_of(data):
        return problem
    narrator = _NARRATORS.get(call.name)
    told = narrator(call.arguments, data) if narrator and not isinstance(data, str) else None
    return told if told is not None else plain(data)


def plain(data: Any) -> str:
    """Any data as readable text."""
    if isinstance(data, str):
        return data
    if isinstance(data, Mapping):
        return "\n".join(f"- {_label(key)}: {_short(value)}" for key, value in data.items()) or "There is nothing."
    if isinstance(data, list):
        rows = [f"- {_short(row)}" for row in data[:_LIMIT]]
        return "\n".join([*rows, *_more(data)]) or "There is nothing."
    return _short(data)


def _label(key: object) -> str:
    return str(key).replace("_", " ")


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(
            f"{_label(key)} {_short(inner)}" for key, inner in value.items() if inner not in (None, "", [], {})
        )
    if isinstance(value, list):
        return ", ".join(_short(inner) for inner in value[:10]) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _more(rows: list[Any]) -> list[str]:
    return [f"… and {len(rows) - _LIMIT:,} more"] if len(rows) > _LIMIT else []


def _first(row: Mapping[str, Any], *names: str) -> Any:
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)


def _started(arguments: Mapping[str, Any], data: Any) -> str | None:
    count = _first(data, "started", "submitted", "runs_started", "count", "runs") if isinstance(data, Mapping) else None
    if isinstance(count, list):
        count = len(count)
    if not isinstance(count, int):
        return None
    file, before = arguments.get("attachment"), data.get("already_started_before")
    parts = [f"I started {plural(count, 'loan-approval run')} from {file}."]
    if before:
        parts = [] if count == 0 else parts
        parts.append(f"{plural(before, 'run')} of {file} had been started before.")
    parts += [
        as_sentence(f"{_label(key)}: {_short(value)}")
        for key, value in data.items()
        if key in ("queued", "running", "refused", "skipped", "invalid", "errors", "message") and value
    ]
    return " ".join([*parts, "Ask me how far it is at any time."])


def _progress(_arguments: Mapping[str, Any], data: Any) -> str | None:
    if not isinstance(data, Mapping):
        return None
    total = _first(data, "total", "runs")
    counts = _counts(data)
    if not counts:
        return "There are no runs yet." if total in (None, 0) else None
    listed = ", ".join(f"{name} {count:,}" for name, count in counts)
    waits = data.get("waits")
    causes = "\n".join(f"- {as_sentence(str(cause))}" for cause in waits) if isinstance(waits, list) else ""
    told = f"Of {plural(total, 'run')}: {listed}." if isinstance(total, int) else f"Runs: {listed}."
    return f"{told}\n{causes}" if causes else told


def _counts(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for key, value in data.items():
        name = f"{prefix}{_label(key)}"
        if isinstance(value, Mapping):
            found += _counts(value, "" if key in ("by_status", "by_state", "counts", "statuses") else f"{name} for ")
        elif isinstance(value, int) and not isinstance(value, bool) and value and key not in ("total", "runs"):
            found.append((name, value))
    return found


def _declined(_arguments: Mapping[str, Any], data: Any) -> str | None:
    groups = sorted(_groups(data), key=lambda group: (-group[1], group[0]))
    declined = _first(data, "declined", "total_declined", "total", "count") if isinstance(data, Mapping) else None
    if not groups:
        return "Nothing was declined." if declined in (None, 0) else None
    whole = _first(data, "decided", "applications", "total_runs", "of") if isinstance(data, Mapping) else None
    count = declined if isinstance(declined, int) else sum(size for _, size, _ in groups)
    among = f" of {plural(whole, 'application')}" if isinstance(whole, int) else ""
    noun = "application was" if count == 1 and not among else "applications were" if not among else "were"
    lines = [
        f"- {reason.rstrip('.')}: {size:,}{f' (for example {example})' if example else ''}"
        for reason, size, example in groups
    ]
    still_open = data.get("still_open") if isinstance(data, Mapping) else None
    end = f"\n\n{plural(still_open, 'run')} not decided yet." if isinstance(still_open, int) and still_open else ""
    return f"{count:,}{among} {noun} declined. By reason:\n" + "\n".join(lines) + end


def _groups(data: Any) -> list[tuple[str, int, str]]:
    """(reason, number, example) of each group."""
    if isinstance(data, Mapping):
        for key in ("reasons", "by_reason", "counts_by_reason", "counts", "groups"):
            if isinstance(data.get(key), Mapping):
                return [(str(name), size, "") for name, size in data[key].items() if isinstance(size, int)]
    found = []
    for row in candidates(data):
        reason = _first(row, "reason", "name", "text", "label")
        size = _first(row, "count", "number", "runs", "n")
        examples = _first(row, "examples", "run_ids", "example")
        example = ", ".join(map(str, examples[:2])) if isinstance(examples, list) else str(examples or "")
        if reason is not None and isinstance(size, int):
            found.append((str(reason), size, example))
    return found


def _remembered(arguments: Mapping[str, Any], data: Any) -> str | None:
    if isinstance(data, Mapping) and data.get("remembered") == []:
        return "I could not make a memory of that; please say it as one plain statement."
    statement = _first(arguments, *_STATEMENTS)
    return f"I will remember: {as_sentence(str(statement))}" if statement else None


def _recalled(arguments: Mapping[str, Any], data: Any) -> str | None:
    rows = data if isinstance(data, list) else _first(data, "memories", "results", "items") or []
    texts = [row if isinstance(row, str) else _memory_text(row) for row in rows]
    known = [text for text in dict.fromkeys(texts) if text]
    if not known:
        return "I know nothing about that: no memory answers it."
    asked = str(arguments.get("query", ""))
    fitting = relevant(asked, known) if stems(asked) else known
    if fitting:
        return "From what I remember: " + " ".join(as_sentence(text) for text in fitting)
    return "No memory answers that directly. The closest I have:\n" + "\n".join(
        f"- {as_sentence(t)}" for t in known[:3]
    )


def _memory_text(row: Any) -> str:
    if not isinstance(row, Mapping):
        return ""
    if text := _first(row, *_STATEMENTS):
        return str(text) if not isinstance(text, Mapping) else _memory_text(text)
    triple = [row.get(name) for name in ("subject", "predicate", "object")]
    return " ".join(map(str, triple)) if all(triple) else ""


def _scheduled(arguments: Mapping[str, Any], data: Any) -> str | None:
    if not isinstance(data, Mapping):
        return None
    zone = arguments.get("timezone")
    told = f"Scheduled “{arguments.get('name')}”: workflow {arguments.get('workflow')} at {arguments.get('cron')}"
    told += f" ({zone})." if zone else "."
    due = _first(data, "next_due", "next_fire", "next_run", "next_fire_time", "next")
    fires = due if isinstance(due, list) else [due] if due else _first(data, "next_fires", "next_runs") or []
    return told + (f" Next: {', '.join(map(str, fires[:3]))}." if fires else "")


def _one_run(_arguments: Mapping[str, Any], data: Any) -> str | None:
    if not isinstance(data, Mapping) or not data.get("workflow"):
        return None
    of = f" of application {data['application']}" if data.get("application") else ""
    told = [f"The {data['workflow']} run{of} is {data.get('status')}."]
    if waits_for := data.get("waits_for"):
        told.append(f"It waits for: {waits_for}.")
    told += [as_sentence(str(reason)) for reason in data.get("reasons") or [] if reason]
    if error := data.get("error"):
        told.append(as_sentence(str(error)))
    told += [as_sentence(str(line)) for line in data.get("budget") or []]
    steps = [step for step in data.get("steps") or [] if isinstance(step, Mapping)]
    done = len({step.get("name") for step in steps if step.get("state") == "done"})
    return " ".join([*told, *([f"{plural(done, 'step')} done so far."] if done else [])])


def _run_lines(_arguments: Mapping[str, Any], data: Any) -> str | None:
    rows = candidates(data)
    if not rows or not all(row.get("workflow") and row.get("status") for row in rows):
        return _rows_of("run", "There are no such runs.")(_arguments, data)
    lines = []
    for row in rows[:_LIMIT]:
        name = f"Application {row['application']}" if row.get("application") else _label(row["workflow"])
        waits_for, error = row.get("waits_for"), row.get("error")
        why = f" for {waits_for}" if waits_for and row["status"] == "waiting" else f", {waits_for or error}"
        lines.append(f"- {name}: {row['status']}" + (why if waits_for or error else ""))
    note = data.get("message") if isinstance(data, Mapping) else None
    return "\n".join([f"{plural(len(rows), 'run')}, newest first:", *lines, *_more(rows), *([note] if note else [])])


def _rows_of(noun: str, nothing: str) -> Callable[[Mapping[str, Any], Any], str | None]:
    def tell(_arguments: Mapping[str, Any], data: Any) -> str | None:
        rows = data if isinstance(data, list) else next((v for v in data.values() if isinstance(v, list)), None)
        if rows is None:
            return None
        if not rows:
            return nothing
        total = data.get("total") if isinstance(data, Mapping) else None
        lines = [f"- {_short(row)}" for row in rows[:_LIMIT]]
        count = total if isinstance(total, int) and total > len(rows) else len(rows)
        return "\n".join([f"{plural(count, noun).capitalize()}:", *lines, *_more(rows)])

    return tell


def _reviews(arguments: Mapping[str, Any], data: Any) -> str | None:
    rows = candidates(data)
    if not rows or not all(row.get("case") for row in rows):
        return _rows_of("open review", "Nothing waits for review.")(arguments, data)
    total = data.get("total") if isinstance(data, Mapping) else None
    lines = [f"- {row['case']}" + (f" (due {row['due']})" if row.get("due") else "") for row in rows[:_LIMIT]]
    note = data.get("message") if isinstance(data, Mapping) else None
    end = [f"\n{note}"] if note else []
    return "\n".join([f"{plural(max(total or 0, len(rows)), 'case')} for review:", *lines, *_more(rows), *end])


def _decided(arguments: Mapping[str, Any], data: Any) -> str | None:
    comment = arguments.get("comment")
    told = f"Review {arguments.get('review_id')} is decided: {arguments.get('verdict')}."
    told += f" Comment: {as_sentence(comment)}" if comment else ""
    run = _first(data, "run_id") if isinstance(data, Mapping) else None
    return f"{told} Run {run} goes on." if run else told


def _chosen(_arguments: Mapping[str, Any], data: Any) -> str | None:
    if not isinstance(data, Mapping) or not data.get("runs"):
        return None if isinstance(data, Mapping) and data.get("message") else "There are no such runs."
    return f"That would {data.get('act')} {data['runs']} runs. To do it, say: apply {data.get('bulk_id')}"


def _acted(_arguments: Mapping[str, Any], data: Any) -> str | None:
    if not isinstance(data, Mapping) or "done" not in data:
        return None
    left = data.get("still_to_do")
    return f"Done for {data['done']} of {data.get('of')} runs." + (f" {left} are still being done." if left else "")


def _done(what: str, key: str) -> Callable[[Mapping[str, Any], Any], str | None]:
    def tell(arguments: Mapping[str, Any], data: Any) -> str | None:
        state = _first(data, "status", "state") if isinstance(data, Mapping) else None
        return f"{what} {arguments.get(key)}." + (f" Its status is now {state}." if state else "")

    return tell


_NARRATORS: dict[str, Callable[[Mapping[str, Any], Any], str | None]] = {
    "start_loan_runs": _started,
    "runs_progress": _progress,
    "get_run": _one_run,
    "summarise_declined": _declined,
    "remember": _remembered,
    "recall": _recalled,
    "create_schedule": _scheduled,
    "list_runs": _run_lines,
    "list_reviews": _reviews,
    "list_schedules": _rows_of("schedule", "There are no schedules."),
    "decide_review": _decided,
    "cancel_run": _done("I asked to cancel run", "run_id"),
    "pause_run": _done("I paused run", "run_id"),
    "resume_run": _done("I resumed run", "run_id"),
    "retry_run": _done("I queued again run", "run_id"),
    "choose_runs": _chosen,
    "act_on_chosen_runs": _acted,
    "forget": _done("I forgot memory", "memory_id"),
    "pause_schedule": _done("I paused schedule", "schedule_id"),
    "resume_schedule": _done("I resumed schedule", "schedule_id"),
}

"""Intents about schedules, and the names of workflows."""

from __future__ import annotations

import re

from core.models.offline.rules.arguments import enumeration
from core.models.offline.rules.goals import Goal, Lookup, Reply, Scene, Wish
from core.models.offline.rules.recurrence import RhythmError, mentions_recurrence, recurrence, task_of
from core.models.offline.rules.words import has, identifier, is_question, starts, stems

_WORKFLOW_NAME = re.compile(r"\b[a-z]+(?:-[a-z0-9]+)+\b")
_CHANGES = {
    "pause_schedule": r"pause|suspend|disable|stop|hold|turn off|switch off",
    "resume_schedule": r"resume|enable|unpause|continue|turn on|switch on|reactivate",
    "delete_schedule": r"delete|remove|drop|cancel",
}


def create_schedule(text: str, scene: Scene) -> Wish | None:
    """ "Every weekday at 09:00 re-check pending applications"."""
    if not mentions_recurrence(text) or is_question(text) or starts(r"(?:list|show|pause|resume|delete)\b", text):
        return None
    try:
        rhythm = recurrence(text)
    except RhythmError as problem:
        return Reply(f"I cannot schedule that: {problem}. Please name another rhythm or time.")
    task = task_of(text)
    if rhythm is None or not task or starts(r"(?:we|i|our|the|they|he|she|it)\b", task):
        return None
    workflow = workflow_for(task, scene)
    if workflow is None:
        return Reply("Which workflow shall I schedule? Please name it, for example loan-recheck.")
    tool = scene.prompt.tool("create_schedule")
    by_name = tool is not None and bool(has(r"\bmon\b", f"{tool.description} {tool.properties.get('cron')}"))
    return Goal(
        "create_schedule",
        {
            "name": _name_of(task),
            "workflow": workflow,
            "cron": rhythm.cron(names=by_name),
            "timezone": rhythm.timezone or _timezone_in(scene.prompt.instructions),
        },
    )


def _name_of(task: str) -> str:
    bare = re.sub(r"^(?:schedule|run|start)\s+(?:the\s+)?", "", task, flags=re.IGNORECASE) or task
    return bare[:1].upper() + bare[1:]


def workflow_for(task: str, scene: Scene) -> str | None:
    """The workflow whose name the task speaks of: from the tool's schema, its description or the instructions."""
    tool = scene.prompt.tool("create_schedule")
    described = f"{tool.description} {tool.properties.get('workflow', '')}" if tool else ""
    allowed = enumeration(tool.properties.get("workflow")) if tool else []
    known = allowed or _WORKFLOW_NAME.findall(f"{described} {scene.prompt.instructions}")
    if exact := next((name for name in _WORKFLOW_NAME.findall(task) if not known or name in known), None):
        return exact if exact in known or exact not in ("re-check", "re-run", "re-evaluate") else _recheck(known)
    wanted = stems(task.replace("applications", "loan").replace("application", "loan"))
    scored = sorted(((len(wanted & stems(name.replace("-", " "))), name) for name in set(known)), reverse=True)
    if scored and scored[0][0]:
        best = [name for score, name in scored if score == scored[0][0]]
        return best[0] if len(best) == 1 else (_recheck(best) if _rechecks(task) else min(best))
    return _recheck(known) if _rechecks(task) else None


def starts_other_workflow(text: str, scene: Scene) -> bool:
    """A re-check is another workflow than the first check of an attached file."""
    return _rechecks(text) and not scene.fresh


def _rechecks(task: str) -> bool:
    return bool(has(r"\bre-?(?:check|run|evaluat|examin|view|assess)\w*", task))


def _recheck(known: list[str]) -> str:
    return next((name for name in known if "recheck" in name), "loan-recheck")


def change_schedule(text: str, _scene: Scene) -> Wish | None:
    """ "Pause the nightly re-check"; the schedule is found by name when no id is given."""
    if "schedule" not in text.lower() and not starts(r"(?:pause|resume|suspend|unpause)\b", text):
        return None
    for tool, verbs in _CHANGES.items():
        found = starts(rf"(?:{verbs})\b\s*(.*)", text)
        if found:
            about = re.sub(
                r"\b(?:the|schedules?|named|called|my|our|job)\b", " ", found.group(1), flags=re.IGNORECASE
            ).strip(" .!\"'")
            lookup = Lookup("list_schedules", {}, ("schedule_id", "id"), about, "schedule")
            return Goal(tool, {"schedule_id": identifier(text) or lookup, "id": identifier(text) or lookup})
    return None


def list_schedules(text: str, _scene: Scene) -> Wish | None:
    """ "Which schedules are there?"."""
    asks = is_question(text) or starts(r"(?:list|show|display|give)\b", text)
    return Goal("list_schedules") if asks and has(r"\bschedul\w*\b", text) else None


def _timezone_in(instructions: str) -> str:
    found = has(r"\btime ?zone\W+(?:is\s+)?([A-Za-z]+(?:/[A-Za-z_]+)*)", instructions)
    return found.group(1) if found else "UTC"

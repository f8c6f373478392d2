"""Reads what a sentence asks for. One small function per intent, tried in the order of ``WHOLE`` and ``PARTS``.

``WHOLE`` intents take the sentence as it is (their argument is free text, so an "and" inside it belongs to
it); ``PARTS`` intents may also be found in the halves of "do this and then that".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from core.models.offline.rules import asking, scheduling
from core.models.offline.rules.goals import ATTACHMENT, Goal, Lookup, Reply, Scene, Wish
from core.models.offline.rules.words import NUMBER, has, identifier, is_question, number, sentences, starts

Recogniser = Callable[[str, Scene], Wish | list[Wish] | None]

POLITE = re.compile(
    r"^(?:(?:please|ok|okay|now|then|also|and|hey|hi|hello|yes|great|thanks|can you|could you|would you|will you|"
    r"i want (?:you )?to|i would like (?:you )?to|i'd like (?:you )?to|let's|let us|go ahead and)[,!.]?\s+)+",
    re.IGNORECASE,
)
_AND = re.compile(r"\s*,?\s+(?:and then|and also|and|then)\s+")
_START = re.compile(
    r"^(?:re-?)?(?:start|run|process|submit|launch|begin|kick off|evaluate|assess|handle|decide|work through|"
    r"go through|execute|import|do|check|screen|score|take)\b",
    re.IGNORECASE,
)
_MATERIAL = re.compile(
    r"\b(?:applications?|applicants?|csv|file|files|attach\w*|rows?|loans?|loan[- ]approvals?|cases|them|these|those|"
    r"it|this|all|everything|sheet|spreadsheet|upload\w*|list|runs)\b",
    re.IGNORECASE,
)
_LIMITS = (
    rf"\b(?:first|top|only|just|up to|at most|maximum of|max|limit(?: of| to)?)\s+(?:the\s+)?(?:first\s+)?{NUMBER}\b",
    rf"\b{NUMBER}\s+(?:of (?:them|these|those|the)|applications?|applicants?|rows?|cases|loans?)\b",
    rf"\bsample of {NUMBER}\b",
)
_STATUSES = (
    ("waiting", r"waiting|parked|pending"),
    ("queued", r"queued|in the queue"),
    ("running", r"running|active|in progress|executing"),
    ("failed", r"failed|broken|errored"),
    ("cancelled", r"cancel(?:l)?ed"),
    ("declined", r"declined|refused|rejected"),
    ("approved", r"approved|accepted"),
    ("succeeded", r"succeeded|successful|finished|completed|done"),
)
_DECLINED = re.compile(r"\b(?:declin\w*|refus\w*|reject\w*|turned down|denied|denials?)\b", re.IGNORECASE)
_ACCOUNT = re.compile(
    r"\b(?:summar\w*|why|reasons?|explain|overview|break ?down|report|what|which|how many|list|show|group\w*|tell)\b",
    re.IGNORECASE,
)
_VERDICTS = (
    ("approve", r"approve|accept|grant|confirm|clear|allow|pass"),
    ("decline", r"decline|reject|deny|refuse|turn down"),
)


def wishes(text: str, scene: Scene) -> list[Wish]:
    """Everything the message asks for, in order, each once."""
    found: list[Wish] = []
    for sentence in sentences(ATTACHMENT.sub(" ", text)):
        found += [wish for wish in _of_sentence(sentence, scene) if wish not in found]
    serious = [wish for wish in found if isinstance(wish, Goal) or not wish.courtesy]
    if serious:
        return serious
    if scene.attachments and scene.fresh:
        names = ", ".join(scene.attachments)
        return [Reply(f"I see {names}. Shall I start one loan-approval run for each application in it?")]
    return found


def _of_sentence(sentence: str, scene: Scene) -> list[Wish]:
    bare = POLITE.sub("", sentence).strip()
    if whole := _first_of(WHOLE, bare, scene):
        return whole
    for cut in _AND.finditer(bare):
        before, after = bare[: cut.start()], POLITE.sub("", bare[cut.end() :])
        first = _first_of(PARTS, before, scene)
        second = _first_of(WHOLE, after, scene) or _first_of(PARTS, after, scene)
        if _independent(before, first) and _independent(after, second):
            return [*first, *second]
    return _first_of(PARTS, bare, scene)


def _independent(part: str, found: list[Wish]) -> bool:
    """Is this half of a sentence a request of its own, rather than a part of the other half's?"""
    return len(part.split()) > 1 and bool(found) and not any(isinstance(w, Reply) and w.courtesy for w in found)


def _first_of(recognisers: Sequence[Recogniser], text: str, scene: Scene) -> list[Wish]:
    for recognise in recognisers:
        if wish := recognise(text, scene):
            return [wish] if isinstance(wish, Goal | Reply) else wish
    return []


def remember(text: str, _scene: Scene) -> Wish | None:
    """ "Remember that we never approve below 620"."""
    found = starts(
        r"(?:remember|note|memori[sz]e|keep in mind|don'?t forget|do not forget|make a note)\b[,:]?\s*"
        r"(?:that\b|this:?|the following:?|for (?:later|the future):?)?[,:]?\s*(.+)",
        text,
    )
    if found is None or text.rstrip().endswith("?"):
        return None
    statement = found.group(1).strip().rstrip(".!")
    return Goal("remember", {"statement": statement, "text": statement, "content": statement}) if statement else None


def forget(text: str, _scene: Scene) -> Wish | None:
    """ "Forget that …": the memory is found by what it says, unless its id is given."""
    found = starts(r"(?:forget|unlearn|delete the memory|remove the memory)\b\s*(?:that|about|memory)?\s*(.+)", text)
    if found is None:
        return None
    about = found.group(1).strip().rstrip(".!")
    memory_id = identifier(about) if has(r"memory|_", text) else None
    lookup = Lookup("recall", {"query": about}, ("memory_id", "id"), about, "memory")
    return Goal("forget", {"memory_id": memory_id or lookup, "id": memory_id or lookup})


def decide_review(text: str, _scene: Scene) -> Wish | None:
    """ "Approve review rev_… because …"; without an id the only open review is meant."""
    for verdict, verbs in _VERDICTS:
        found = starts(rf"(?:{verbs})\b\s*(.*)", text)
        if found is None or is_question(text):
            continue
        rest = found.group(1)
        target, comment = _split_reason(rest)
        review_id = identifier(target)
        if review_id is None and not has(r"\b(?:review|case|it|this|that|one|application)\b", target):
            return None
        about = re.sub(
            r"\b(?:the|review|case|it|this|that|one|only|open|of|for|application)\b", " ", target, flags=re.IGNORECASE
        )
        lookup = Lookup("list_reviews", {}, ("review_id", "id"), about.strip(), "open review")
        target_id = review_id or lookup
        return Goal("decide_review", {"review_id": target_id, "verdict": verdict, "comment": comment or None})
    return None


def _split_reason(text: str) -> tuple[str, str]:
    parts = re.split(
        r"\s*[,;:–—]?\s*\b(?:because|since|as|reason:|comment:|with (?:the )?comment:?|saying)\s+|\s*[:–—]\s+|\s+-\s+",
        text,
        maxsplit=1,
    )
    return parts[0], parts[1].strip().rstrip(".").strip("\"'") if len(parts) > 1 else ""


def start_runs(text: str, scene: Scene) -> Wish | list[Wish] | None:
    """ "Process the applications", "run the first 20 only"."""
    agreed = (
        starts(r"(?:yes|yep|sure|ok|okay|go ahead|do it|please|start)\b.{0,20}$", text)
        and "Shall I start" in scene.previous
    )
    begins = _START.match(text) and (_MATERIAL.search(text) or limit_in(text) or scene.fresh)
    only = scene.fresh and limit_in(text) is not None and not is_question(text)
    if not (agreed or begins or only) or identifier(text):
        return None
    if starts(r"run\s+(?:id\b|#)", text) or scheduling.starts_other_workflow(text, scene):
        return None
    named = [name for name in scene.attachments if name.lower() in text.lower()]
    names = named or list(scene.attachments)
    if not names:
        return Reply("Please attach the CSV file with the applications; then I start one run for each of them.")
    limit = limit_in(text)
    return [Goal("start_loan_runs", {"attachment": name, "limit": limit}) for name in names]


def limit_in(text: str) -> int | None:
    """The largest number of applications the user wants, if they say one."""
    for pattern in _LIMITS:
        if found := has(pattern, text):
            return number(found.group(1))
    return None


def summarise_declined(text: str, _scene: Scene) -> Wish | None:
    """ "Summarise what was declined and why"."""
    if starts(r"(?:list|show)\b.*\b(?:runs|applications)\b", text) and not has(r"\b(?:why|reasons?)\b", text):
        return None
    wanted = _DECLINED.search(text) and _ACCOUNT.search(text)
    return Goal("summarise_declined") if wanted and not has(r"\b(?:we|policy|rule)\b", text) else None


def cancel_run(text: str, _scene: Scene) -> Wish | None:
    """ "Cancel run run_…"."""
    if not starts(r"(?:cancel|abort|stop|kill|terminate)\b", text) or "schedule" in text.lower():
        return None
    run_id = identifier(text)
    if run_id is None:
        return (
            Reply("Which run? Please give me its id, for example: cancel run run_…") if "run" in text.lower() else None
        )
    return Goal("cancel_run", {"run_id": run_id})


def act_on_runs(text: str, _scene: Scene) -> Wish | None:
    """ "Pause run run_…", "pause my batch", "retry the failed ones", "apply blk_…"."""
    if found := re.search(r"\bblk_[a-z0-9]+\b", text):
        return Goal("act_on_chosen_runs", {"bulk_id": found.group()})
    act = next((act for act in ("pause", "resume", "retry", "cancel") if starts(rf"{act}\b", text)), None)
    if act is None or "schedule" in text.lower():
        return None
    run_id = identifier(text)
    if run_id is not None:
        return Goal(f"{act}_run", {"run_id": run_id}) if run_id.startswith("run") else None
    if not has(r"\b(?:all|batch|ones|them|runs|everything)\b", text):
        return None
    states = ("queued", "running", "waiting", "failed", "cancelled", "dead")
    status = next((state for state in states if has(rf"\b{state}\b", text)), None)
    everywhere = has(r"\b(?:organi[sz]ation|everywhere|everything)\b", text) is not None
    return Goal("choose_runs", {"act": act, "status": status, "everywhere": everywhere})


def hold_runs(text: str, scene: Scene) -> Wish | None:
    """The same for "pause" and "resume", which are also said of schedules."""
    return act_on_runs(text, scene) if starts(r"(?:pause|resume)\b", text) else None


def list_reviews(text: str, _scene: Scene) -> Wish | None:
    """ "What waits for review?"."""
    waits = r"(?:wait\w*|open|pending|outstanding|list|show|any|what|which|how many|queue)"
    if has(rf"\b{waits}\b.*\b(?:reviews?|review queue|approvals?)\b|\bto (?:review|approve|decide)\b", text):
        return Goal("list_reviews")
    return None


def get_run(text: str, _scene: Scene) -> Wish | None:
    """ "Show run run_…"; any id of a run that is only asked about."""
    run_id = identifier(text)
    is_run = run_id is not None and (run_id.startswith("run") or has(r"\brun\b", text))
    return Goal("get_run", {"run_id": run_id}) if is_run else None


def list_runs(text: str, _scene: Scene) -> Wish | None:
    """ "List the failed runs", "which applications are waiting?"."""
    if not has(r"\b(?:runs|applications|cases)\b", text):
        return None
    if not starts(r"(?:list|show|give|display|which|what|see|get|find)\b", text):
        return None
    status = next((name for name, words in _STATUSES if has(rf"\b(?:{words})\b", text)), None)
    return Goal("list_runs", {"status": status, "limit": limit_in(text) or 20})


def progress(text: str, _scene: Scene) -> Wish | None:
    """ "How far is it?"."""
    asked = (
        r"\bhow far\b|\bprogress\b|\bstatus\b|\bhow (?:is|are) (?:it|they|the \w+|things) (?:going|doing|coming)\b|"
        r"\b(?:is|are) (?:it|they|the runs|the applications|all|everything) (?:all )?(?:done|finished|ready)\b|"
        r"\b(?:done|finished|ready) yet\b|\bhow many (?:runs |applications |of them )?(?:are|is|have|were)\b|"
        r"\bhow long (?:will|does|until)\b|\bwhere (?:are|do) (?:we|things|the runs)\b"
    )
    return Goal("runs_progress") if has(asked, text) else None


WHOLE: tuple[Recogniser, ...] = (
    remember,
    forget,
    decide_review,
    hold_runs,
    scheduling.create_schedule,
    scheduling.change_schedule,
    scheduling.list_schedules,
)
PARTS: tuple[Recogniser, ...] = (
    start_runs,
    act_on_runs,
    cancel_run,
    summarise_declined,
    list_reviews,
    get_run,
    progress,
    list_runs,
    asking.named_tool,
    asking.small_talk,
    asking.from_memory,
    asking.statement,
)

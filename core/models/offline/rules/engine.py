"""Prompt in, answer out.

An answer is reached in steps, one model call each: the wishes in the user's last message are worked out
afresh from the conversation, the calls already made since then are taken as done, and what is left decides
the next step. So nothing is kept between requests, and parallel or one-by-one tool calls both end alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from core.models.offline.prompt import Answer, Call, Called, Choice, JsonObject, Prompt, Returned
from core.models.offline.rules import extraction, structured
from core.models.offline.rules.arguments import Missing, fit
from core.models.offline.rules.asking import arguments_from
from core.models.offline.rules.goals import Goal, Lookup, Wish, scene_of
from core.models.offline.rules.intents import wishes
from core.models.offline.rules.narration import candidates, failure_of, narrate
from core.models.offline.rules.words import parse_data, relevant


@dataclass(slots=True)
class _Step:
    """What is to be done next.

    Attributes:
        calls: tool calls to make now.
        lookups: calls already made only to find an id; their answers are not told to the user.
        notes: sentences that do not come from a tool.
    """

    calls: list[Call] = field(default_factory=list)
    lookups: list[Call] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Made:
    """A call made since the user last spoke, with its answer when there is one."""

    call: Call
    answer: str | None


def answer(prompt: Prompt) -> Answer:
    """Decide what to say or call. The same prompt always gets the same answer."""
    if extraction.applies(prompt):
        return extraction.extract(prompt)
    made = _made(prompt)
    forced = prompt.choice is Choice.REQUIRED and not made
    said = prompt.user_texts()
    if not said or (prompt.schema is not None and structured.json_in(said[-1]) is not None):
        wanted: list[Wish] = []
    else:
        wanted = wishes(said[-1], scene_of(prompt))
    step = _next_step(prompt, wanted, made)
    calls = step.calls or (_any_call(prompt) if forced else [])
    if calls and prompt.choice is not Choice.NONE:
        return Answer(calls=tuple(calls if prompt.parallel else calls[:1]))
    if prompt.schema is not None:
        return Answer(text=json.dumps(structured.fill(prompt), ensure_ascii=False))
    return Answer(text=_tell(step, made))


def _made(prompt: Prompt) -> list[_Made]:
    turn = prompt.turn()
    answers = {item.call_id: item.text for item in turn if isinstance(item, Returned)}
    return [
        _Made(Call(item.name, item.arguments), answers.get(item.call_id)) for item in turn if isinstance(item, Called)
    ]


def _next_step(prompt: Prompt, wanted: list[Wish], made: list[_Made]) -> _Step:
    step = _Step()
    for wish in wanted:
        if isinstance(wish, Goal):
            _pursue(wish, prompt, made, step)
        else:
            step.notes.append(wish.text)
    step.calls = _once(step.calls, made)
    return step


def _once(calls: list[Call], made: list[_Made]) -> list[Call]:
    done = [one.call for one in made]
    fresh: list[Call] = []
    for call in calls:
        if call not in done and call not in fresh:
            fresh.append(call)
    return fresh


def _pursue(goal: Goal, prompt: Prompt, made: list[_Made], step: _Step) -> None:
    resolved = _resolve(goal.arguments, prompt, made, step)
    if resolved is not None:
        _request(prompt, goal.tool, resolved, step)


def _request(prompt: Prompt, name: str, arguments: Mapping[str, object], step: _Step) -> Call | None:
    """Ask for a call, or say why it cannot be made."""
    tool = prompt.tool(name)
    if tool is None:
        step.notes.append(f"I cannot do that here: the tool {name} is not on offer.")
        return None
    fitted = fit(tool, arguments)
    if isinstance(fitted, Missing):
        step.notes.append(f"For {name.replace('_', ' ')} I need {fitted.name.replace('_', ' ')}.")
        return None
    call = Call(name, fitted)
    step.calls.append(call)
    return call


def _resolve(
    arguments: Mapping[str, object | Lookup], prompt: Prompt, made: list[_Made], step: _Step
) -> dict[str, object] | None:
    """The arguments with every lookup replaced by the id it found; ``None`` while that is not possible."""
    lookup = next((value for value in arguments.values() if isinstance(value, Lookup)), None)
    if lookup is None:
        return dict(arguments)
    call = _request(prompt, lookup.tool, lookup.arguments, step)
    answered = next((one for one in made if call is not None and one.call == call), None)
    if call is None or answered is None or answered.answer is None:
        return None
    step.lookups.append(call)
    if problem := failure_of(parse_data(answered.answer)):
        step.notes.append(problem)
        return None
    found = _pick(parse_data(answered.answer), lookup)
    if found is None:
        step.notes.append(f"I found no {lookup.noun}{f' about “{lookup.about}”' if lookup.about else ''}.")
        return None
    if found == "":
        step.notes.append(f"There is more than one {lookup.noun}; please name the one you mean by its id.")
        return None
    return {key: found if isinstance(value, Lookup) else value for key, value in arguments.items()}


def _pick(data: object, lookup: Lookup) -> str | None:
    """The id meant: the candidate sharing most words, or the only one. ``""`` means several fit equally."""
    rows = [row for row in candidates(data) if any(isinstance(row.get(key), str) for key in lookup.keys)]
    if lookup.about:
        texts = [json.dumps(row, ensure_ascii=False) for row in rows]
        best = relevant(lookup.about, texts)
        rows = [rows[texts.index(best[0])]] if best else []
    if not rows:
        return None
    if len(rows) > 1:
        return ""
    return str(next(rows[0][key] for key in lookup.keys if isinstance(rows[0].get(key), str)))


def _any_call(prompt: Prompt) -> list[Call]:
    """A call because one is demanded: the named tool, else the first whose arguments can be filled."""
    text = prompt.user_texts()[-1] if prompt.user_texts() else ""
    for tool in prompt.tools:
        if prompt.required_tool in (None, tool.name):
            fitted: JsonObject | Missing = fit(tool, arguments_from(text, tool) | {"query": text})
            if isinstance(fitted, Missing) and prompt.required_tool:
                fitted = structured.value_for(tool.parameters, text)
            if not isinstance(fitted, Missing):
                return [Call(tool.name, fitted)]
    return []


def _tell(step: _Step, made: list[_Made]) -> str:
    told = [
        narrate(one.call, parse_data(one.answer))
        for one in made
        if one.answer is not None and one.call not in step.lookups
    ]
    texts = [text for text in [*told, *step.notes] if text]
    return "\n\n".join(dict.fromkeys(texts)) or "I have nothing to say to that."

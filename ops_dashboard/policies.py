"""A tenant's policy as a form: which fields people edit, in which units, and what a change changes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from pydantic import ValidationError

from core.errors import InvalidInput
from core.tenancy import Policy
from core.usage.model import MICRO


@dataclass(frozen=True, slots=True)
class Field:
    """A number of the policy. ``unit`` divides what is stored into what is shown (1,000,000: dollars).

    ``optional``: it may be left empty. ``step``: of a number with a fraction.
    """

    name: str
    label: str
    unit: int = 1
    help: str = ""
    optional: bool = False
    step: float | None = None

    @property
    def whole(self) -> bool:
        """Whether it is a whole number where people see it."""
        return self.unit == 1 and self.step is None


_SHARE = "When a step would use more than this share of its run's or the month's budget,"

QUOTAS = (
    Field("weight", "Weight", help="Share of the slots among tenants that want more than they get.", step=0.5),
    Field("concurrency_cap", "Cap (runs at a time)", help="Runs of this tenant that hold a slot at the same time."),
    Field("burst_slots", "Slots over the cap", help="Lent while nobody else could use them; 0: no bursts."),
    Field(
        "burst_credit_s", "Burst credit, seconds", help="Worker-seconds over the cap after which it is paid back first."
    ),
    Field("daily_runs", "Runs a day", help="Counted from the tenant's local midnight."),
    Field("queue_depth", "Queued runs, at most", help="Beyond it submissions are refused with 429."),
    Field("open_runs", "Open runs, at most", help="Queued, executing or parked. Empty: no limit.", optional=True),
    Field("max_steps", "Steps a run, at most"),
    Field("max_duration_s", "Hours a run may last", 3_600, "From its first start to its end, waits included."),
    Field("max_recoveries", "Recoveries of a run, at most", help="Workers it may take with it before it is dead."),
)
INSIDE = (Field("user_cap", "Runs of one user at a time", help="Empty: no cap but the organisation's.", optional=True),)
BUDGETS = (
    Field("budget_run_microusd", "Budget of a run, USD", MICRO),
    Field("budget_month_microusd", "Budget of a month, USD", MICRO),
)
LADDER = (
    Field("budget_cheaper_at", "A cheaper model from", help=f"{_SHARE} a cheaper model answers.", step=0.05),
    Field("budget_skip_at", "Optional steps until", help=f"{_SHARE} optional steps are skipped.", step=0.05),
    Field("budget_ask_at", "Without asking until", help=f"{_SHARE} people are asked, once a run.", step=0.05),
)
SERVICE_LEVELS = (
    Field("run_sla_s", "SLA of a run, hours", 3_600, "From submission to the end."),
    Field("review_sla_s", "SLA of a review, hours", 3_600, "Default; a workflow may ask for another."),
)

_FIELDS = (*QUOTAS, *INSIDE, *BUDGETS, *LADDER, *SERVICE_LEVELS)


def shown(policy: Policy, field: Field) -> float | int | None:
    """The stored value in the unit of the form; None: empty."""
    value = getattr(policy, field.name)
    if value is None:
        return None
    return float(value) if field.step else value if field.unit == 1 else value / field.unit


def stored(field: Field, value: float | None) -> float | int | None:
    """What is written in the form, as it is stored; an empty field is 0 unless it may be empty."""
    if value is None:
        return None if field.optional else 0
    # What is no number that could be stored is kept as it is, so that the policy refuses it by its name.
    if field.whole or not isfinite(value):
        return value
    return float(value) if field.step else round(value * field.unit)


def rate_limits(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Rate limits from the rows of a table. Raises ``InvalidInput`` for a row that is not complete."""
    limits: dict[str, dict[str, int]] = {}
    for row in rows:
        name = str(row.get("name") or "").strip()
        if not name or not _is_number(row.get("limit")) or not _is_number(row.get("window_s")):
            raise InvalidInput("Every rate limit needs a name, a number of calls and a window in seconds.")
        if name in limits:
            raise InvalidInput(f"There are two rate limits {name!r}.")
        limits[name] = {"limit": int(row["limit"]), "window_s": int(row["window_s"])}
    return limits


def workflow_caps(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Caps by workflow from the rows of a table. Raises ``InvalidInput`` for a row that is not complete."""
    caps: dict[str, int] = {}
    for row in rows:
        name = str(row.get("workflow") or "").strip()
        if not name or not _is_number(row.get("cap")):
            raise InvalidInput("Every cap of a workflow needs its name and a number of runs.")
        if name in caps:
            raise InvalidInput(f"There are two caps of {name!r}.")
        caps[name] = int(row["cap"])
    return caps


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and value == value  # noqa: PLR0124 - NaN: an empty cell


def changed(before: Policy, fields: Mapping[str, Any]) -> Policy:
    """The policy with other values. Raises ``InvalidInput`` that names each field that is out of bounds."""
    try:
        return Policy.model_validate({**before.model_dump(mode="json"), **fields})
    except ValidationError as error:
        raise InvalidInput("; ".join(map(_told, error.errors()))) from None


_NOT_WHOLE = {"int_from_float", "finite_number"}
_BOUNDS = {"ge": "at least", "le": "at most"}


def _told(fault: Mapping[str, Any]) -> str:
    """What is wrong, in the words and units of the form."""
    label, context = _label(fault["loc"]), fault.get("ctx", {})
    if fault["type"] in _NOT_WHOLE:
        return f"{label}: a whole number"
    field = next((field for field in _FIELDS if fault["loc"] == (field.name,)), None)
    for bound, words in _BOUNDS.items():
        if bound in context:
            limit = context[bound] / (field.unit if field else 1)
            return f"{label}: {words} {limit:,.0f}" if limit.is_integer() else f"{label}: {words} {limit:,g}"
    told = str(context.get("error", fault["msg"]))
    for field in _FIELDS:
        told = told.replace(field.name, f"“{field.label}”")
    return f"{label}: {told}"


def _label(where: Sequence[int | str]) -> str:
    """The field as the form calls it."""
    if not where:
        return "Policy"
    first, *rest = where
    label = next((field.label for field in _FIELDS if field.name == first), str(first).replace("_", " "))
    return " ".join([label, *(str(part) for part in rest)])


def differences(before: Policy, after: Policy) -> list[tuple[str, str, str]]:
    """(field, before, after) of everything that differs; rate limits one by one."""
    old, new = _flat(before), _flat(after)
    return [
        (name, old.get(name, "–"), new.get(name, "–"))
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]


def _flat(policy: Policy) -> dict[str, str]:
    units = {field.name: field for field in _FIELDS}
    lines: dict[str, str] = {}
    for name, value in policy.model_dump(mode="json").items():
        if name == "rate_limits":
            lines |= {f"rate limit {key}": f"{at['limit']} in {at['window_s']} s" for key, at in value.items()}
        elif name == "workflow_caps":
            lines |= {f"cap of {key}": str(cap) for key, cap in value.items()}
        elif name in units:
            number = shown(policy, units[name])
            lines[units[name].label] = "–" if number is None else f"{number:,g}"
        else:
            lines[name.replace("_", " ")] = ", ".join(value) or "–" if isinstance(value, list) else str(value)
    return lines

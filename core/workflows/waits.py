"""Waits as an author uses them: for people, for time, for an event. Each has its answer, or is armed and ends the
execution with ``Parked``; ``Run`` says what they return and raise."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from core.reviews.model import Terms, Verdict
from core.runs.execution import Wait
from core.runs.model import Cause
from core.workflows.faults import Parked, written
from core.workflows.performing import Performer
from core.workflows.sizes import check_name, check_value, check_words


async def decided(
    performer: Performer,
    number: int,
    *,
    pool: str,
    title: str,
    evidence: BaseModel,
    choices: Sequence[str],
    sla_s: float,
    terms: Terms,
) -> Verdict:
    """What people decided."""
    await performer.unless_stopped(number)
    document = evidence.model_dump(mode="json")
    check_words("The title of a review", title)
    check_value("The evidence of a review has", [document, title])
    verdict = await written(
        lambda: performer.tools.reviews.request(
            performer.on,
            number,
            pool=pool,
            title=title,
            evidence=document,
            choices=list(choices),
            sla_s=sla_s,
            terms=terms,
        )
    )
    if verdict is None:
        raise Parked
    return verdict


async def slept(performer: Performer, number: int, seconds: float) -> None:
    """The time has passed."""
    await performer.unless_stopped(number)
    wake_at = performer.tools.clock.now() + timedelta(seconds=seconds)
    wait = Wait(number, f"sleep {seconds:g} s", Cause.TIMER, wake_at=wake_at)
    if not await written(lambda: performer.tools.execution.sleep(performer.on, wait)):
        raise Parked


async def payload_of(performer: Performer, number: int, name: str, key: str, timeout_s: float) -> Any:
    """What came with the event."""
    check_name("The name of an event", name)
    check_name("The key of an event", key)
    await performer.unless_stopped(number)
    wake_at = performer.tools.clock.now() + timedelta(seconds=timeout_s)
    wait = Wait(number, f"event: {name}", Cause.EVENT, key=f"{name}/{key}", wake_at=wake_at)
    found = await written(lambda: performer.tools.execution.await_event(performer.on, wait, name, key))
    if found is None:
        raise Parked
    if "payload" not in found:
        raise TimeoutError(f"No event {name}/{key} came within {timeout_s:g} s.")
    return found["payload"]

"""One execution of a workflow's function, and how it ended, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from core.runs.duration import too_long
from core.runs.execution import Cancelled, Lost
from core.runs.model import RunState
from core.workflows.definition import WorkflowDefinition
from core.workflows.faults import HandedOver, Parked, describe
from core.workflows.run import Run
from core.workflows.sizes import check_value
from core.workflows.undoing import compensated

log = structlog.get_logger(__name__)


async def executed(run: Run, definition: WorkflowDefinition[Any, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """Execute the function once, from its top, and undo what it did if it ended badly. Never raises what it raised.

    ``end`` is the run's state from then on; ``queued``: it is to be handed over; None: it is another worker's.
    """
    try:
        end = await _called(run, definition, document)
        if run.performer.settled is not None:
            end = run.performer.settled
        if end["end"] in (RunState.FAILED, RunState.CANCELLED):
            return await compensated(run.performer, end)
        return end
    except Parked:
        return {"end": RunState.WAITING}
    except HandedOver:
        return {"end": RunState.QUEUED}
    except Lost:
        return {"end": None}
    finally:
        await run.performer.teller.close()


async def _called(run: Run, definition: WorkflowDefinition[Any, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    try:
        argument = definition.input_model.model_validate(document)
        output = await definition.function(run, argument)
        written = definition.output.dump_python(output, mode="json")
        check_value("The workflow returned", [written, run.ended_as])
        return {"end": RunState.SUCCEEDED, "output": written, "outcome": run.ended_as}
    except Parked:
        return _stopped(run, definition) if run.performer.cancelled else {"end": RunState.WAITING}
    except Cancelled:
        return _stopped(run, definition)
    except Exception as error:
        log.info("run.failed", run_id=run.id, error=type(error).__name__)
        return {"end": RunState.FAILED, "error": describe(error)}


def _stopped(run: Run, definition: WorkflowDefinition[Any, Any]) -> dict[str, Any]:
    return overlong(run, definition) if run.performer.expired else {"end": RunState.CANCELLED}


def overlong(run: Run, definition: WorkflowDefinition[Any, Any]) -> dict[str, Any]:
    """The end of a run that has lasted too long."""
    return {"end": RunState.FAILED, "error": describe(too_long(run.tenant.policy, definition.timeout_s))}

"""A step that is an agent: the agents SDK, kept out of the way of workflows that use none.

What its model writes is emitted by the step as it comes. An agent at temperature 0 without tools is asked for whole
answers: those are remembered, and a stream is not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from agents import Agent, Runner
from agents.exceptions import AgentsException
from agents.result import RunResultStreaming
from agents.stream_events import RawResponsesStreamEvent
from pydantic import BaseModel, TypeAdapter

from core.errors import BailiwickError, StepFailed
from core.models.streams import ended
from core.tenancy import ModelTier
from core.workflows.performing import Performer, Work
from core.workflows.step import Step
from core.workflows.tools import AgentModels


async def concluded(
    performer: Performer, number: int, agent: Agent[Step], argument: BaseModel | str, work: Work, max_turns: int
) -> Any:
    """The agent's final output, now or in an earlier execution; None when the step was skipped.

    ``work``: all about the step but what it does. Raises what ``Performer.perform`` raises.
    """
    on = performer.on
    text = argument if isinstance(argument, str) else argument.model_dump_json()
    returned: Any = agent.output_type or str
    output: TypeAdapter[Any] = TypeAdapter(returned)

    async def action(step: Step) -> Any:
        models = performer.tools.models.for_tenant(
            on.ctx,
            f"workflow:{performer.workflow}",
            run_id=on.run_id,
            step=(step.number, step.attempt),
            covered_microusd=step.meter.estimate_microusd,
            cheapest=step.degraded,
            cover_more=step.meter.cover_more,
        )
        try:
            return output.dump_python(await _run(agent, text, step, models, max_turns), mode="json")
        finally:
            step.meter.charge(models.spent_microusd, models.model_name())

    usually_large = on.ctx.policy.model_tier is ModelTier.LARGE and agent.model != ModelTier.SMALL
    work = replace(work, action=action, cheaper=work.cheaper and usually_large)
    return work.read(output, await performer.perform(number, work))


async def _run(agent: Agent[Step], text: str, step: Step, models: AgentModels, max_turns: int) -> Any:
    """Raises our own errors as they are, the SDK's as ``StepFailed``."""
    try:
        config = models.run_config(workflow_name=agent.name)
        if agent.model_settings.temperature == 0 and not agent.tools:
            whole = await Runner.run(agent, text, context=step, max_turns=max_turns, run_config=config)
            return whole.final_output
        streamed = Runner.run_streamed(agent, text, context=step, max_turns=max_turns, run_config=config)
        return await _read(streamed, step)
    except AgentsException as error:
        if isinstance(error.__cause__, BailiwickError):
            raise error.__cause__ from None
        raise StepFailed(f"Agent {agent.name}: {error}") from error


async def _read(result: RunResultStreaming, step: Step) -> Any:
    try:
        async for event in result.stream_events():
            if isinstance(event, RawResponsesStreamEvent) and event.data.type == "response.output_text.delta":
                step.emit(event.data.delta)
    finally:
        await ended(result)
    return result.final_output

"""Running an agent inside a step: the agents SDK, kept out of the way of workflows that use none.

What its model writes is emitted by the step as it comes. An agent at temperature 0 without tools is asked for whole
answers: those are remembered, and a stream is not.
"""

from __future__ import annotations

from typing import Any

from agents import Agent, Runner
from agents.exceptions import AgentsException
from agents.result import RunResultStreaming
from agents.stream_events import RawResponsesStreamEvent

from core.errors import BailiwickError, StepFailed
from core.models.streams import ended
from core.workflows.step import Step
from core.workflows.tools import AgentModels


async def run_agent(agent: Agent[Step], text: str, step: Step, models: AgentModels, max_turns: int) -> Any:
    """The agent's final output. Raises our own errors as they are, the SDK's as ``StepFailed``."""
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

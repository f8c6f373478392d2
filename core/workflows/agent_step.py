"""Running an agent inside a step: the agents SDK, kept out of the way of workflows that use none."""

from __future__ import annotations

from typing import Any

from agents import Agent, Runner
from agents.exceptions import AgentsException

from core.errors import BailiwickError, StepFailed
from core.workflows.step import Step
from core.workflows.tools import AgentModels


async def run_agent(agent: Agent[Step], text: str, step: Step, models: AgentModels, max_turns: int) -> Any:
    """The agent's final output. Raises our own errors as they are, the SDK's as ``StepFailed``."""
    try:
        result = await Runner.run(
            agent,
            text,
            context=step,
            max_turns=max_turns,
            run_config=models.run_config(workflow_name=agent.name),
        )
    except AgentsException as error:
        if isinstance(error.__cause__, BailiwickError):
            raise error.__cause__ from None
        raise StepFailed(f"Agent {agent.name}: {error}") from error
    return result.final_output

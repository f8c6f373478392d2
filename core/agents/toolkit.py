"""A tool: a name, the right it needs, its arguments, and what it does. And how the agent calls it.

A tool never raises into the agent. What goes wrong comes back as ``{"error": {"code", "message"}}`` with a
sentence that the model can pass on; details of unexpected failures go to the log only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog
from agents import FunctionTool
from agents.strict_schema import ensure_strict_json_schema
from agents.tool_context import ToolContext
from pydantic import BaseModel, ConfigDict, ValidationError

from core.agents.guardrails import as_tool_output
from core.agents.model import Turn
from core.errors import BailiwickError
from core.tenancy import Scope, TenantContext

log = structlog.get_logger(__name__)

ArgumentsT = TypeVar("ArgumentsT", bound="Arguments")


class Arguments(BaseModel):
    """Base of every tool's arguments: nothing unknown is taken."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


@dataclass(frozen=True, slots=True)
class Tool(Generic[ArgumentsT]):
    """One thing the agent can do.

    Attributes:
        scope: right without which the tool is not on offer.
        act: does it; its answer must be JSON. May raise ``BailiwickError``.
        choices: values an argument may take, where they are known at run time only.
    """

    name: str
    scope: Scope
    description: str
    arguments: type[ArgumentsT]
    act: Callable[[Turn, ArgumentsT], Awaitable[Any]]
    timeout_s: float = 30.0
    choices: Mapping[str, tuple[str, ...]] | None = None

    def on_offer(self, ctx: TenantContext) -> bool:
        """Whether this caller gets to use it: by right, and by the tenant's policy."""
        return self.scope in ctx.scopes and ctx.policy.allows_tool(self.name)

    def function(self) -> FunctionTool:
        """The tool as the agents SDK wants it."""
        return FunctionTool(
            name=self.name,
            description=self.description,
            params_json_schema=self._schema(),
            on_invoke_tool=self._invoke,
            strict_json_schema=True,
        )

    async def use(self, turn: Turn, document: str) -> str:
        """Check the arguments (JSON text), act, and answer in JSON; never raises but for cancellation."""
        try:
            async with asyncio.timeout(self.timeout_s):
                return as_tool_output(await self.act(turn, self.arguments.model_validate_json(document or "{}")))
        except ValidationError as error:
            return failure("invalid_input", _faults(error))
        except BailiwickError as error:
            return failure(error.code, error.message, error.retry_after_s)
        except TimeoutError:
            log.warning("tool.timeout", tool=self.name, tenant=turn.ctx.tenant_id, timeout_s=self.timeout_s)
            return failure("unavailable", f"This took longer than {self.timeout_s:g} s and was given up. Try again.")
        except Exception:
            log.exception("tool.failed", tool=self.name, tenant=turn.ctx.tenant_id, thread=turn.thread_id)
            return failure("internal", "Something unexpected went wrong here; it has been logged. Try again later.")

    async def _invoke(self, context: ToolContext[Turn], document: str) -> str:
        return await self.use(context.context, document)

    def _schema(self) -> dict[str, Any]:
        schema = self.arguments.model_json_schema()
        for name, values in (self.choices or {}).items():
            schema["properties"][name]["enum"] = list(values)
        return ensure_strict_json_schema(schema)


def failure(code: str, message: str, retry_after_s: float | None = None) -> str:
    """An error as a tool answers it."""
    error: dict[str, Any] = {"code": code, "message": message}
    if retry_after_s:
        error["retry_after_s"] = round(retry_after_s)
    return as_tool_output({"error": error})


def is_failure(output: str) -> bool:
    """Whether a tool answered with an error."""
    return output.startswith('{"error":')


def _faults(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'arguments'}: {fault['msg']}"
        for fault in error.errors(include_url=False, include_input=False)
    )

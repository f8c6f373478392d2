"""Ending what an agent streams."""

from __future__ import annotations

import asyncio

from agents.result import RunResultStreaming

_CLOSES_WITHIN_S = 5.0


async def ended(result: RunResultStreaming) -> None:
    """Stop what still runs, so that the upstream call is closed before its caller goes on."""
    if not result.is_complete:
        result.cancel()
    if result.run_loop_task is not None:
        await asyncio.wait({result.run_loop_task}, timeout=_CLOSES_WITHIN_S)

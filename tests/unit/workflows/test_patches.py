"""Changes of the code under runs that are under way."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from core.workflows import Run, Step, workflow
from core.workflows.testing import in_memory

pytestmark = pytest.mark.asyncio


class Order(BaseModel):
    """What is ordered: so many pieces."""

    pieces: int = 1


async def pack(step: Step, order: Order) -> str:
    """One piece."""
    return f"{step.number}/{order.pieces}"


@workflow("order", version="1")
async def old(run: Run, order: Order) -> str:
    """As it was."""
    for _ in range(order.pieces):
        await run.step(pack, order)
        await run.review("packers", title="Packed?", evidence=order)
    return "old"


@workflow("order", version="1")
async def new(run: Run, order: Order) -> str:
    """With a weighing before each piece."""
    for _ in range(order.pieces):
        if await run.patched("weigh"):
            await run.step(pack, order, name="weigh")
        await run.step(pack, order)
        await run.review("packers", title="Packed?", evidence=order)
    return "new"


@workflow("order", version="1")
async def at_the_end(run: Run, order: Order) -> str:
    """With a marker after everything."""
    await old.function(run, order)
    if await run.patched("label"):
        await run.step(pack, order, name="label")
    return "labelled"


@workflow("order", version="1")
async def without_a_marker(run: Run, order: Order) -> str:
    """With a weighing and no marker: what authors must not write."""
    await run.step(pack, order, name="weigh")
    return await old.function(run, order)


async def test_a_run_that_was_past_the_change_stays_on_the_old_way_to_its_end() -> None:
    async with in_memory(old) as run_of:
        run = await run_of(Order(pieces=2))
        run.deploy(new)
        await run.answer("approve")  # the loop comes to the marker again, and goes on as it began
        await run.answer("approve")
    assert [step.name for step in run.steps] == ["pack", "review: packers"] * 2
    assert run.output == "new"


async def test_a_new_run_takes_the_new_way_and_keeps_to_it_however_often_it_is_executed() -> None:
    async with in_memory(new) as run_of:
        run = await run_of(Order(pieces=2))
        await run.answer("approve")
        await run.answer("approve")
    assert [step.name for step in run.steps] == ["weigh", "pack", "review: packers"] * 2


async def test_a_run_that_had_not_come_to_the_change_takes_the_new_way() -> None:
    async with in_memory(old) as run_of:
        run = await run_of(Order())
        run.deploy(at_the_end)
        await run.answer("approve")
    assert [step.name for step in run.steps] == ["pack", "review: packers", "label"]


async def test_once_every_open_run_took_the_new_way_the_marker_may_go() -> None:
    @workflow("order", version="1")
    async def marker_gone(run: Run, order: Order) -> str:
        for _ in range(order.pieces):
            await run.step(pack, order, name="weigh")
            await run.step(pack, order)
            await run.review("packers", title="Packed?", evidence=order)
        return "newer"

    async with in_memory(new) as run_of:
        run = await run_of(Order())
        run.deploy(marker_gone)
        await run.answer("approve")
    assert run.output == "newer"


async def test_a_change_without_a_marker_is_noticed() -> None:
    async with in_memory(old) as run_of:
        run = await run_of(Order())
        run.deploy(without_a_marker)
        await run.answer("approve")
    assert run.error is not None
    assert "the order has changed" in run.error["message"]

"""Tools about schedules: start a workflow by time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import Field

from core.agents.model import Turn
from core.agents.toolkit import Arguments, Tool
from core.agents.words import shortest
from core.clock import Clock
from core.schedules.model import ScheduleView
from core.schedules.service import ScheduleService
from core.tenancy import Scope

_SHOWN_FIRES = 3


class CreateSchedule(Arguments):
    """What, and when."""

    name: str = Field(min_length=1, max_length=100, description="What people call it.")
    workflow: str = Field(min_length=1, max_length=100, description="The workflow to start.")
    cron: str = Field(
        min_length=9,
        max_length=100,
        description="Five fields: minute hour day month weekday; weekdays by name, e.g. 0 9 * * mon-fri.",
    )
    timezone: str | None = Field(None, description="IANA name, e.g. Europe/Berlin; null: the organisation's.")


class ListSchedules(Arguments):
    """No arguments."""


class OneSchedule(Arguments):
    """Which schedule."""

    schedule_id: str = Field(min_length=1, max_length=100, description="Id of the schedule, sch_…")


@dataclass(frozen=True, slots=True)
class ScheduleTools:
    """What the tools about schedules stand on. ``workflows`` are those a schedule may start."""

    schedules: ScheduleService
    workflows: Sequence[str]
    clock: Clock

    def tools(self) -> tuple[Tool[Any], ...]:
        """All of them."""
        return (
            Tool(
                "create_schedule",
                Scope.SCHEDULES_WRITE,
                "Start a workflow again and again at set times, e.g. every weekday at 09:00.",
                CreateSchedule,
                self.create,
                choices={"workflow": tuple(self.workflows)},
            ),
            Tool("list_schedules", Scope.SCHEDULES_READ, "All schedules.", ListSchedules, self.list_schedules),
            Tool("pause_schedule", Scope.SCHEDULES_WRITE, "Stop a schedule for now.", OneSchedule, self.pause),
            Tool("resume_schedule", Scope.SCHEDULES_WRITE, "Let a paused schedule go on.", OneSchedule, self.resume),
        )

    async def create(self, turn: Turn, asked: CreateSchedule) -> dict[str, Any]:
        """Make it, and say when it fires next."""
        view = await self.schedules.create(
            turn.ctx, name=asked.name, cron=asked.cron, workflow=asked.workflow, timezone=asked.timezone
        )
        return self._row(view)

    async def list_schedules(self, turn: Turn, _: ListSchedules) -> dict[str, Any]:
        """All of the organisation's."""
        return {"schedules": [self._row(view) for view in await self.schedules.list(turn.ctx)]}

    async def pause(self, turn: Turn, asked: OneSchedule) -> dict[str, Any]:
        """Fire nothing until it is resumed."""
        return self._row(await self.schedules.pause(turn.ctx, asked.schedule_id))

    async def resume(self, turn: Turn, asked: OneSchedule) -> dict[str, Any]:
        """Fire again, from the next occurrence on."""
        return self._row(await self.schedules.resume(turn.ctx, asked.schedule_id))

    def _row(self, view: ScheduleView) -> dict[str, Any]:
        due = [] if view.paused else self.schedules.next_fires(view, _SHOWN_FIRES, self.clock.now())
        return shortest(
            {
                "schedule_id": view.schedule_id,
                "name": view.name,
                "workflow": view.workflow,
                "cron": view.cron,
                "timezone": view.timezone,
                "state": "paused" if view.paused else "active",
                "next_due": [_local(moment, view.timezone) for moment in due],
                "last_error": (view.last_error or {}).get("message"),
            }
        )


def _local(moment: datetime, timezone: str) -> str:
    return moment.astimezone(ZoneInfo(timezone)).strftime("%a %Y-%m-%d %H:%M")

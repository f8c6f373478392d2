"""What the chat's user interface stands on. The web process makes one and gives it to Chainlit's app."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from chat_app.feeds import RunFeeds
from chat_app.session import Identify
from core.agents.catalog import Catalog
from core.agents.chat import MEMORY_WORKFLOW, ChatAgent
from core.agents.control_tools import ControlTools
from core.agents.memory_tools import MemoryTools
from core.agents.review_tools import ReviewTools
from core.agents.run_tools import RunTools
from core.agents.schedule_tools import ScheduleTools
from core.bootstrap import Platform
from core.clock import Clock
from core.conversations.service import ConversationService
from core.ports import MemoryPort
from core.redis.bus import Bus
from core.reviews.service import ReviewService
from core.runs.bulk import BulkControl
from core.runs.control import RunControl
from core.runs.service import RunService
from core.tenants.service import TenantService

Logout = Callable[[Request, Response], Awaitable[None]]
"""End the login of a request and remove its cookie from the response."""


@dataclass(frozen=True, slots=True)
class ChatServices:
    """Everything the chat needs, open and ready.

    Attributes:
        offline: the offline model answers; the chat says so.
        login_path: where a person logs in; ``?next=`` brings them back.
        dashboard_url: where operators and admins go.
    """

    conversations: ConversationService
    runs: RunService
    control: RunControl
    bulk: BulkControl
    feeds: RunFeeds
    reviews: ReviewService
    tenants: TenantService
    agent: ChatAgent
    bus: Bus
    clock: Clock
    identify: Identify
    logout: Logout
    offline: bool
    login_path: str
    dashboard_url: str


def chat_services(
    platform: Platform,
    memory: MemoryPort,
    feeds: RunFeeds,
    *,
    identify: Identify,
    logout: Logout,
    login_path: str = "/login",
) -> ChatServices:
    """The chat's services on an open platform, with every tool of the installation."""
    settings = platform.settings
    schedulable = [name for name in platform.workflows.names() if name != MEMORY_WORKFLOW]
    catalog = Catalog(
        (
            *RunTools(platform.runs, platform.conversations).tools(),
            *ControlTools(platform.control, platform.bulk, platform.conversations).tools(),
            *ReviewTools(platform.reviews).tools(),
            *MemoryTools(memory).tools(),
            *ScheduleTools(platform.schedules, schedulable, platform.clock).tools(),
        )
    )
    return ChatServices(
        conversations=platform.conversations,
        runs=platform.runs,
        control=platform.control,
        bulk=platform.bulk,
        feeds=feeds,
        reviews=platform.reviews,
        tenants=platform.tenants,
        agent=ChatAgent(platform.models, platform.runs, memory, catalog, schedulable, platform.clock),
        bus=platform.bus,
        clock=platform.clock,
        identify=identify,
        logout=logout,
        offline=settings.model_url is None,
        login_path=login_path,
        dashboard_url=f"{settings.dashboard_link()}/",
    )

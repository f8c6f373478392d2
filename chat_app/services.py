"""What the chat's user interface stands on. The web process makes one and gives it to Chainlit's app."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from chat_app.session import Identify
from core.agents.chat import ChatAgent
from core.clock import Clock
from core.conversations.service import ConversationService
from core.redis.bus import Bus
from core.reviews.service import ReviewService
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

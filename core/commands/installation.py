"""The installation on which a command works, and who works on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from core.bootstrap import Platform, open_platform
from core.embedded.servers import complete
from core.errors import NotFound, SetupError
from core.settings import Settings
from core.tenancy import PLATFORM, ActorKind, Scope, TenantContext


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[tuple[Platform, TenantContext]]:
    """The installation that these settings name, and the context of whoever operates this machine.

    Raises ``SetupError`` when it has no operators yet, ``Unavailable`` when its Postgres does not answer.
    """
    async with installation(settings) as platform:
        yield platform, await operator(platform)


@asynccontextmanager
async def installation(settings: Settings) -> AsyncIterator[Platform]:
    """The installation that these settings name, for a command. Raises ``Unavailable`` without its Postgres."""
    async with open_platform(complete(settings), process="cli") as platform:
        yield platform


async def operator(platform: Platform) -> TenantContext:
    """The context of whoever operates this machine. Raises ``SetupError`` before there are any operators."""
    try:
        return await platform.tenants.context_for(
            PLATFORM, actor_kind=ActorKind.SYSTEM, actor_id="cli", scopes=frozenset({Scope.PLATFORM_OPERATE})
        )
    except NotFound as error:
        raise SetupError("This installation has no operators yet: `bailiwick person` adds the first.") from error

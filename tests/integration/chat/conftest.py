"""Chainlit is imported here first: what it depends on warns about itself, which is not for us to fix."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import chainlit.data
    import chainlit.server  # noqa: F401

from core.bootstrap import open_platform
from core.settings import Settings
from tests.fixtures.cards import Rooms, Site
from tests.fixtures.people import People


@pytest.fixture
async def site(settings: Settings) -> AsyncIterator[Site]:
    async with open_platform(settings, process="test") as platform:
        yield Site(platform, People(platform.tenants), Rooms.of(platform))

"""How many logins are tried at a time: checking a password costs memory and time on purpose.

Guessing one person's password is bounded by the tenants room (10 failures in 15 minutes). This bounds what
strangers can make the process spend: two checks at once, a short line, and everybody else is asked to come
back. Requests that carry a session or a key never pass here.
"""

from __future__ import annotations

import asyncio

from core.errors import Overloaded
from core.tenants.model import Login
from core.tenants.service import TenantService

AT_ONCE = 2
IN_LINE = 20


class LoginGate:
    """One per process."""

    def __init__(self, tenants: TenantService) -> None:
        self._tenants = tenants
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def login(self, email: str, password: str, tenant: str | None) -> Login:
        """As ``TenantService.login``; raises ``Overloaded`` when the line is full."""
        if self._waiting >= IN_LINE:
            raise Overloaded("Many people log in at this moment. Try again.", retry_after_s=5)
        self._waiting += 1
        try:
            async with self._turns:
                return await self._tenants.login(email, password, tenant)
        finally:
            self._waiting -= 1

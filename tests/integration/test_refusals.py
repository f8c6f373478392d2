"""Who was not let in, or not let do it, stands in the audit: once, with a count, and the chain holds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from core.settings import Settings
from core.tenancy import PLATFORM, Policy, RateLimit, Role, Scope, TenantContext
from tests.fixtures.web import Web, web_in

WRONG = {"email": "ada@bank.example", "password": "wrong"}


@pytest.fixture
async def web(settings: Settings) -> AsyncIterator[Web]:
    async with web_in(settings) as served:
        yield served


async def told(web: Web, ctx: TenantContext, *acts: str) -> list[tuple[str, str, str, int]]:
    """Refusals in a tenant's audit: act, actor, code, and how many they stand for; oldest first."""
    await web.platform.tenants.refusals.settled()
    entries = [entry for entry in await web.platform.audit.recent(ctx) if entry.act in acts]
    return [(entry.act, entry.actor, entry.after.get("code", ""), entry.after["count"]) for entry in reversed(entries)]


async def test_refused_requests_are_told_once_with_a_count_to_whom_they_concern(web: Web) -> None:
    policy = Policy(rate_limits={"api": RateLimit(limit=3, window_s=3_600)})
    bank, reader = await web.admin("bank", policy), await web.key("bank", Scope.RUNS_READ)
    _, olga = await web.people.login("olga@platform.example", PLATFORM, Role.OPERATOR)
    platform = replace(olga.ctx, scopes=frozenset({Scope.TENANT_READ}))
    actor = f"api_key:{reader.split('_')[1]}"
    async with web.client(reader) as http, web.client("bw_nobody_" + "x" * 43) as nobody:
        for _ in range(20):
            assert (await nobody.get("/api/v1/runs")).status_code == 401
        for _ in range(4):
            assert (await http.post("/api/v1/api-keys", json={})).status_code == 403
        seen = [(await http.get("/api/v1/runs")).status_code for _ in range(6)]
    assert seen == [200] * 3 + [429] * 3
    assert await told(web, bank, "request.refuse") == [
        ("request.refuse", actor, "forbidden", 1),
        ("request.refuse", actor, "rate_limited", 1),
        ("request.refuse", actor, "forbidden", 3),
        ("request.refuse", actor, "rate_limited", 2),
    ]
    assert await told(web, platform, "request.refuse") == [
        ("request.refuse", "system:anonymous", "unauthenticated", 1),
        ("request.refuse", "system:anonymous", "unauthenticated", 19),
    ]
    await web.platform.audit.seal_all()
    for ctx in (bank, platform):
        assert (await web.platform.audit.examine(ctx)).broken is None


async def test_refused_logins_and_the_lock_that_follows_are_told(web: Web) -> None:
    bank = await web.admin("bank")
    login = web.platform.tenants.login
    codes = []
    for _ in range(14):
        try:
            await login(**WRONG)
        except Exception as error:
            codes.append(type(error).__name__)
    assert codes == ["Unauthenticated"] * 10 + ["RateLimited"] * 4
    assert await told(web, bank, "session.refuse", "session.lock") == [
        ("session.refuse", "system:login", "", 1),
        ("session.lock", "system:login", "", 1),
        ("session.refuse", "system:login", "", 9),
        ("session.lock", "system:login", "", 3),
    ]

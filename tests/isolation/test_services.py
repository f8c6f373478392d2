"""What services answer about other people's things: exactly what they answer about things that do not exist.

Every method of every service that takes an id is found by its signature and called with the id of a row that
another tenant has, and with an id that nobody has; both answers must read the same.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from core.errors import Forbidden, NotFound, Unauthenticated
from core.ids import ThreadId
from core.runs.acts import Act
from core.runs.bulk import Choice
from core.settings import Settings
from core.tenancy import PLATFORM, Policy, Role, TenantContext
from tests.fixtures.memory import Remembering, remembering
from tests.fixtures.rows import contents, fill

THEIRS = "bravo"
IDS = {
    "batch_id",
    "blob_id",
    "bulk_id",
    "element_id",
    "entry_id",
    "feedback_id",
    "key_id",
    "memory_id",
    "poller_id",
    "review_id",
    "run_id",
    "schedule_id",
    "tenant_id",
    "thread_id",
    "trigger_id",
    "user_id",
}
# What else a method needs to be called at all.
GIVEN: dict[str, Any] = {
    "act": Act.CANCEL,
    "amount_microusd": 1,
    "at": datetime(2026, 3, 1, tzinfo=UTC),
    "budget_microusd": 1,
    "choice": Choice(),
    "comment": "",
    "delivery_id": "x",
    "draining": True,
    "for_s": 0.0,
    "from_step": 1,
    "email": "eve@example.com",
    "label": "x",
    "limit_microusd": 1,
    "name": "x",
    "org_id": "x",
    "password": "a long password",
    "paused": True,
    "payload": {},
    "policy": Policy(),
    "region": "us-east-1",
    "roles": (Role.MEMBER,),
    "step": 1,
    "value": 1,
    "verdict": "approve",
}
# Methods with an id of something that may be anybody's words: they write a row of the caller's own.
OWN_WORDS = {"MemoryService.learn", "MemoryService.remember"}
# What operators see of every tenant: names of steps and money, never what a run contains.
OPERATED = ("TenantService.", "UsageService.step_costs")
NOWHERE = "http://127.0.0.1:9/v1"

Method = Callable[..., Awaitable[Any]]


def methods(here: Remembering) -> Iterator[tuple[str, Method, list[str]]]:
    """Name, method and names of its ids, of every method that a caller's context goes into."""
    platform = here.platform
    for service in (
        platform.runs,
        platform.control,
        platform.bulk,
        platform.reviews,
        platform.desk,
        platform.blobs,
        platform.usage,
        platform.audit,
        platform.schedules,
        platform.pollers,
        platform.triggers,
        platform.conversations,
        platform.tenants,
        here.memory,
    ):
        for name, method in inspect.getmembers(service, inspect.iscoroutinefunction):
            parameters = list(inspect.signature(method).parameters)
            ids = [parameter for parameter in parameters if parameter in IDS]
            title = f"{type(service).__name__}.{name}"
            takes_caller = bool(parameters) and parameters[0] in ("ctx", "actor")
            if takes_caller and ids and not name.startswith("_") and title not in OWN_WORDS:
                yield title, method, ids


async def answer(method: Method, ctx: TenantContext, ids: list[str], whose: str) -> str:
    """What the method answers or raises, in words, without the ids it was given."""
    given: dict[str, Any] = {name: f"{name}-{whose}" for name in ids}
    if "tenant_id" in given:
        given["tenant_id"] = whose
    for name, parameter in inspect.signature(method).parameters.items():
        if name == "key":
            given[name] = f"key-{whose}"
        elif parameter.default is parameter.empty and name not in ("ctx", "actor") and name not in given:
            given[name] = GIVEN[name]
    try:
        told = repr(await method(ctx, **given))
    except (Forbidden, NotFound, Unauthenticated) as error:
        told = f"{type(error).__name__}: {error.message} {sorted(error.details.items())}"
    return told.replace(whose, "…")


async def test_a_foreign_id_is_answered_exactly_like_a_missing_one_by_every_method_of_every_service(
    settings: Settings, owner_dsn: str
) -> None:
    async with remembering(settings, NOWHERE) as here:
        _, ada = await here.people.login("ada@alpha.example", "alpha", Role.ADMIN)
        owner = await asyncpg.connect(owner_dsn)
        tables = await fill(owner, THEIRS)
        before = await contents(owner, tables, THEIRS)
        asked = list(methods(here))
        assert len(asked) > 30
        for name, method, ids in asked:
            foreign = await answer(method, ada.ctx, ids, THEIRS)
            assert foreign == await answer(method, ada.ctx, ids, "nobody"), name
        assert await contents(owner, tables, THEIRS) == before
        await owner.close()


async def test_operators_get_no_content_of_a_tenant_from_any_service(settings: Settings, owner_dsn: str) -> None:
    async with remembering(settings, NOWHERE) as here:
        _, olga = await here.people.login("olga@platform.example", PLATFORM, Role.OPERATOR)
        _, mia = await here.people.login("mia@alpha.example", "alpha", Role.MEMBER)
        await here.platform.conversations.save_thread(mia.ctx, ThreadId("thread_id-alpha"), name="a secret")
        owner = await asyncpg.connect(owner_dsn)
        tables = await fill(owner, THEIRS)
        before = await contents(owner, tables, THEIRS)
        for name, method, ids in methods(here):
            if not name.startswith(OPERATED):
                told = await answer(method, olga.ctx, ids, THEIRS)
                nothing = ("Forbidden", "None", "False", "0", "[]", "Balance(", "Accounts(", "datetime.")
                assert told.startswith(nothing), (name, told)
        platform = here.platform
        readings: list[Awaitable[object]] = [
            platform.runs.list(olga.ctx),
            platform.runs.declined_summary(olga.ctx),
            platform.reviews.open(olga.ctx),
            platform.reviews.recent(olga.ctx),
            platform.audit.recent(olga.ctx),
            platform.schedules.list(olga.ctx),
            platform.pollers.list(olga.ctx),
            platform.triggers.list(olga.ctx),
            platform.conversations.threads(olga.ctx),
            platform.conversations.favourites(olga.ctx),
            here.memory.list(olga.ctx),
            here.memory.recall(olga.ctx, "secret"),
            platform.tenants.list_keys(olga.ctx),
        ]
        for reading in readings:
            with pytest.raises(Forbidden):
                await reading
        assert await contents(owner, tables, THEIRS) == before
        await owner.close()

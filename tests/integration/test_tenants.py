"""Who may be whom: sessions, keys, lock-out, regions, and what admins and operators may change."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest

from core.clock import FakeClock
from core.errors import Forbidden, InvalidInput, NotFound, RateLimited, Unauthenticated, WrongRegion
from core.ids import TenantId, UserId
from core.settings import Settings
from core.tenancy import PLATFORM, Policy, Role, Scope, TenantContext
from core.tenants import passwords
from core.tenants.model import LOCKOUT_FAILURES, LOCKOUT_WINDOW_S, SESSION_LIFETIME_S, Identity
from core.tenants.service import TenantService
from tests.fixtures.people import PEOPLE_PASSWORD
from tests.fixtures.work import Work, work_in

ADA = "ada@bank.example"
BANK = TenantId("bank")


@pytest.fixture
async def work(settings: Settings) -> AsyncIterator[Work]:
    """The rooms, on a clock that stands still."""
    async with work_in(settings, FakeClock()) as rooms:
        yield rooms


async def refused(work: Work, token: str) -> bool:
    """Whether the session is over."""
    try:
        await work.tenants.identify_session(token)
    except Unauthenticated:
        return True
    return False


# Sessions -------------------------------------------------------------------------------------------------


async def test_a_refused_login_stands_in_the_audit_of_whoever_it_was_about(work: Work) -> None:
    _, ada = await work.people.login(ADA, "bank", Role.ADMIN)
    for email in (ADA, "nobody@bank.example"):
        with pytest.raises(Unauthenticated):
            await work.tenants.login(email, "wrong")
    await work.tenants.refusals.settled()
    told = [(act.actor, act.subject) for act in await work.audit.recent(ada.ctx) if act.act == "session.refuse"]
    assert told == [("system:login", f"user:{ada.user_id}")]


async def test_a_session_ends_with_its_time_its_logout_other_roles_and_a_closed_account(work: Work) -> None:
    token, ada = await work.people.login(ADA, "bank", Role.ADMIN)
    operator = await work.people.operator()
    tenants = work.tenants

    async def again() -> str:
        return (await tenants.login(ADA, PEOPLE_PASSWORD)).token

    work.clock.advance(SESSION_LIFETIME_S - 1)
    assert not await refused(work, token)
    work.clock.advance(1)
    assert await refused(work, token)

    token, other = await again(), await again()
    await tenants.logout(token)
    await tenants.logout(token)
    assert (await refused(work, token), await refused(work, other)) == (True, False)
    assert [act.act for act in await work.audit.recent(ada.ctx)].count("session.close") == 1

    await tenants.change_user(operator, BANK, ada.user_id, roles=(Role.MEMBER,))
    assert await refused(work, other), "a session made as admin is none of a member"
    token = await again()
    identity = await tenants.identify_session(token)
    assert identity.roles == (Role.MEMBER,)
    assert Scope.TENANT_WRITE not in identity.ctx.scopes

    await tenants.change_user(operator, BANK, ada.user_id, disabled=True)
    assert await refused(work, token)
    with pytest.raises(Unauthenticated):
        await again()
    await tenants.change_user(operator, BANK, ada.user_id, disabled=False)
    assert await refused(work, token), "what was ended stays ended"
    assert not await refused(work, await again())
    acts = [entry.act for entry in await work.audit.recent(await work.tenant("bank"))]
    assert acts.count("user.change") == 3


async def test_only_its_exact_token_opens_a_session_and_the_database_does_not_hold_it(
    work: Work, owner_dsn: str
) -> None:
    token, _ = await work.people.login(ADA, "bank")
    for wrong in (token[:-1], token + "A", token.swapcase(), "", "\x00", "\ud800", "' or ''='", "x" * 10_000):
        assert await refused(work, wrong), wrong
    owner = await asyncpg.connect(owner_dsn)
    stored = await owner.fetchval("select string_agg(s::text, ' ') from sessions s")
    await owner.close()
    assert token not in stored


async def test_somebody_with_one_address_in_two_organisations_chooses_by_password_or_name(work: Work) -> None:
    await work.people.login(ADA, "bank", Role.ADMIN)
    await work.people.login(ADA, "union", Role.MEMBER)
    operator = await work.people.operator()
    await work.tenants.create_tenant(operator, TenantId("shop"), "Shop", "shop", "us-east-1", Policy())
    await work.tenants.add_user(operator, TenantId("shop"), ADA, "Ada", "a password of its own", (Role.MEMBER,))
    assert (await work.tenants.login(ADA, PEOPLE_PASSWORD, "union")).identity.tenant_id == "union"
    assert (await work.tenants.login(ADA, "a password of its own")).identity.tenant_id == "shop"
    for tenant in ("shop", "nowhere", "%", "bank' or '1'='1"):
        with pytest.raises(Unauthenticated):
            await work.tenants.login(ADA, PEOPLE_PASSWORD, tenant)


# Passwords ------------------------------------------------------------------------------------------------


async def test_a_login_takes_the_same_way_whoever_tries_and_whatever_they_type(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    await work.people.login(ADA, "bank")
    asked: list[int] = []
    matches = passwords.matches

    def counting(password: str, hashes: Sequence[str]) -> list[bool]:
        asked.append(len(hashes))
        return matches(password, hashes)

    monkeypatch.setattr(passwords, "matches", counting)
    told = set()
    tries = (
        (ADA, "wrong", None),
        (ADA, PEOPLE_PASSWORD, "union"),
        ("nobody@bank.example", PEOPLE_PASSWORD, None),
        ("not an address", PEOPLE_PASSWORD, None),
        ("x" * 5_000 + "@bank.example", PEOPLE_PASSWORD, None),
        ("nul\x00@bank.example", "nul\x00", None),
        (ADA, "half a pair \ud800", None),
        (ADA, "", None),
    )
    for email, password, tenant in tries:
        asked.clear()
        with pytest.raises(Unauthenticated) as error:
            await work.tenants.login(email, password, tenant)
        assert asked in ([0], [1]), email
        told.add((error.value.message, tuple(error.value.details)))
    assert len(told) == 1


async def test_ten_failures_lock_an_address_and_no_other_until_time_has_passed(work: Work) -> None:
    await work.people.login(ADA, "bank")
    await work.people.login("ravi@bank.example", "bank")
    for _ in range(LOCKOUT_FAILURES - 1):
        with pytest.raises(Unauthenticated):
            await work.tenants.login(ADA, "wrong")
        work.clock.advance(30)
    await work.tenants.login("ADA@bank.example ", PEOPLE_PASSWORD)  # nine failures lock nobody out
    with pytest.raises(Unauthenticated):
        await work.tenants.login(ADA.upper(), "wrong")
    for password in (PEOPLE_PASSWORD, "wrong"):
        with pytest.raises(RateLimited) as locked:
            await work.tenants.login(ADA, password)
        assert locked.value.retry_after_s is not None
    await work.tenants.login("ravi@bank.example", PEOPLE_PASSWORD)
    with pytest.raises(Unauthenticated):
        await work.tenants.login("nobody@bank.example", "wrong")
    work.clock.advance(LOCKOUT_WINDOW_S + 60)
    await work.tenants.login(ADA, PEOPLE_PASSWORD)


async def test_passwords_tried_at_once_cannot_outrun_the_lock(work: Work) -> None:
    await work.people.login(ADA, "bank")
    tries = [work.tenants.login(ADA, f"guess {number}") for number in range(25)]
    answers = [type(error) for error in await asyncio.gather(*tries, return_exceptions=True)]
    assert (answers.count(Unauthenticated), answers.count(RateLimited)) == (LOCKOUT_FAILURES, 15)


# Keys -----------------------------------------------------------------------------------------------------


async def test_a_key_works_whole_until_it_is_revoked_or_expires_and_for_its_tenant_only(
    work: Work, owner_dsn: str
) -> None:
    bank, union = await work.people.admin("bank"), await work.people.admin("union")
    key = await work.tenants.issue_key(bank, "robot", (Scope.RUNS_READ,))
    ctx = await work.tenants.identify_key(key)
    assert (ctx.tenant_id, ctx.scopes, ctx.user_id) == ("bank", frozenset({Scope.RUNS_READ}), None)
    _, key_id, secret = key.split("_", 2)
    theirs = await work.tenants.issue_key(union, "robot", (Scope.RUNS_READ,))

    wrong = [f"bw_{key_id}_{secret}x", f"bw_{key_id}_{secret[:-1]}", f"bw_{key_id}_{secret.swapcase()}"]
    wrong += [f"bw_{key_id}_{theirs.split('_', 2)[2]}", f"bw_{key_id[:-1]}_{secret}", f"xx_{key_id}_{secret}"]
    wrong += ["", "bw__", f"bw_{key_id}_", f"bw__{secret}", key_id, secret, f"bw_\x00_{secret}", "bw_é_\ud800"]
    for given in wrong:
        with pytest.raises(Unauthenticated) as error:
            await work.tenants.identify_key(given)
        assert error.value.message == "The API key is not valid."

    with pytest.raises(NotFound):
        await work.tenants.revoke_key(union, key_id)
    await work.tenants.revoke_key(bank, key_id)
    with pytest.raises(NotFound):
        await work.tenants.revoke_key(bank, key_id)
    with pytest.raises(Unauthenticated):
        await work.tenants.identify_key(key)

    owner = await asyncpg.connect(owner_dsn)
    await owner.execute("update api_keys set expires_at = $1", work.clock.now() + timedelta(seconds=5))
    assert secret not in await owner.fetchval("select string_agg(k::text, ' ') from api_keys k")
    await owner.close()
    assert (await work.tenants.identify_key(theirs)).tenant_id == "union"
    work.clock.advance(5)
    with pytest.raises(Unauthenticated):
        await work.tenants.identify_key(theirs)


async def test_secrets_are_compared_in_constant_time(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    key = await work.tenants.issue_key(await work.people.admin("bank"), "robot", ())
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def watching(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return compare(a, b)

    monkeypatch.setattr(hmac, "compare_digest", watching)
    await work.tenants.identify_key(key)
    with pytest.raises(Unauthenticated):
        await work.tenants.identify_key(key + "x")
    assert [len(a) == len(b) == 32 for a, b in compared] == [True, True]


async def test_nobody_hands_out_rights_they_do_not_have(work: Work) -> None:
    bank = await work.people.admin("bank")
    _, mia = await work.people.login("mia@bank.example", "bank", Role.MEMBER)
    for ctx, scopes in ((bank, (Scope.PLATFORM_OPERATE,)), (mia.ctx, (Scope.RUNS_READ,))):
        with pytest.raises(Forbidden):
            await work.tenants.issue_key(ctx, "robot", scopes)
    robot = await work.tenants.identify_key(
        await work.tenants.issue_key(bank, "robot", (Scope.TENANT_WRITE, Scope.RUNS_READ))
    )
    with pytest.raises(Forbidden):
        await work.tenants.issue_key(robot, "another", (Scope.RUNS_WRITE,))


# People ----------------------------------------------------------------------------------------------------


async def test_people_are_added_and_changed_by_their_own_admin_or_an_operator_only(work: Work) -> None:
    admin, other, operator = await work.people.admin("bank"), await work.people.admin("union"), await work.operator()
    _, mia = await work.people.login("mia@bank.example", "bank", Role.MEMBER)
    tenants = work.tenants

    async def add(actor: TenantContext, tenant: str, email: str, *roles: Role, password: str = PEOPLE_PASSWORD) -> bool:
        return await tenants.add_user(actor, TenantId(tenant), email, "Eve", password, roles)

    assert await add(admin, "bank", "Eve@bank.example", Role.MEMBER)
    assert not await add(admin, "bank", "eve@BANK.example", Role.ADMIN)
    for actor, tenant, email, role, error in (
        (mia.ctx, "bank", "x@bank.example", Role.MEMBER, Forbidden),
        (other, "bank", "x@bank.example", Role.MEMBER, NotFound),
        (operator, "nowhere", "x@bank.example", Role.MEMBER, NotFound),
        (admin, "bank", "x@bank.example", Role.OPERATOR, InvalidInput),
        (operator, PLATFORM, "x@bank.example", Role.ADMIN, InvalidInput),
        (admin, "bank", "no address", Role.MEMBER, InvalidInput),
        (admin, "bank", "x" * 300 + "@bank.example", Role.MEMBER, InvalidInput),
        (admin, "bank", "nul\x00@bank.example", Role.MEMBER, InvalidInput),
    ):
        with pytest.raises(error):
            await add(actor, tenant, email, role)
    with pytest.raises(InvalidInput):
        await add(admin, "bank", "x@bank.example", Role.MEMBER, password="short")
    for actor, tenant, user_id in ((other, BANK, mia.user_id), (other, "union", mia.user_id), (admin, BANK, "usr_0")):
        with pytest.raises(NotFound):
            await tenants.change_user(actor, TenantId(tenant), UserId(user_id), disabled=True)
    with pytest.raises(InvalidInput):
        await tenants.change_user(admin, BANK, mia.user_id, roles=(Role.OPERATOR,))
    for hostile in ("A", "a}b", "", "x" * 64):
        with pytest.raises(InvalidInput):
            await tenants.create_tenant(operator, TenantId(hostile), "X", "x", "us-east-1", Policy())


# Regions --------------------------------------------------------------------------------------------------


async def test_a_tenant_of_another_region_is_told_the_right_address_and_nothing_is_opened_here(
    work: Work, settings: Settings, owner_dsn: str
) -> None:
    here = TenantService(
        work.db, work.bus, work.audit, work.clock, region="us-east-1", region_urls={"eu-west-1": "https://eu.example"}
    )
    people = replace(work.people, tenants=here)
    bank: Identity = (await people.login(ADA, "bank", Role.ADMIN))[1]
    key = await here.issue_key(bank.ctx, "robot", ())
    token = (await here.login(ADA, PEOPLE_PASSWORD)).token
    owner = await asyncpg.connect(owner_dsn)
    await owner.execute("update tenants set region = 'eu-west-1' where tenant_id = 'bank'")
    sessions = await owner.fetchval("select count(*) from sessions")
    work.clock.advance(1)
    for wrong in (here.login(ADA, PEOPLE_PASSWORD), here.identify_session(token), here.identify_key(key)):
        with pytest.raises(WrongRegion) as error:
            await wrong
        assert dict(error.value.details) == {"region": "eu-west-1", "address": "https://eu.example"}
    assert await owner.fetchval("select count(*) from sessions") == sessions
    await owner.close()
    with pytest.raises(Unauthenticated):
        await here.login(ADA, "wrong")

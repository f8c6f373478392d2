"""Learning, remembering, recalling and forgetting on real servers, with the offline model as the model."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from core.errors import BudgetExceeded, Forbidden, InvalidInput, NotFound
from core.ids import MemoryId, ThreadId
from core.ports import Utterance
from core.settings import Settings
from core.tenancy import Policy, Role, Scope, TenantContext
from tests.fixtures.memory import Remembering, remembering

THREAD = ThreadId("thr_1")
BANK = "regional-bank"
FLOOR = "we never approve below 620"


async def texts(here: Remembering, ctx: TenantContext, query: str) -> list[str]:
    return [one.text for one in await here.memory.recall(ctx, query)]


async def test_what_was_remembered_is_recalled_in_other_words_with_its_origin(
    settings_with_graph: Settings, offline_model: str
) -> None:
    async with remembering(settings_with_graph, offline_model) as here:
        mia = await here.member(BANK)
        [stored] = await here.memory.remember(mia, FLOOR, thread_id=THREAD)
        assert await texts(here, mia, "What is our minimum credit score for an approval?") == [stored.text]
        assert await texts(here, mia, "Which flowers bloom in April?") == []
        assert await here.memory.list(mia) == [stored]
        memory = await here.memory.get(mia, stored.memory_id)
        assert memory.text == "We never approve below 620."
        assert memory.triple is not None
        assert memory.triple.key == ("we", "never approve below", "620")
        assert (memory.thread_id, memory.learned_by, memory.model) == (THREAD, mia.actor, "gpt-5-mini")
        assert (memory.learned_at, memory.valid_from, memory.valid_to) == (here.clock.now(), here.clock.now(), None)


async def test_a_turn_teaches_what_the_user_stated_rules_to_all_and_preferences_to_one(
    settings_with_graph: Settings, offline_model: str
) -> None:
    async with remembering(settings_with_graph, offline_model) as here:
        mia = await here.member(BANK)
        ravi = await here.member(BANK, "ravi@example.com")
        turn = [
            Utterance("user", "We require two payslips. I prefer short answers. How many runs are queued?", "m1"),
            Utterance("assistant", "Three runs are queued. Your bank was founded in 1901.", "m2"),
        ]
        assert await here.memory.learn(mia, turn, thread_id=THREAD) == 2
        assert {one.text for one in await here.memory.list(mia)} == {
            "We require two payslips.",
            "I prefer short answers.",
        }
        assert [one.text for one in await here.memory.list(ravi)] == ["We require two payslips."]
        assert await texts(here, ravi, "short answers") == []
        [shared] = await here.memory.list(ravi)
        assert (await here.memory.get(ravi, shared.memory_id)).message_id == "m1"


async def test_a_step_that_is_repeated_learns_nothing_again(settings_with_graph: Settings, offline_model: str) -> None:
    async with remembering(settings_with_graph, offline_model) as here:
        mia = await here.member(BANK)
        turn = [Utterance("user", "We require two payslips.")]
        for _ in range(2):
            assert await here.memory.learn(mia, turn, thread_id=THREAD, source_key="run_1/1") == 1
        calls = [one for one in await here.platform.audit.recent(await admin(here)) if one.act == "memory.learn"]
        assert len(calls) == 1


async def test_said_again_it_is_confirmed_not_stored_twice_also_at_the_same_moment(
    settings_with_graph: Settings, offline_model: str
) -> None:
    async with remembering(settings_with_graph, offline_model) as here:
        mia = await here.member(BANK)
        first, *_ = await asyncio.gather(*(here.memory.remember(mia, FLOOR, thread_id=THREAD) for _ in range(5)))
        later = here.clock.advance(3600)
        again = await here.memory.remember(mia, "We never approve below 620!", thread_id=None)
        assert [one.memory_id for one in again] == [one.memory_id for one in first]
        [known] = await here.memory.list(mia)
        assert (await here.memory.get(mia, known.memory_id)).confirmed_at == later


async def test_a_new_rule_ends_the_old_one_which_stays_as_history(
    settings_with_graph: Settings, offline_model: str
) -> None:
    async with remembering(settings_with_graph, offline_model) as here:
        mia = await here.member(BANK)
        [old] = await here.memory.remember(mia, FLOOR, thread_id=THREAD)
        before = here.clock.now()
        changed = here.clock.advance(86_400)
        [new] = await here.memory.remember(mia, "we never approve below 640", thread_id=None)
        assert await texts(here, mia, "below which score do we never approve?") == [new.text]
        history = await here.memory.get(mia, old.memory_id)
        assert (history.valid_to, history.superseded_by) == (changed, new.memory_id)
        assert [one.text for one in await here.memory.recall(mia, "approval floor", at=before)] == [old.text]
        # Said before the last rule and learned after it: history from the start.
        turn = [Utterance("user", "We never approve below 630.")]
        await here.memory.learn(mia, turn, thread_id=THREAD, said_at=before)
        assert await texts(here, mia, "below which score do we never approve?") == [new.text]


async def test_contradicting_statements_made_at_once_leave_one_of_them_valid(
    settings_with_graph: Settings, offline_model: str
) -> None:
    async with remembering(settings_with_graph, offline_model) as here:
        mia = await here.member(BANK)
        scores = (600, 610, 620, 630)
        await asyncio.gather(
            *(here.memory.remember(mia, f"we never approve below {score}", thread_id=None) for score in scores)
        )
        assert len(await here.memory.list(mia)) == 1


async def test_several_things_stated_in_one_breath_hold_together(
    settings_with_graph: Settings, offline_model: str
) -> None:
    async with remembering(settings_with_graph, offline_model) as here:
        mia = await here.member(BANK)
        turn = [Utterance("user", "Our branch is in Leeds. Our branch is in York.")]
        assert await here.memory.learn(mia, turn, thread_id=THREAD) == 2
        assert len(await here.memory.list(mia)) == 2


async def test_what_is_forgotten_is_gone_and_the_audit_says_that_it_was_not_what_it_said(
    settings_with_graph: Settings, offline_model: str
) -> None:
    async with remembering(settings_with_graph, offline_model) as here:
        mia = await here.member(BANK)
        [stored] = await here.memory.remember(mia, FLOOR, thread_id=THREAD)
        assert await here.memory.forget(mia, stored.memory_id)
        assert await texts(here, mia, FLOOR) == []
        assert await here.memory.list(mia) == []
        with pytest.raises(NotFound):
            await here.memory.get(mia, stored.memory_id)
        assert not await here.memory.forget(mia, stored.memory_id)
        entries = await here.platform.audit.recent(await admin(here))
        [proof] = [one for one in entries if one.act == "memory.forget"]
        assert (proof.subject, proof.actor) == (stored.memory_id, mia.actor)
        assert "620" not in str([(one.before, one.after) for one in entries if one.act.startswith("memory.")])


async def test_erasing_a_conversation_or_a_person_removes_what_was_learned_from_them(
    settings_with_graph: Settings, offline_model: str
) -> None:
    async with remembering(settings_with_graph, offline_model) as here:
        mia = await here.member(BANK)
        ravi = await here.member(BANK, "ravi@example.com")
        await here.memory.remember(mia, FLOOR, thread_id=THREAD)
        await here.memory.remember(mia, "I prefer short answers", thread_id=ThreadId("thr_2"))
        await here.memory.remember(ravi, "I prefer long answers", thread_id=THREAD)
        [rule] = await here.memory.remember(mia, "we require two payslips", thread_id=ThreadId("thr_2"))
        assert await here.memory.erase_thread(mia, THREAD) == 1
        assert len(await here.memory.list(mia)) == 2
        assert len(await here.memory.list(ravi)) == 2
        assert mia.user_id is not None
        with pytest.raises(Forbidden):
            await here.memory.erase_user(ravi, mia.user_id)
        assert await here.memory.erase_user(await admin(here), mia.user_id) == 1
        assert [one.text for one in await here.memory.list(mia)] == [rule.text]
        kept = await here.memory.get(ravi, rule.memory_id)
        assert (kept.thread_id, kept.learned_by) == (None, "erased")


async def test_without_a_budget_a_statement_is_kept_as_said_and_found_by_its_words(
    settings_with_graph: Settings, offline_model: str
) -> None:
    async with remembering(settings_with_graph, offline_model) as here:
        mia = await here.member(BANK, policy=Policy(budget_month_microusd=0))
        [stored] = await here.memory.remember(mia, FLOOR, thread_id=THREAD)
        assert stored.kind == "fact"
        assert await texts(here, mia, "which applications do we approve?") == [FLOOR]
        with pytest.raises(BudgetExceeded):
            await here.memory.learn(mia, [Utterance("user", "We require two payslips.")], thread_id=THREAD)
        assert len(await here.memory.list(mia)) == 1
        assert mia.tenant_id in await here.memory.tenants_behind()
        rich = replace(mia, policy=Policy())
        await here.memory.drain(rich)
        assert await here.memory.tenants_behind() == []
        assert await texts(here, rich, "Whom would we turn down?") == [stored.text]


async def test_every_model_call_of_memory_is_in_the_ledger(settings_with_graph: Settings, offline_model: str) -> None:
    async with remembering(settings_with_graph, offline_model) as here:
        mia = await here.member(BANK)
        await here.memory.remember(mia, FLOOR, thread_id=THREAD)
        balance = await here.platform.usage.balance(mia)
        assert balance.spent_microusd > 0
        assert balance.reserved_microusd == 0
        calls = [one for one in await here.platform.audit.recent(await admin(here)) if one.act == "model.call"]
        assert {one.after["purpose"] for one in calls} == {"memory"}


async def test_memory_needs_the_right_and_a_sensible_statement(
    settings_with_graph: Settings, offline_model: str
) -> None:
    async with remembering(settings_with_graph, offline_model) as here:
        mia = await here.member(BANK)
        reader = replace(mia, scopes=frozenset({Scope.MEMORY_READ}))
        with pytest.raises(Forbidden):
            await here.memory.remember(reader, FLOOR, thread_id=None)
        with pytest.raises(Forbidden):
            await here.memory.forget(reader, MemoryId("mem_1"))
        with pytest.raises(Forbidden):
            await here.memory.recall(replace(mia, scopes=frozenset()), FLOOR)
        for statement in ("", " \n ", "x" * 2_001, "our password is hunter2"):
            with pytest.raises(InvalidInput):
                await here.memory.remember(mia, statement, thread_id=None)
        assert await here.memory.list(mia) == []
        assert await here.memory.recall(mia, "  ") == []


async def admin(here: Remembering) -> TenantContext:
    _, identity = await here.people.login("ada@example.com", BANK, Role.ADMIN)
    return identity.ctx

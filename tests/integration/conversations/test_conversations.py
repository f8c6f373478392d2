"""Conversations on a real database: what is kept, who sees it, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from core.audit.service import AuditService
from core.clock import FakeClock
from core.conversations import store
from core.conversations.model import MAX_CONTENT_BYTES, Element, Entry, EntryKind
from core.conversations.service import ConversationService
from core.db.pool import Database
from core.errors import Forbidden, InvalidInput, NotFound, PayloadTooLarge
from core.ids import ThreadId, UserId
from core.settings import Settings
from core.tenancy import Policy, Role, TenantContext
from tests.fixtures.people import People, people_in

THREAD = ThreadId("6f7f7f0e-2f5b-4f37-9a3e-000000000001")
NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON)


@pytest.fixture
async def place(settings: Settings) -> AsyncIterator[tuple[Database, People]]:
    async with people_in(settings) as place:
        yield place


@pytest.fixture
def conversations(place: tuple[Database, People], clock: FakeClock) -> ConversationService:
    return ConversationService(place[0], AuditService(place[0], clock), clock)


@pytest.fixture
async def mia(place: tuple[Database, People]) -> TenantContext:
    return (await place[1].login("mia@bank.example", "bank"))[1].ctx


def message(entry_id: str, text: str, kind: str = EntryKind.USER, minute: int = 0, **more: object) -> Entry:
    at = NOON + timedelta(minutes=minute)
    return Entry(entry_id, THREAD, kind, "Mia", "", text, at, **more)  # type: ignore[arg-type]


async def test_everything_that_was_shown_is_there_after_a_reload(
    conversations: ConversationService, mia: TenantContext
) -> None:
    started, ended = NOON + timedelta(seconds=1), NOON + timedelta(seconds=4.5)
    asked = message("m1", "Process these", extra={"modes": {"tone": "brief"}, "command": "run"})
    worked = message("t1", "{}", "tool", 1, parent_id="m1", started_at=started, ended_at=ended, is_error=True)
    await conversations.save_entry(mia, asked)
    await conversations.save_entry(mia, worked)
    await conversations.save_element(
        mia, Element("e1", THREAD, "m1", "file", "a.csv", "text/csv; charset=utf-8"), b"x,y\n1,2\n"
    )
    await conversations.save_element(mia, Element("e2", THREAD, "t1", "custom", "Card", None, props={"n": 1}))
    first = await conversations.save_feedback(mia, "m1", 1, "good")
    assert await conversations.save_feedback(mia, "m1", 0, "not so good") == first

    seen = await conversations.conversation(mia, THREAD)

    assert seen.entries == (asked, worked)
    assert [(e.element_id, e.mime, e.has_content, e.props) for e in seen.elements] == [
        ("e1", "text/csv", True, None),
        ("e2", None, False, {"n": 1}),
    ]
    assert [(f.entry_id, f.value, f.comment) for f in seen.feedback] == [("m1", 0, "not so good")]
    content = await conversations.attachment(mia, THREAD, "a.csv")
    assert (content.data, content.mime) == (b"x,y\n1,2\n", "text/csv")
    assert content == await conversations.content(mia, THREAD, "e1")


async def test_neither_a_colleague_nor_another_tenant_nor_an_operator_sees_a_thread(
    conversations: ConversationService, place: tuple[Database, People], mia: TenantContext
) -> None:
    await conversations.save_entry(mia, message("m1", "secret"))
    await conversations.save_element(mia, Element("e1", THREAD, "m1", "file", "a.csv", "text/csv"), b"secret")
    feedback_id = await conversations.save_feedback(mia, "m1", 1, None)
    colleague = (await place[1].login("ravi@bank.example", "bank", Role.REVIEWER))[1].ctx
    stranger = (await place[1].login("mia@union.example", "union"))[1].ctx
    operator = (await place[1].login("olga@platform.example", "platform", Role.OPERATOR))[1].ctx

    for other in (colleague, stranger):
        with pytest.raises(NotFound):
            await conversations.conversation(other, THREAD)
        with pytest.raises(NotFound):
            await conversations.content(other, THREAD, "e1")
        with pytest.raises(NotFound):
            await conversations.delete_thread(other, THREAD)
        with pytest.raises(NotFound):
            await conversations.save_feedback(other, "m1", 0, None)
        assert await conversations.threads(other, search="secret") == ([], None)
        assert await conversations.messages(other, THREAD) == []
        assert not await conversations.delete_entry(other, "m1")
        assert not await conversations.delete_element(other, "e1")
        assert not await conversations.delete_feedback(other, feedback_id)
    with pytest.raises(NotFound):  # a colleague cannot write into it, under either id
        await conversations.save_entry(colleague, message("m1", "overwritten"))
    with pytest.raises(Forbidden):
        await conversations.threads(operator)

    seen = await conversations.conversation(mia, THREAD)
    assert [entry.output for entry in seen.entries] == ["secret"]
    assert len(seen.elements) == len(seen.feedback) == 1


async def test_an_id_made_up_by_another_tenant_neither_collides_nor_tells_anything(
    conversations: ConversationService, place: tuple[Database, People], mia: TenantContext
) -> None:
    await conversations.save_entry(mia, message("m1", "ours"))
    stranger = (await place[1].login("mia@union.example", "union"))[1].ctx

    await conversations.save_entry(stranger, message("m1", "theirs"))

    assert [e.output for e in (await conversations.conversation(stranger, THREAD)).entries] == ["theirs"]
    assert [e.output for e in (await conversations.conversation(mia, THREAD)).entries] == ["ours"]


async def test_an_entry_cannot_be_moved_into_another_thread(
    conversations: ConversationService, mia: TenantContext
) -> None:
    await conversations.save_entry(mia, message("m1", "first"))
    with pytest.raises(NotFound):
        await conversations.save_entry(mia, Entry("m1", ThreadId("another"), EntryKind.USER, "Mia", "", "second", NOON))


async def test_no_function_of_the_control_role_can_read_a_conversation(owner_dsn: str) -> None:
    connection = await asyncpg.connect(owner_dsn)
    try:
        rest = ("thread_entries", "thread_elements", "thread_feedback", "thread_batches")
        for table in ("threads", *rest):
            assert not await connection.fetchval("select has_table_privilege('bailiwick_control', $1, 'select')", table)
    finally:
        await connection.close()


async def test_threads_come_newest_message_first_page_by_page_and_can_be_searched(
    conversations: ConversationService, clock: FakeClock, mia: TenantContext
) -> None:
    for number in range(5):
        thread = ThreadId(f"thread-{number}")
        await conversations.save_entry(
            mia, Entry(f"m{number}", thread, EntryKind.USER, "Mia", "", f"100% of {number}", NOON)
        )
        await conversations.save_thread(mia, thread, name=f"  Thread\n{number} ")
        clock.advance(60)
    clock.advance(60)
    await conversations.save_entry(
        mia, Entry("again", ThreadId("thread-0"), EntryKind.ASSISTANT, "B", "", "done", NOON)
    )

    page, cursor = await conversations.threads(mia, limit=3)
    rest, end = await conversations.threads(mia, limit=3, cursor=cursor)

    assert [t.name for t in page + rest] == ["Thread 0", "Thread 4", "Thread 3", "Thread 2", "Thread 1"]
    assert end is None
    assert [t.thread_id for t in (await conversations.threads(mia, search="0% of 3"))[0]] == ["thread-3"]
    assert (await conversations.threads(mia, search="%_%"))[0] == []
    with pytest.raises(InvalidInput):
        await conversations.threads(mia, cursor="2026-01-05~x")


async def test_the_model_is_told_the_last_messages_with_their_files_and_without_errors(
    conversations: ConversationService, mia: TenantContext
) -> None:
    for number in range(4):
        await conversations.save_entry(mia, message(f"m{number}", f"text {number}", minute=number))
    await conversations.save_entry(mia, message("bad", "it broke", EntryKind.ASSISTANT, 4, is_error=True))
    await conversations.save_entry(mia, message("tool", "{}", "tool", 5))
    await conversations.save_element(mia, Element("e1", THREAD, "m2", "file", "a.csv", "text/csv"), b"x")
    await conversations.save_element(mia, Element("e2", THREAD, "m2", "custom", "Card", None, props={}))

    told = await conversations.messages(mia, THREAD, without="m3", limit=2)

    assert [(m.text, m.attachments) for m in told] == [("text 1", ()), ("text 2", ("a.csv",))]


async def test_deleting_a_thread_leaves_no_row_of_it(
    conversations: ConversationService, mia: TenantContext, owner_dsn: str
) -> None:
    await conversations.save_entry(mia, message("m1", "secret"))
    await conversations.save_element(mia, Element("e1", THREAD, "m1", "file", "a.csv", "text/csv"), b"secret")
    await conversations.save_feedback(mia, "m1", 1, None)
    await conversations.add_batch(mia, THREAD, "bat_1", "a.csv")

    await conversations.delete_thread(mia, THREAD)

    connection = await asyncpg.connect(owner_dsn)
    try:
        for table in ("threads", "thread_entries", "thread_elements", "thread_feedback", "thread_batches"):
            assert await connection.fetchval(f"select count(*) from {table}") == 0
        told = await connection.fetch("select actor, subject from audit where act = 'thread.delete'")
        assert [tuple(row) for row in told] == [(mia.actor, f"thread:{THREAD}")]
    finally:
        await connection.close()


async def test_a_deleted_thread_stays_deleted_whatever_is_written_late(
    conversations: ConversationService, mia: TenantContext
) -> None:
    await conversations.save_entry(mia, message("m1", "secret"))
    await conversations.delete_thread(mia, THREAD)
    late: list[Callable[[], Awaitable[None]]] = [
        lambda: conversations.save_entry(mia, message("m1", "secret")),
        lambda: conversations.save_entry(mia, message("m2", "an answer", EntryKind.ASSISTANT)),
        lambda: conversations.save_element(mia, Element("e1", THREAD, "m1", "custom", "Card", None, props={})),
        lambda: conversations.add_batch(mia, THREAD, "bat_1", "a.csv"),
        lambda: conversations.save_thread(mia, THREAD, name="Loans"),
    ]
    for write in late:
        with pytest.raises(NotFound, match="or it was deleted"):
            await write()
    await conversations.save_thread(mia, THREAD, tags=["loans"], opens=False)
    assert await conversations.threads(mia) == ([], None)


async def test_the_id_of_a_deleted_thread_is_kept_for_as_long_as_the_audit_tells_of_it(
    conversations: ConversationService,
    place: tuple[Database, People],
    clock: FakeClock,
    mia: TenantContext,
    owner_dsn: str,
) -> None:
    policy = Policy(audit_retention_days=10)
    uma = (await place[1].login("uma@union.example", "union", policy=policy))[1].ctx
    for ctx in (mia, uma):
        await conversations.save_entry(ctx, message("m1", "secret"))
        await conversations.delete_thread(ctx, THREAD)
        clock.advance(timedelta(days=6).total_seconds())
    await conversations.save_thread(uma, ThreadId("another"))
    await conversations.delete_thread(uma, ThreadId("another"))
    assert await conversations.purge() == 0
    clock.advance(timedelta(days=5).total_seconds())
    assert [await conversations.purge(), await conversations.purge()] == [1, 0]
    connection = await asyncpg.connect(owner_dsn)
    left = await connection.fetch("select tenant_id, thread_id from deleted_threads order by tenant_id")
    await connection.close()
    assert [tuple(row) for row in left] == [("bank", THREAD), ("union", "another")]


async def test_what_is_written_while_its_thread_is_being_deleted_goes_with_it(
    conversations: ConversationService, place: tuple[Database, People], mia: TenantContext, owner_dsn: str
) -> None:
    await conversations.save_entry(mia, message("m1", "secret"))
    async with place[0].tenant_transaction(mia) as deleting:
        await store.delete_thread(deleting, THREAD, mia.user_id or UserId(""), NOON)
        late = asyncio.create_task(conversations.save_entry(mia, message("m2", "late")))
        await asyncio.wait({late}, timeout=0.3)  # it waits, or has ended
    with pytest.raises(NotFound):
        await late
    connection = await asyncpg.connect(owner_dsn)
    assert await connection.fetchval("select count(*) from threads") == 0
    await connection.close()


async def test_files_that_are_too_large_or_of_a_wrong_type_are_refused_with_a_reason(
    conversations: ConversationService, mia: TenantContext
) -> None:
    page = Element("e1", THREAD, None, "file", "page.html", "text/html")
    with pytest.raises(InvalidInput, match=r"page\.html has the type text/html"):
        await conversations.save_element(mia, page, b"<script>")
    large = Element("e2", THREAD, None, "file", "a.csv", "text/csv")
    with pytest.raises(PayloadTooLarge, match="larger than 5 MiB"):
        await conversations.save_element(mia, large, bytes(MAX_CONTENT_BYTES + 1))
    await conversations.save_element(mia, large, bytes(MAX_CONTENT_BYTES))


async def test_metadata_is_merged_and_a_null_removes_its_key(
    conversations: ConversationService, mia: TenantContext
) -> None:
    await conversations.save_thread(mia, THREAD, metadata={"a": 1, "b": {"c": None}}, tags=["loans"])
    await conversations.save_thread(mia, THREAD, metadata={"a": None, "d": 2})

    thread = await conversations.thread(mia, THREAD)

    assert thread.metadata == {"b": {"c": None}, "d": 2}
    assert thread.tags == ("loans",)


async def test_texts_that_the_database_cannot_hold_are_kept_as_far_as_possible(
    conversations: ConversationService, mia: TenantContext
) -> None:
    await conversations.save_entry(mia, message("m1", "nul\x00 " + "x" * 300_000))

    kept = (await conversations.conversation(mia, THREAD)).entries[0].output

    assert kept.startswith("nul\N{REPLACEMENT CHARACTER} xx")
    assert len(kept) == 200_000
    assert kept.endswith("left out)")


async def test_a_thread_finds_its_batches_and_a_new_thread_finds_the_users(
    conversations: ConversationService, clock: FakeClock, place: tuple[Database, People], mia: TenantContext
) -> None:
    await conversations.add_batch(mia, THREAD, "bat_1", "a.csv")
    await conversations.add_batch(mia, THREAD, "bat_1", "a.csv again")
    clock.advance(1)
    await conversations.add_batch(mia, ThreadId("other"), "bat_2", "b.csv")
    colleague = (await place[1].login("ravi@bank.example", "bank"))[1].ctx

    assert [b.label for b in await conversations.batches(mia, THREAD)] == ["a.csv"]
    assert [b.batch_id for b in await conversations.batches(mia)] == ["bat_2", "bat_1"]
    assert await conversations.batches(colleague) == []

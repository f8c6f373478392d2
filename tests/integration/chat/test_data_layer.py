"""What Chainlit stores comes back as it was, to its owner and to nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest
from chainlit.context import init_http_context
from chainlit.element import CustomElement, File
from chainlit.step import StepDict
from chainlit.types import Feedback, Pagination, ThreadFilter
from chainlit.user import User
from starlette.datastructures import Headers

from chat_app.data_layer import ConversationLayer
from chat_app.session import Seat, identifier_of, sit
from core.audit.service import AuditService
from core.clock import SystemClock
from core.conversations.service import ConversationService
from core.db.pool import Database
from core.settings import Settings
from core.tenants.model import Identity
from tests.fixtures.people import People, people_in

THREAD = "6f7f7f0e-2f5b-4f37-9a3e-000000000001"


@pytest.fixture
async def place(settings: Settings) -> AsyncIterator[tuple[Database, People]]:
    async with people_in(settings) as place:
        yield place


@pytest.fixture
def layer(place: tuple[Database, People]) -> ConversationLayer:
    db, clock = place[0], SystemClock()
    return ConversationLayer(ConversationService(db, AuditService(db, clock), clock), clock)


async def take_seat(place: tuple[Database, People], email: str, tenant: str) -> Identity:
    """Somebody's connection from here on."""
    _, identity = await place[1].login(email, tenant)

    async def identify(_: Headers) -> Identity:
        return identity

    sit(Seat(identity, Headers({}), identify))
    init_http_context(thread_id=THREAD)
    return identity


STEP: dict[str, object] = {
    "id": "s1",
    "threadId": THREAD,
    "parentId": "m1",
    "type": "tool",
    "name": "the review queue",
    "input": "{}",
    "output": '{"reviews": []}',
    "isError": False,
    "createdAt": "2026-01-05T12:00:00.000001Z",
    "start": "2026-01-05T12:00:01Z",
    "end": "2026-01-05T12:00:04.500000Z",
    "metadata": {"icon": "wrench"},
    "showInput": "json",
    "language": "json",
    "modes": {"tone": "brief"},
    "command": "review",
    "tags": ["a"],
    "defaultOpen": True,
    "autoCollapse": False,
}


def step(**changes: object) -> StepDict:
    """The step with some of it changed."""
    return cast(StepDict, {**STEP, **changes})


async def test_a_step_keeps_its_duration_modes_and_everything_else(
    layer: ConversationLayer, place: tuple[Database, People]
) -> None:
    await take_seat(place, "mia@bank.example", "bank")
    await layer.create_step(step(streaming=True))

    thread = await layer.get_thread(THREAD)

    assert thread is not None
    (found,) = thread["steps"]
    kept = {name: value for name, value in found.items() if name in STEP}
    times = {"createdAt", "start", "end"}
    assert {name: value for name, value in kept.items() if name not in times} == {
        name: value for name, value in STEP.items() if name not in times
    }
    assert found["start"] == "2026-01-05T12:00:01+00:00"
    assert found["end"] == "2026-01-05T12:00:04.500000+00:00"
    assert found["streaming"] is False


async def test_writes_of_one_step_that_nobody_awaits_end_in_the_order_they_began(
    layer: ConversationLayer, place: tuple[Database, People]
) -> None:
    await take_seat(place, "mia@bank.example", "bank")
    writes = [
        asyncio.create_task(layer.create_step(step(output="")) if n == 0 else layer.update_step(step(output=str(n))))
        for n in range(12)
    ]
    await asyncio.gather(*writes)

    thread = await layer.get_thread(THREAD)
    assert thread is not None
    assert thread["steps"][0]["output"] == "11"


async def test_an_opinion_about_a_message_that_is_still_being_written_is_kept(
    layer: ConversationLayer, place: tuple[Database, People]
) -> None:
    await take_seat(place, "mia@bank.example", "bank")
    writing = asyncio.create_task(layer.create_step(step(id="m1", type="assistant_message")))
    await asyncio.sleep(0)  # it begins, as nobody awaits it
    await layer.upsert_feedback(Feedback(forId="m1", value=1))
    await writing

    thread = await layer.get_thread(THREAD)
    assert thread is not None
    assert [found["feedback"]["value"] for found in thread["steps"]] == [1]  # type: ignore[index]


async def test_a_conversation_that_was_deleted_stays_deleted_when_its_page_is_closed_and_when_an_answer_comes_late(
    layer: ConversationLayer, place: tuple[Database, People]
) -> None:
    await take_seat(place, "mia@bank.example", "bank")
    await layer.create_step(step(id="m1", type="user_message"))
    await layer.update_thread(THREAD, name="Loans", metadata={"chat_profile": "x"})
    await layer.delete_thread(THREAD)
    await layer.update_thread(THREAD, metadata={"chat_profile": "x"})
    await layer.create_step(step(id="m2", type="assistant_message"))
    await layer.update_step(step(id="m1", type="user_message"))
    await layer.create_element(CustomElement(id="e2", name="RunsCard", props={"batch_id": "bat_1"}, for_id="m2"))
    assert await layer.get_thread(THREAD) is None


async def test_files_cards_and_feedback_come_back(
    layer: ConversationLayer, place: tuple[Database, People], tmp_path: Path
) -> None:
    await take_seat(place, "mia@bank.example", "bank")
    file = tmp_path / "upload.csv"
    file.write_bytes(b"a,b\n")
    await layer.create_step(step(id="m1", type="user_message"))
    await layer.create_element(File(id="e1", name="a[1].csv", path=str(file), mime="text/csv", for_id="m1"))
    card = CustomElement(id="e2", name="RunsCard", props={"batch_id": "bat_1"}, for_id="m1")
    await layer.create_element(card)
    feedback_id = await layer.upsert_feedback(Feedback(forId="m1", value=1, comment="good"))

    thread = await layer.get_thread(THREAD)

    assert thread is not None
    shown, painted = thread["elements"] or []
    assert shown["name"] == "a(1).csv"  # as the model is told; brackets end an announcement
    assert (shown["url"], shown["mime"], shown["forId"]) == (f"/chat/files/{THREAD}/e1", "text/csv", "m1")
    assert (painted["props"], painted["url"], painted["display"]) == ({"batch_id": "bat_1"}, None, "inline")
    assert thread["steps"][0]["feedback"] == {"forId": "m1", "id": feedback_id, "value": 1, "comment": "good"}
    assert await layer.delete_feedback(feedback_id)
    assert await layer.get_element(THREAD, "e1") == shown
    await layer.delete_element("e1", THREAD)
    assert await layer.get_element(THREAD, "e1") is None


async def test_what_cannot_be_kept_is_logged_and_does_not_break_the_chat(
    layer: ConversationLayer, place: tuple[Database, People], tmp_path: Path
) -> None:
    await take_seat(place, "mia@bank.example", "bank")
    page = tmp_path / "page.html"
    page.write_text("<script>")
    await layer.create_element(File(id="e1", name="page.html", path=str(page), mime="text/html", for_id="m1"))
    assert await layer.get_element(THREAD, "e1") is None


async def test_the_seat_decides_whose_conversations_they_are(
    layer: ConversationLayer, place: tuple[Database, People]
) -> None:
    mia = await take_seat(place, "mia@bank.example", "bank")
    await layer.create_step(step(id="m1", type="user_message", output="What about loans?"))
    await layer.update_thread(
        THREAD, name="Loans", user_id="ignored", metadata={"env": {"KEY": "secret"}, "chat_profile": "x"}
    )
    assert await layer.get_thread_author(THREAD) == identifier_of(mia) == f"bank:local:{mia.user_id}"
    page = await layer.list_threads(Pagination(first=10), ThreadFilter(userId="ignored", search="loans"))
    assert [(thread["name"], thread["metadata"]) for thread in page.data] == [("Loans", {"chat_profile": "x"})]
    user = await layer.create_user(User(identifier=identifier_of(mia)))
    assert user is not None
    assert user.id == mia.user_id

    await take_seat(place, "mia@union.example", "union")

    assert await layer.get_thread(THREAD) is None
    assert await layer.get_thread_author(THREAD) == ""
    assert (await layer.list_threads(Pagination(first=10), ThreadFilter(userId=mia.user_id))).data == []
    assert await layer.get_user(identifier_of(mia)) is None
    await layer.delete_step("m1")

    await take_seat(place, "mia@bank.example", "bank")
    thread = await layer.get_thread(THREAD)
    assert thread is not None
    assert len(thread["steps"]) == 1


async def test_favourite_messages_are_found_again(layer: ConversationLayer, place: tuple[Database, People]) -> None:
    await take_seat(place, "mia@bank.example", "bank")
    await layer.create_step(step(id="m1", type="user_message"))
    await layer.set_step_favorite(step(id="m2", type="user_message", output="mine"), favorite=True)
    assert [step["output"] for step in await layer.get_favorite_steps("ignored")] == ["mine"]

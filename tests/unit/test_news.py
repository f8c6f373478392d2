"""When what a process has to tell is sent."""

from __future__ import annotations

import asyncio

import pytest

from core.ids import TenantId
from core.redis import news
from core.redis.news import News, Told

BANK = TenantId("regional-bank")


class Sent:
    """What was sent, in messages; sending takes until the next turn of the loop."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[Told] = asyncio.Queue()

    async def __call__(self, told: Told) -> None:
        await asyncio.sleep(0)
        await self.messages.put(told)

    async def next(self) -> tuple[list[str], dict[str, list[str]]]:
        """The next message: topics, and for each tenant the kinds of its events."""
        async with asyncio.timeout(5):
            told = await self.messages.get()
        return list(told.topics), {tenant: [kind for kind, _ in events] for tenant, events in told.events.items()}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """Nothing that is kept to be sent together is sent within this test."""
    monkeypatch.setattr(news, "TOGETHER_S", 600.0)
    return Sent()


async def test_the_first_word_travels_at_once_with_what_is_said_beside_it(sent: Sent) -> None:
    told = News(sent)
    told.wake("workers")
    told.say(BANK, "run", {"state": "queued"})
    told.of_run(BANK, "run_1")
    assert await sent.next() == (["workers"], {BANK: ["run", "news"]})


async def test_a_wake_up_does_not_wait_behind_events_and_takes_them_with_it(sent: Sent) -> None:
    told = News(sent)
    told.say(BANK, "run", {"state": "running"})
    assert await sent.next() == ([], {BANK: ["run"]})
    told.say(BANK, "run", {"state": "succeeded"})
    told.wake("workers")
    assert await sent.next() == (["workers"], {BANK: ["run"]})


async def test_a_wake_up_while_a_message_is_sent_is_in_the_next_one(sent: Sent) -> None:
    told = News(sent)
    told.say(BANK, "run", {})
    await asyncio.sleep(0)  # it is being sent
    told.wake("workers")
    assert await sent.next() == ([], {BANK: ["run"]})
    assert await sent.next() == (["workers"], {})


async def test_wake_ups_right_after_one_are_sent_together(sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    told = News(sent)
    told.wake("workers")
    assert await sent.next() == (["workers"], {})
    for topic in ("workers", "scheduler", "workers"):
        told.wake(topic)
        await asyncio.sleep(0)
    assert sent.messages.empty()
    monkeypatch.setattr(news, "TOGETHER_S", 0.0)
    told.wake("workers")
    assert await sent.next() == (["workers", "scheduler"], {})
    await told.settled()

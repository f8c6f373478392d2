"""What many look at is read once, is never waited for twice, and is not read while nobody looks."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Condition
from typing import Any

import pytest

from core.errors import Unavailable
from ops_dashboard import shared
from ops_dashboard.shared import REST, TOO_OLD_S, Shared

TTL_S = 2.0


class Bench:
    """Readings that end when the test says so, on a clock that it moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.begun: list[Future[int]] = []
        self._changed = Condition()
        self.shared = Shared(self._start, TTL_S, lambda: self.now)

    def _start(self, work: Coroutine[Any, Any, int]) -> Future[int]:
        work.close()
        with self._changed:
            self.begun.append(Future())
            self._changed.notify_all()
            return self.begun[-1]

    async def _read(self) -> int:
        return 0

    def look(self, key: str = "bank") -> int:
        return self.shared.look(key, self._read)

    def waited_for(self, end: Callable[[Future[int]], None], key: str = "bank") -> Future[int]:
        """A look by somebody who waits, until the reading that it begins has come to its end."""
        before = len(self.begun)
        with ThreadPoolExecutor(1) as pool:
            looked = pool.submit(self.look, key)
            with self._changed:
                assert self._changed.wait_for(lambda: len(self.begun) > before, timeout=10)
            end(self.begun[-1])
        return looked

    def first(self, value: int, took_s: float = 0.0, key: str = "bank") -> None:
        """The first look of all, which takes a while."""

        def end(reading: Future[int]) -> None:
            self.now += took_s
            reading.set_result(value)

        assert self.waited_for(end, key).result() == value


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(shared, "BRIEF_S", 0.0)
    return Bench()


def test_a_fresh_value_is_read_once_for_all_and_a_stale_one_is_shown_while_the_next_is_read(bench: Bench) -> None:
    bench.first(1)
    assert [bench.look(), bench.look(), len(bench.begun)] == [1, 1, 1]
    bench.now += TTL_S
    assert [bench.look(), bench.look(), len(bench.begun)] == [1, 1, 2]  # both at once, and one reading
    bench.begun[1].set_result(2)
    assert [bench.look(), len(bench.begun)] == [2, 2]


def test_what_takes_long_to_read_is_read_seldom(bench: Bench) -> None:
    bench.first(1, took_s=3.0)
    bench.now += REST * 3.0 - 0.1
    assert [bench.look(), len(bench.begun)] == [1, 1]
    bench.now += 0.1
    assert [bench.look(), len(bench.begun)] == [1, 2]


def test_a_value_that_nobody_has_looked_at_for_long_is_read_before_it_is_shown(bench: Bench) -> None:
    bench.first(1)
    bench.now += TTL_S + TOO_OLD_S
    assert len(bench.begun) == 1  # nobody looked: nothing was read
    waited: list[str] = []

    @contextmanager
    def waiting() -> Any:
        waited.append("told")
        bench.begun[1].set_result(2)
        yield

    assert bench.shared.look("bank", bench._read, waiting) == 2
    assert waited == ["told"]


def test_a_reading_that_fails_is_told_when_there_is_nothing_else_to_show_and_tried_again(bench: Bench) -> None:
    bench.first(1)
    bench.now += TTL_S
    assert bench.look() == 1
    away = Unavailable("Postgres is away.")
    bench.begun[1].set_exception(away)
    assert [bench.look(), len(bench.begun)] == [1, 3]
    bench.begun[2].set_exception(away)
    bench.now += TOO_OLD_S
    for _ in range(2):
        assert bench.waited_for(lambda reading: reading.set_exception(away)).exception() is away
    assert len(bench.begun) == 5


def test_values_of_one_tenant_are_never_shown_to_another(bench: Bench) -> None:
    bench.first(1)
    bench.first(2, key="union")
    assert (bench.look("bank"), bench.look("union")) == (1, 2)

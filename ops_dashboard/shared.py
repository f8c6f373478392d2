"""What many look at is read once: a value per key, renewed behind the scenes, and only while somebody looks.

    (none) ──look: read, the looker waits──► fresh ──time──► stale ──more time──► too old ──look: as in the beginning
                                               ▲               │
                                               └──look: read───┘ the looker waits a moment, then sees the old one

A value is fresh for ``ttl_s``, or for ``REST`` times as long as it took to read, whichever is longer: however large the
platform, the looking of many keeps the database busy for at most a sixth of the time. When reading fails, the old value
stays while it is not too old; after that the lookers are told why, and the next look tries again.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TakesLonger
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")

REST = 5.0
BRIEF_S = 0.4
"""How long a look waits for a new value when there is an old one."""

TOO_OLD_S = 10.0
"""How long after it was fresh a value may be shown."""

_MOST = 2_000


@dataclass(slots=True, eq=False)
class _Kept(Generic[Value]):
    values: list[Value] = field(default_factory=list)  # the one that was read last
    fresh_until: float = 0.0
    reading: Future[Value] | None = None


class Shared(Generic[Value]):
    """Values by key. Thread-safe. ``start`` begins a coroutine elsewhere; it ends by itself, sooner or later."""

    def __init__(
        self,
        start: Callable[[Coroutine[Any, Any, Value]], Future[Value]],
        ttl_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._start = start
        self._ttl_s = ttl_s
        self._clock = clock
        self._kept: OrderedDict[Hashable, _Kept[Value]] = OrderedDict()
        self._lock = threading.RLock()  # a reading that has ended already says so while it is being started

    def look(
        self,
        key: Hashable,
        read: Callable[[], Coroutine[Any, Any, Value]],
        waiting: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> Value:
        """The value of a key; ``waiting`` is around a wait that may be long. Raises what ``read`` raises."""
        with self._lock:
            kept = self._kept.setdefault(key, _Kept())
            self._kept.move_to_end(key)
            while len(self._kept) > _MOST:
                self._kept.popitem(last=False)
            now = self._clock()
            usable = list(kept.values) if now < kept.fresh_until + TOO_OLD_S else []
            if kept.reading is None and usable and now < kept.fresh_until:
                return usable[0]
            reading = kept.reading or self._start(read())
            if kept.reading is None:
                kept.reading = reading
                reading.add_done_callback(partial(self._ended, kept, now))
        try:
            return reading.result(BRIEF_S)
        except TakesLonger:
            pass
        except Exception:
            if not usable:
                raise
        if usable:
            return usable[0]
        with waiting():
            return reading.result()

    def _ended(self, kept: _Kept[Value], began: float, reading: Future[Value]) -> None:
        with self._lock:
            kept.reading = None
            if not reading.cancelled() and reading.exception() is None:
                now = self._clock()
                kept.values[:] = [reading.result()]
                kept.fresh_until = now + max(self._ttl_s, REST * (now - began))

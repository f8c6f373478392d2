"""The world outside: it has effects, each at most once per idempotency key, and it is not reliable.

``python -m tests.durability.chaos.effects PORT SEED``. Nobody kills it, so what it counted is the truth.

A delivery may be slow, be refused with 500 before or after its effect, or lose its connection after its effect; which,
depends on the seed, the key and how manieth delivery of that key it is. A delivery that is ``refusable`` is refused for
good (422) until somebody heals it.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from dataclasses import asdict, dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from core.embedded.process import LOCALHOST

_SLOW_S, _TOO_SLOW_S = 0.4, 3.0


@dataclass(slots=True)
class Effect:
    """What was done under one key. ``what``: the effect in the words of the run; ``differing``: not asked alike."""

    key: str
    what: str
    had: bool = False
    deliveries: int = 0
    last_at: float = 0.0
    differing: bool = False


class World:
    """All effects."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._lock = threading.Lock()
        self._effects: dict[str, Effect] = {}
        self._healed: set[str] = set()

    def heal(self, what: str) -> None:
        """From now on this is not refused."""
        with self._lock:
            self._healed.add(what)

    def refuses(self, what: str) -> bool:
        """Whether nobody has healed it."""
        with self._lock:
            return what not in self._healed

    def delivered(self, key: str, what: str) -> random.Random:
        """A delivery came; the dice that decide what becomes of it."""
        with self._lock:
            effect = self._effects.setdefault(key, Effect(key, what))
            effect.deliveries += 1
            effect.last_at = time.time()
            effect.differing |= effect.what != what
            return random.Random(f"{self._seed}/{what}/{effect.deliveries}")

    def have(self, key: str) -> None:
        """The effect, unless this key had it."""
        with self._lock:
            self._effects[key].had = True

    def told(self) -> list[dict[str, Any]]:
        """All effects so far."""
        with self._lock:
            return [asdict(effect) for effect in self._effects.values()]


class Server(ThreadingHTTPServer):
    """Serves one world."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int, seed: int) -> None:
        super().__init__((LOCALHOST, port), Handler)
        self.world = World(seed)


class Handler(BaseHTTPRequestHandler):
    """``POST /effects``, ``POST /heal``, ``GET /effects``."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        """Everything that was done."""
        self._answer(HTTPStatus.OK, self.server.world.told())

    def do_POST(self) -> None:
        """One delivery, or a word that something is not refused any more."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        what = str(body["what"])
        if self.path == "/heal":
            self.server.world.heal(what)
            self._answer(HTTPStatus.OK, {})
        elif body.get("refusable") and self.server.world.refuses(what):
            self._answer(HTTPStatus.UNPROCESSABLE_ENTITY, {"what": what})
        else:
            self._deliver(self.headers["Idempotency-Key"], what)

    def _deliver(self, key: str, what: str) -> None:
        world = self.server.world
        dice = world.delivered(key, what)
        fate = dice.random()
        if fate < 0.06:
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, {"what": what})
            return
        if fate < 0.20:
            time.sleep(_SLOW_S * dice.random())
        world.have(key)
        if fate > 0.99:
            time.sleep(_TOO_SLOW_S)
        elif fate > 0.94:
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, {"what": what})
            return
        elif fate > 0.88:
            self.close_connection = True
            return
        self._answer(HTTPStatus.OK, {"what": what})

    def _answer(self, status: HTTPStatus, document: Any) -> None:
        content = json.dumps(document).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except ConnectionError:
            self.close_connection = True  # whoever asked is dead

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's own signature
        """Nothing."""


if __name__ == "__main__":
    Server(int(sys.argv[1]), int(sys.argv[2])).serve_forever()

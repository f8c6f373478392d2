"""``python -m core.demo.services``: serve the demo's outside world on this machine."""

from __future__ import annotations

import sys

import uvicorn

from core.clock import SystemClock
from core.demo.services.app import DemoServices
from core.demo.services.feed import Feed
from core.demo.services.journal import Journal
from core.settings import Port, Settings


def main() -> int:
    """Listen until told to stop; 1 with one clear line when the data folder cannot be written."""
    settings = Settings()
    folder = settings.home / "demo"
    try:
        journal, feed = Journal.open(folder / "effects.jsonl"), Feed(folder / "feed.jsonl")
    except OSError as error:
        sys.stderr.write(f"demo services: {folder} cannot be used: {error.strerror}\n")
        return 1
    services = DemoServices(journal, feed, SystemClock(), delay_s=settings.demo_delay_ms / 1_000)
    uvicorn.run(
        services.app(),
        host="127.0.0.1",
        port=settings.port(Port.DEMO),
        log_level=settings.log_level.lower(),
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    journal.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

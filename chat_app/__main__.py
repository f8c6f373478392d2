"""``python -m chat_app``: serve chat, API and login until told to stop."""

from __future__ import annotations

import asyncio
import signal
import sys

import structlog
import uvicorn

from core.errors import BailiwickError
from core.settings import Port, Settings
from core.telemetry import configure_logging, listener, open_tracer, serving

MAX_SOCKET_MESSAGE = 1024 * 1024

log = structlog.get_logger(__name__)


async def serve(settings: Settings) -> None:
    """Run one web process until SIGTERM or SIGINT. Raises ``SetupError`` or ``Unavailable`` when it cannot start."""
    configure_logging(settings, "web")
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    listening = listener(settings.bind_host, settings.port(Port.WEB))
    # Imported when the port is ours: the rest takes seconds to load, and a taken port is known at once.
    from chat_app.main import create_app
    from core.bootstrap import freeze_loaded, open_platform
    from memory.bootstrap import open_memory

    with open_tracer(settings, "web") as tracer:
        async with open_platform(settings, process="web") as platform, open_memory(platform) as memory:
            app = create_app(platform, memory, tracer, stopping)
            # Imported here: Chainlit reads its folder from the environment, which mounting sets.
            from chat_app.mounting import mount_chat
            from chat_app.services import chat_services

            auth, feeds = app.state.services.auth, app.state.services.feeds
            chat = chat_services(platform, memory, feeds, identify=auth.identity_from_cookie, logout=auth.logout)
            mount_chat(app, chat, settings)
            config = uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                ws_max_size=MAX_SOCKET_MESSAGE,
                timeout_graceful_shutdown=5,
            )
            async with serving(config, listening):
                freeze_loaded()
                log.info("web.started", url=settings.web_url())
                await stopping.wait()


def main() -> int:
    """0 when told to stop; 1, with one clear line, when it cannot start."""
    try:
        asyncio.run(serve(Settings()))
    except BailiwickError as error:
        sys.stderr.write(f"web: {error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""``python -m core.models.offline``: serve the offline model on this machine."""

from __future__ import annotations

import sys

import uvicorn

from core.clock import SystemClock
from core.errors import SetupError
from core.models.embedding_local import MiniLM, find_weights
from core.models.offline.server import OfflineServer
from core.settings import Port, Settings
from core.telemetry import configure_logging, new_registry


def main() -> int:
    """Listen until told to stop; 1 with one clear line when the embedding model is missing or not genuine."""
    settings = Settings()
    configure_logging(settings, "model")
    try:
        embedder = MiniLM(find_weights())
    except SetupError as problem:
        sys.stderr.write(f"offline model: {problem.message}\n")
        return 1
    key = settings.model_api_key.get_secret_value() if settings.model_api_key else None
    names = (settings.model_small, settings.model_large, settings.model_embedding)
    server = OfflineServer(embedder, names, SystemClock(), new_registry("model"), api_key=key)
    uvicorn.run(
        server.app(),
        host="127.0.0.1",
        port=settings.port(Port.MODEL),
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

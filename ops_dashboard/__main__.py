"""``python -m ops_dashboard``: the dashboard process."""

from __future__ import annotations

import sys

from core.errors import BailiwickError
from core.settings import Port, Settings
from core.telemetry import configure_logging, listener
from ops_dashboard.bridge import bridge
from ops_dashboard.server import serve


def main() -> int:
    """Serve until stopped. Exit code 1, with one line that says why, when it cannot start."""
    settings = Settings()
    configure_logging(settings, "dashboard")
    try:
        # Streamlit would quietly take the next free port, where nobody looks for it.
        listener(settings.bind_host, settings.port(Port.DASHBOARD)).close()
        opened = bridge()
    except BailiwickError as error:
        sys.stderr.write(f"dashboard: {error.message}\n")
        return 1
    try:
        serve(settings, opened)
    finally:
        opened.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

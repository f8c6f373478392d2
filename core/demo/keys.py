"""Where the demo's API keys are kept: ``demo-keys.json`` in the home folder, by tenant, readable by its owner."""

from __future__ import annotations

import json
from pathlib import Path

from core.settings import Settings

KEYS_FILE = "demo-keys.json"


def keys_path(settings: Settings) -> Path:
    """The file."""
    return settings.home / KEYS_FILE


def read_keys(settings: Settings) -> dict[str, str]:
    """The keys by tenant; empty where there are none yet, or the file is damaged."""
    path = keys_path(settings)
    try:
        keys = json.loads(path.read_text("utf-8")) if path.exists() else {}
    except ValueError:
        return {}
    return {tenant: key for tenant, key in keys.items() if isinstance(key, str)}

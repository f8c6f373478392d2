"""The environment of a process we start: our settings written back as variables, secrets only where needed."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from pydantic import SecretStr

from core.settings import Settings

PREFIX = "BAILIWICK_"


def environment_for(
    settings: Settings, *, secrets: Collection[str] = (), inherited: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Variables from which a child reads these settings again.

    A setting that holds a secret is passed only when ``secrets`` names its field. What does not belong to us
    is inherited unchanged: workflows that users write may read variables of their own.
    """
    env = {name: value for name, value in inherited.items() if not name.startswith(PREFIX)}
    for field in type(settings).model_fields:
        value = getattr(settings, field)
        if value is None or (isinstance(value, SecretStr) and field not in secrets):
            continue
        env[PREFIX + field.upper()] = _written(value)
    return env


def _written(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, str):
        return value
    return json.dumps(value)

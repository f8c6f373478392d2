"""Logs that never show a secret; health that says what is wrong."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import httpx
import pytest
from prometheus_client import Counter
from starlette.applications import Starlette

from core.errors import SetupError, Unavailable
from core.settings import Settings
from core.telemetry import new_registry, open_tracer, ops_routes, redact, redact_text, serve_ops
from tests.fixtures.ports import free_port_base

SECRETS = {
    "key": "bw_01jd3k_Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6",
    "session": "Cookie: bailiwick_session=Zm9vYmFyYmF6; theme=dark",
    "bearer": "Authorization: Bearer abcdef0123456789",
    "model key": "using sk-proj-abcdefghijklmnop",
    "dsn": "postgresql://bailiwick_app:Zm9vYmFyYmF6@db.example:5432/x",
    "repr": "{'user': 'mia', 'password': 'Zm9vYmFyYmF6'}",
    "query": "POST /login?token=Zm9vYmFyYmF6&next=/chat",
}
SHOWN = ("Zm9vYmFyYmF6", "abcdef0123456789", "abcdefghijklmnop")


@pytest.mark.parametrize("text", SECRETS.values(), ids=SECRETS.keys())
def test_a_secret_is_hidden_by_its_form_wherever_it_stands(text: str) -> None:
    hidden = redact_text(text)
    assert "***" in hidden
    assert not any(secret in hidden for secret in SHOWN)


def test_a_secret_is_hidden_by_its_name_at_any_depth_and_other_fields_are_kept() -> None:
    shown = {"run_id": "run_1", "tokens_in": 7, "idempotency_key": "row-1", "at": [1.5, None, True]}
    hidden = redact({**shown, "a": [{"Set-Cookie": "x=1", "client_secret": ["s"], "api-key": "k", "token": 9}]})
    assert hidden == {
        **shown,
        "a": [{"Set-Cookie": "***", "client_secret": "***", "api-key": "***", "token": "***"}],
    }


def test_an_endless_value_is_cut() -> None:
    nested: list[object] = []
    nested.append(nested)
    assert "…" in json.dumps(redact(nested), ensure_ascii=False)
    assert len(redact_text("x" * 1_000_000)) < 21_000


WRITER = """
import logging, structlog
from core.settings import Settings
from core.telemetry import configure_logging
configure_logging(Settings(log_format={form!r}), "worker")
structlog.contextvars.bind_contextvars(request_id="req_1")
log = structlog.get_logger("ours")
log.debug("quiet")
log.info("started", password="Zm9vYmFyYmF6", slots=3)
logging.getLogger("theirs").warning("dsn %s", "redis://:Zm9vYmFyYmF6@host/0")
try:
    token = "Zm9vYmFyYmF6"
    raise ValueError("password=Zm9vYmFyYmF6")
except ValueError:
    log.exception("broke")
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_our_lines_and_those_of_libraries_go_through_the_same_filter(form: str) -> None:
    command = [sys.executable, "-c", WRITER.format(form=form)]
    written = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert not any(secret in written for secret in SHOWN)
    assert "quiet" not in written
    assert written.count("req_1") == 3
    if form == "json":
        ours, theirs, broken = (json.loads(line) for line in written.splitlines())
        assert (ours["event"], ours["slots"], ours["process"], ours["level"]) == ("started", 3, "worker", "info")
        assert (theirs["event"], theirs["logger"]) == ("dsn redis://:***@host/0", "theirs")
        assert "ValueError" in broken["exception"]


async def test_readiness_names_what_fails_and_recovers_and_health_does_not_depend_on_it() -> None:
    answers = asyncio.Event()
    asked = 0

    async def fine() -> None:
        nonlocal asked
        asked += 1

    async def gone() -> None:
        raise Unavailable("Redis does not answer.")

    async def broken() -> None:
        raise RuntimeError("postgresql://user:password@host")

    registry = new_registry("test")
    Counter("things", "Things.", registry=registry).inc(3)
    port = free_port_base()
    checks = {"postgres": fine, "redis": gone, "graph": broken, "model": answers.wait}
    async with serve_ops(port, checks, registry), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        assert (await http.get("/healthz")).json() == {"status": "ok"}
        both = await asyncio.gather(http.get("/readyz"), http.get("/readyz"))
        assert [response.status_code for response in both] == [503, 503]
        assert both[0].json() == {
            "status": "not ready",
            "checks": {
                "postgres": "ok",
                "redis": "Redis does not answer.",
                "graph": "RuntimeError",
                "model": "no answer within 2 s",
            },
        }
        assert asked == 1
        metrics = (await http.get("/metrics")).text
        assert "things_total 3.0" in metrics
        assert 'process="test"' in metrics
        with pytest.raises(SetupError, match=f"Port {port}"):
            async with serve_ops(port, {}):
                pass
    losable = ops_routes({"postgres": fine}, registry, losable={"redis": gone})
    transport = httpx.ASGITransport(Starlette(routes=losable))
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
        degraded = await http.get("/readyz")
        assert (degraded.status_code, degraded.json()["status"]) == (200, "degraded")
        assert degraded.json()["checks"] == {"postgres": "ok", "redis": "Redis does not answer."}
    async with serve_ops(port, {"postgres": fine}), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        assert (await http.get("/readyz")).json() == {"status": "ready", "checks": {"postgres": "ok"}}


async def test_without_a_collector_spans_go_nowhere_and_with_one_they_reach_it() -> None:
    with open_tracer(Settings(), "web") as tracer, tracer.start_as_current_span("request") as span:
        assert not span.is_recording()
    received: asyncio.Queue[bytes] = asyncio.Queue()

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        received.put_nowait(head.split(b"\r\n")[0] + await reader.readexactly(length))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    def trace(endpoint: str) -> None:
        with open_tracer(Settings(otlp_endpoint=endpoint), "web") as tracer:
            tracer.start_span("request").end()

    server = await asyncio.start_server(collect, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await asyncio.to_thread(trace, f"http://127.0.0.1:{port}")
        async with asyncio.timeout(10):
            request = await received.get()
    assert request.startswith(b"POST /v1/traces ")

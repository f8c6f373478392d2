"""The demo services as a process of their own, over the network."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx
import pytest

from core.embedded.process import Reaper
from core.settings import Port, Settings
from tests.fixtures.ports import free_port_base
from tests.fixtures.serving import serving

IDENTITY = {"reference": "run_1", "application_id": "7", "age": 40.5}


@pytest.fixture
def demo_settings(tmp_path: Path) -> Settings:
    """An installation of which only the demo services run."""
    return Settings(home=tmp_path / "home", port_base=free_port_base())


async def test_effects_and_feed_survive_a_kill_and_no_key_acts_twice(demo_settings: Settings, reaper: Reaper) -> None:
    url = f"http://127.0.0.1:{demo_settings.port(Port.DEMO)}"
    key = {"Idempotency-Key": "run_1:1"}
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
        async with serving(demo_settings, "core.demo.services", Port.DEMO, reaper) as process:
            first = await http.post("/identity/verify", json=IDENTITY, headers=key)
            assert (first.status_code, first.json()) == (200, {"verified": True, "concerns": []})
            added = await http.post("/feed/entries", json={"title": "New", "text": "Rule"}, headers=key)
            assert added.status_code == 201
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()
        async with serving(demo_settings, "core.demo.services", Port.DEMO, reaper):
            again = await http.post("/identity/verify", json=IDENTITY, headers=key)
            assert again.json() == first.json()
            effects = (await http.get("/effects")).json()["identity"]
            assert (effects["calls"], effects["effects"], effects["duplicated_effects"]) == (2, 1, 0)
            feed = await http.get("/feed")
            assert feed.json()["items"][0]["title"] == "New"
            unchanged = await http.get("/feed", headers={"If-None-Match": feed.headers["ETag"]})
            assert (unchanged.status_code, unchanged.content) == (304, b"")
            assert unchanged.headers["ETag"] == feed.headers["ETag"]


async def test_bad_requests_are_refused_with_a_reason_and_have_no_effect(
    demo_settings: Settings, reaper: Reaper
) -> None:
    url = f"http://127.0.0.1:{demo_settings.port(Port.DEMO)}"
    async with (
        serving(demo_settings, "core.demo.services", Port.DEMO, reaper),
        httpx.AsyncClient(base_url=url, trust_env=False) as http,
    ):
        without_key = await http.post("/identity/verify", json=IDENTITY)
        assert without_key.status_code == 400
        assert "Idempotency-Key" in without_key.json()["error"]
        for body in ("{", "[]", '{"reference": "run_1"}', '{"reference":"r","application_id":"1","age":1e999}'):
            refused = await http.post("/identity/verify", content=body, headers={"Idempotency-Key": "k"})
            assert refused.status_code == 422, body
        huge = await http.post("/identity/verify", content=b" " * 70_000, headers={"Idempotency-Key": "k"})
        assert huge.status_code == 413
        assert (await http.get("/effects")).json() == {}
        metrics = (await http.get("/metrics")).text
        assert 'demo_requests_total{route="/identity/verify",status="422"} 4.0' in metrics

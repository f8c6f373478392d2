"""``bailiwick runs`` and ``bailiwick audit`` on a real installation: what ran is told, and what was tampered with."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner, Result

from core.cli import app
from core.db.pool import Row, Transaction
from core.db.queries import Query
from core.embedded.environment import environment_for
from core.ids import WorkerId
from core.runs.history import SQL, history
from core.runs.model import Cause, RunRequest, RunState
from core.settings import Settings
from core.tenancy import Policy
from tests.fixtures.workers import Site, site_in, working

SECRETS = ("database_app_url", "redis_url", "secret_key", "graph_password")


async def bailiwick(settings: Settings, *words: str) -> Result:
    """What the command line answers, on a wide terminal."""
    env = environment_for(settings, secrets=SECRETS) | {"COLUMNS": "200"}
    return await asyncio.to_thread(CliRunner().invoke, app, list(words), env=env)


async def told(settings: Settings, *words: str) -> Any:
    """The same as JSON; the command succeeds."""
    result = await bailiwick(settings, *words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


async def waited_for(site: Site, log: str) -> str:
    """A run that waited for a timer, then for an event, and ended."""
    run, _ = await site.platform.runs.submit(
        site.admin, RunRequest("sample-waits", {"log": log, "number": 3, "sleep_s": 3.0})
    )

    async def woken() -> bool | None:
        return bool(await site.platform.queue.wake_due()) or None

    async with working(site):
        await site.runs_until([run], lambda run: run.cause is Cause.TIMER)  # parked: else its time may come before that
        await site.until(woken)
        await site.runs_until([run], lambda run: run.cause is Cause.EVENT)
        assert await site.platform.runs.send_event(site.admin, "go", "3", {"x": 5})
        await site.ended([run])
    return run.run_id


async def test_a_run_is_told_as_a_timeline_of_waits_with_causes_and_steps_and_never_with_its_content(
    settings: Settings, tmp_path: Path
) -> None:
    log = str(tmp_path / "effects")
    async with site_in(settings) as site:
        run_id = await waited_for(site, log)
        (parked,) = await site.platform.runs.submit_many(site.admin, [RunRequest("sample-plain", {"log": log})])
        found = await told(site.settings, "runs", "show", run_id)
        assert [entry["name"] for entry in found["timeline"] if entry["phase"] not in {"step", "slot"}] == [
            "queued",
            "timer",
            "queued",
            "event",
            "queued",
            "succeeded",
        ]
        steps = [entry["attempt"] for entry in found["timeline"] if entry["phase"] == "step"]
        assert (steps[0]["step"], steps[0]["name"], steps[0]["state"]) == (1, "effect", "done")
        assert {step["kind"] for step in steps} == {"step", "timer", "event"}
        assert found["waited_s"]["timer"] >= 0.05
        assert sum(entry["waited"].get("event", 0) for entry in found["timeline"]) == pytest.approx(
            found["waited_s"]["event"], abs=0.01
        )
        text = (await bailiwick(site.settings, "runs", "show", run_id, "--tenant", "bank")).stdout
        assert all(word in text for word in ("waits", "timer", "event", "1 effect", "succeeded", "of $0.10"))
        assert "effects" not in text + json.dumps(found)  # the input
        foreign = await bailiwick(site.settings, "runs", "show", run_id, "--tenant", "other")
        assert getattr(foreign.exception, "code", None) == "not_found"

        queued = await told(site.settings, "runs", "show", parked.run_id)
        assert (queued["run"]["state"], [entry["ended"] for entry in queued["timeline"]]) == ("queued", [None])
        lines = await told(site.settings, "runs", "list", "--tenant", "bank")
        assert [line["run_id"] for line in lines] == [parked.run_id, run_id]
        assert [line["state"] for line in await told(site.settings, "runs", "list", "--state", "succeeded")] == [
            RunState.SUCCEEDED
        ]
        assert run_id in (await bailiwick(site.settings, "runs", "list")).stdout


async def test_a_step_that_begins_while_its_run_is_read_is_told_with_its_name(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site_in(settings) as site:
        run, _ = await site.platform.runs.submit(
            site.admin, RunRequest("sample-plain", {"log": str(tmp_path / "effects")})
        )
        fetch = Transaction.fetch

        async def overtaken(tx: Transaction, query: Query, *args: object) -> list[Row]:
            if query == SQL["transition_rows"]:
                monkeypatch.undo()
                async with working(site):
                    await site.ended([run])
            return await fetch(tx, query, *args)

        monkeypatch.setattr(Transaction, "fetch", overtaken)
        found = await history(site.platform.db, site.admin, run.run_id, site.platform.clock.now())
        named = [one.step for one in found.transitions if one.step is not None]
        assert named
        assert set(named) <= {attempt.step for attempt in found.attempts}


async def test_the_audit_of_every_tenant_is_checked_and_a_broken_one_is_named(
    settings: Settings, owner_dsn: str, tmp_path: Path
) -> None:
    async with site_in(settings) as site:
        for number in range(4):
            await site.platform.audit.append(site.admin, "test.act", f"thing:{number}")
        heads = tmp_path / "heads.json"
        kept = await told(site.settings, "audit", "head")
        heads.write_text(json.dumps(kept))
        assert set(kept["heads"]) == {"bank", "platform"}
        await site.platform.audit.append(site.admin, "test.act", "thing:unsealed")
        whole = await told(site.settings, "audit", "verify", "--against", str(heads))
        bank = next(chain for chain in whole["chains"] if chain["tenant_id"] == "bank")
        assert (bank["fitting"], bank["unsealed"], bank["compared"]) == (kept["heads"]["bank"]["seq"], 1, True)
        assert (bank["head"], whole["ok"]) == (kept["heads"]["bank"], True)

        owner = await asyncpg.connect(owner_dsn)
        await owner.execute("update audit set actor = 'nobody' where subject = 'thing:2'")
        await owner.close()
        broken = await bailiwick(site.settings, "audit", "verify")
        assert broken.exit_code == 1
        (line,) = [line for line in broken.stdout.splitlines() if "✗" in line]
        assert all(word in line for word in ("bank", "changed", "nobody", "test.act", "thing:2"))
        assert (await bailiwick(site.settings, "audit", "verify", "--tenant", "platform")).exit_code == 0
        assert (await bailiwick(site.settings, "audit", "verify", "--json")).exit_code == 1

        heads.write_text("{}")
        nonsense = await bailiwick(site.settings, "audit", "verify", "--against", str(heads))
        assert getattr(nonsense.exception, "code", None) == "invalid_input"


async def test_whoever_operates_the_machine_acts_on_the_runs_of_one_tenant(settings: Settings, tmp_path: Path) -> None:
    async with site_in(settings) as site:
        requests = [RunRequest("sample-plain", {"log": str(tmp_path / "effects")}) for _ in range(3)]
        runs = await site.platform.runs.submit_many(site.admin, requests)
        one = await bailiwick(site.settings, "runs", "pause", runs[0].run_id, "--tenant", "bank")
        assert one.output.strip() == f"{runs[0].run_id} is waiting now."
        looked = await bailiwick(site.settings, "runs", "cancel", "--tenant", "bank", "--state", "queued")
        assert "cancel 2 runs: 2 queued" in looked.output
        assert "Nothing was done." in looked.output
        done = await bailiwick(site.settings, "runs", "cancel", "--tenant", "bank", "--state", "queued", "--yes")
        assert "cancel done to 2 of 2 runs, 0 left alone." in done.output
        states = [(await site.platform.runs.get(site.admin, run.run_id)).state for run in runs]
        assert states == [RunState.WAITING, RunState.CANCELLED, RunState.CANCELLED]
        foreign = await bailiwick(site.settings, "runs", "resume", runs[0].run_id, "--tenant", "platform")
        assert foreign.exit_code != 0
        many = await bailiwick(site.settings, "runs", "cancel", "--yes")
        assert (many.exit_code, "Say of which tenant" in many.output) == (2, True)
        acts = [entry.actor for entry in await site.platform.audit.recent(site.admin) if entry.act.startswith("run.")]
        assert acts == ["system:cli"] * 3


async def test_whoever_operates_the_machine_retries_forks_and_funds_a_run_without_naming_its_tenant(
    settings: Settings, tmp_path: Path
) -> None:
    log, document = str(tmp_path / "effects"), tmp_path / "input.json"
    async with site_in(settings) as site:
        request = RunRequest("sample-plain", {"log": log, "fail": True})
        run, _ = await site.platform.runs.submit(site.admin, request)
        async with working(site):
            await site.ended([run])
        document.write_text(json.dumps({"log": log}))
        fork = ("runs", "fork", run.run_id, "--from-step", "2", "--input", str(document), "--key", "once")
        made = await told(site.settings, *fork)
        assert (made["forked_from"], made["state"]) == (run.run_id, "queued")
        assert (await told(site.settings, *fork))["run_id"] == made["run_id"]
        assert (await site.platform.runs.get(site.admin, made["run_id"])).input["log"] == log
        again = await told(site.settings, "runs", "retry", run.run_id, "--from-step", "1")
        assert again["state"] == "queued"
        async with working(site):
            await site.runs_until([run], lambda seen: seen.state is RunState.FAILED)
            await site.ended([await site.platform.runs.get(site.admin, made["run_id"])])
        keys = Path(log).read_text().split()
        assert sorted(keys) == sorted([f"{run.run_id}/1", f"{run.run_id}/1/1", f"{made['run_id']}/2"])

        funded = await told(site.settings, "runs", "budget", run.run_id, "--to", "0.05")
        assert funded["budget_microusd"] == 50_000
        text = await bailiwick(site.settings, "runs", "budget", run.run_id, "--to", "0.08", "--tenant", "bank")
        assert text.output.strip() == f"{run.run_id} may spend $0.08, of which $0.00 are spent. It is failed now."
        document.write_text("[1]")
        for code, *words in (
            ("invalid_input", "budget", run.run_id, "--to", "a lot"),
            ("invalid_input", "fork", run.run_id, "--from-step", "2", "--input", str(document)),
            ("invalid_input", "retry", run.run_id, "--from-step", "9"),
            ("conflict", "replay", run.run_id),
            ("not_found", "replay", "run_nobody"),
        ):
            refused = await bailiwick(site.settings, "runs", *words)
            assert getattr(refused.exception, "code", None) == code, words


async def test_a_dead_run_is_listed_and_replayed(settings: Settings, tmp_path: Path) -> None:
    async with site_in(settings, Policy(max_recoveries=1)) as site:
        run, _ = await site.platform.runs.submit(
            site.admin, RunRequest("sample-plain", {"log": str(tmp_path / "effects")})
        )
        for _ in range(2):
            await site.platform.queue.heartbeat(WorkerId("dies"), 1)
            (claim,) = await site.platform.queue.claim(WorkerId("dies"), 1)
            why = {"code": "internal", "message": "It broke."}
            assert await site.platform.queue.give_back(claim.held, why) is not None
        (dead,) = await told(site.settings, "runs", "list", "--state", "dead")
        assert dead["run_id"] == run.run_id
        replayed = await bailiwick(site.settings, "runs", "replay", run.run_id)
        assert replayed.output.strip() == f"{run.run_id} is queued now."
        assert await told(site.settings, "runs", "list", "--state", "dead") == []
        async with working(site):
            assert [one.state for one in await site.ended([run])] == [RunState.SUCCEEDED]

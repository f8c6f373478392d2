"""The README's commands and its workflow, executed as they stand there."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from core.settings import Port
from tests.fixtures.data import real_data
from tests.fixtures.installation import MAKE_UP, ROOT, Installation, readme_blocks, until


def key_of(installation: Installation, tenant: str) -> str:
    """The tenant's API key, as ``make up`` keeps it."""
    keys: dict[str, str] = json.loads((installation.settings.home / "demo-keys.json").read_text("utf-8"))
    return keys[tenant]


def command_with(words: str) -> str:
    """The one command of the README's shell blocks that contains these words."""
    joined = "\n".join(readme_blocks("sh")).replace("\\\n", " ")
    (found,) = [line.partition("#")[0].strip() for line in joined.splitlines() if words in line]
    return found


def run(installation: Installation, command: str, **env: str) -> str:
    """What a command of the README prints, moved to the ports of this installation."""
    moved = command.replace("127.0.0.1:8100", f"127.0.0.1:{installation.settings.port(Port.WEB)}")
    done = subprocess.run(
        moved, shell=True, env=installation.env | env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=90
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_make_knows_every_target_that_the_readme_names() -> None:
    targets = set(re.findall(r"^make (\w+)", "\n".join(readme_blocks("sh")), re.MULTILINE))
    assert targets == {"up", "test"}
    # `make up` is executed: it is how the installation of these tests was started (tests/fixtures/installation.py).
    # `make test` is not: it is what runs this test, and would not come to an end.
    assert MAKE_UP == ("make", "up")
    subprocess.run(["make", "--dry-run", "test"], cwd=ROOT, check=True, capture_output=True)


def test_the_workflow_of_the_readme_is_submitted_reviewed_and_ends(installation: Installation) -> None:
    key = key_of(installation, "regional-bank")
    submitted = json.loads(run(installation, command_with("/api/v1/runs"), BAILIWICK_KEY=key))
    assert submitted["workflow"] == "pay-invoice"
    again = json.loads(run(installation, command_with("/api/v1/runs"), BAILIWICK_KEY=key))
    assert again["run_id"] == submitted["run_id"]
    with closing(installation.browser("ravi@regional-bank.example")) as ravi:

        def asked() -> list[dict[str, str]]:
            found = ravi.get("/api/v1/reviews").raise_for_status().json()["reviews"]
            return [review for review in found if review["run_id"] == submitted["run_id"]]

        until(asked, 30)
        decision = {"verdict": "approve", "comment": "as agreed"}
        ravi.post(f"/api/v1/reviews/{asked()[0]['review_id']}/decision", json=decision).raise_for_status()

        def ended() -> dict[str, object] | None:
            found: dict[str, object] = ravi.get(f"/api/v1/runs/{submitted['run_id']}").raise_for_status().json()
            return None if found["state"] in {"queued", "running", "waiting"} else found

        until(ended, 30)
        paid = ended()
    assert paid is not None
    assert (paid["state"], paid["outcome"]) == ("succeeded", "paid")


def test_the_webhook_of_the_readme_is_signed_by_hand_and_starts_one_run(installation: Installation) -> None:
    with closing(installation.browser("ada@regional-bank.example")) as ada:
        trigger = {"kind": "webhook", "name": "Contracts", "workflow": "event-received"}
        made = ada.post("/api/v1/triggers", json=trigger).raise_for_status().json()
        (call,) = [block for block in readme_blocks("sh") if "webhook-signature" in block]
        given = {"HOOK": made["trigger"]["hook"], "SECRET": made["secret"]}
        first, again = [json.loads(run(installation, call, **given)) for _ in range(2)]
        assert (first["new"], again) == (True, {"run_id": first["run_id"], "new": False})

        def seen() -> dict[str, Any]:
            found: dict[str, Any] = ada.get(f"/api/v1/runs/{first['run_id']}").raise_for_status().json()
            return found

        until(lambda: seen()["state"] == "succeeded", 30)
        ended = seen()
    assert (ended["source"], ended["outcome"]) == ("trigger", "received")
    assert ended["output"] == {"event": "Contracts", "key": "msg_1", "payload": '{"contract": 17}'}


def test_the_demo_command_of_the_readme_ends_with_one_line_of_json(installation: Installation, tmp_path: Path) -> None:
    given = command_with("demo loans")
    lines = real_data("loans/credit-card-applications.csv").read_text("utf-8").splitlines()
    small = tmp_path / "applications.csv"
    small.write_text("\n".join(lines[:26]) + "\n", "utf-8")
    words = shlex.split(given)
    words[words.index("--file") + 1] = str(small)
    words[0] = str(Path(sys.executable).with_name("bailiwick"))
    summary = json.loads(run(installation, shlex.join(words)).strip().splitlines()[-1])
    assert summary["submitted"] == 25
    assert summary["lost"] == summary["duplicated_effects"] == summary["failed"] == 0
    assert summary["succeeded"] + summary["declined"] + summary["in_review"] == 25

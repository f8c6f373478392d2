"""The page "Write a workflow", followed from its first line to its last."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.acceptance.test_readme import key_of, run
from tests.fixtures.installation import MAKE_UP, ROOT, WRITING, Installation, code_blocks, until


def commands() -> list[str]:
    """The page's commands, in order; one that goes on for several lines is one."""
    joined = "".join(code_blocks(WRITING, "sh")).replace("\\\n", " ")
    return joined.strip().splitlines()


def test_the_workflow_of_the_page_and_its_test_pass_without_a_server(tmp_path: Path) -> None:
    make_folder, test, *_ = [command.replace("~", str(tmp_path)) for command in commands()]
    subprocess.run(make_folder, shell=True, check=True)
    files = ["limits.py", "test_limits.py", "test_children.py", "test_change.py", "trips.py", "test_trips.py"]
    for name, block in zip(files, code_blocks(WRITING, "python"), strict=True):
        (tmp_path / "limits" / name).write_text(block, "utf-8")
    test = test.replace(".venv/bin/python", sys.executable)
    done = subprocess.run(test, shell=True, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 passed" in done.stdout
    mypy = [sys.executable, "-m", "mypy", "--config-file", f"{ROOT}/pyproject.toml", f"--cache-dir={ROOT}/.mypy_cache"]
    typed = {**os.environ, "MYPYPATH": str(ROOT)}
    checked = subprocess.run(
        [*mypy, *files], cwd=tmp_path / "limits", env=typed, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_workflow_of_the_page_runs_in_make_up(installation: Installation) -> None:
    up, key, submit, show = commands()[2:]
    path, modules, *make = up.split(" ")
    assert (path, tuple(make)) == ("PYTHONPATH=~/limits", MAKE_UP)
    named = json.loads(modules.removeprefix("BAILIWICK_WORKFLOW_MODULES='").removesuffix("'"))
    assert named == ["limits"]
    assert set(named) <= set(json.loads(installation.env["BAILIWICK_WORKFLOW_MODULES"]))
    key = key.replace(".bailiwick/", f"{installation.settings.home}/").replace(".venv/bin/python", sys.executable)
    told = run(installation, f"{key}; echo $BAILIWICK_KEY").strip()
    assert told == key_of(installation, "regional-bank")
    run_id = json.loads(run(installation, submit, BAILIWICK_KEY=told))["run_id"]
    with closing(installation.browser("ravi@regional-bank.example")) as ravi:

        def asked() -> list[dict[str, str]]:
            found = ravi.get("/api/v1/reviews").raise_for_status().json()["reviews"]
            return [review for review in found if review["run_id"] == run_id]

        until(asked, 30)
        decision = {"verdict": "approve", "comment": "pays in time"}
        ravi.post(f"/api/v1/reviews/{asked()[0]['review_id']}/decision", json=decision).raise_for_status()

        def seen() -> dict[str, Any]:
            found: dict[str, Any] = ravi.get(f"/api/v1/runs/{run_id}").raise_for_status().json()
            return found

        until(lambda: seen()["state"] in {"succeeded", "failed", "cancelled"}, 30)
        ended = seen()
    assert (ended["state"], ended["outcome"], ended["output"]["limit_usd"]) == ("succeeded", "raised", 20_000)
    bailiwick = str(Path(sys.executable).with_name("bailiwick"))
    show = show.replace(".venv/bin/bailiwick", bailiwick).replace("RUN_ID", run_id)
    shown, followed = run(installation, show), run(installation, show.replace("show", "follow"))
    assert [word for word in ("pull_score", "review: limits", "sleep 2 s", "record") if word not in shown] == []
    assert [word for word in ("review: asked", "review: decide", "succeeded") if word not in followed] == []

"""Rules about the text of the sources. An exception is listed here, with its reason, or it is a mistake."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from http import HTTPStatus

from core.settings import Settings
from tests.architecture.tree import ROOT, dotted, imported, modules, name_of, sources, texts, tracked

MAX_LINES = 400

SQL = re.compile(
    r"\bselect\b.{1,2000}?\bfrom\s+[\w.\"]+|^\s*select\s+[\w.]+\(|\binsert\s+into\s+\w|\bupdate\s+[\w.]+\s+set\s|"
    r"\bdelete\s+from\s+\w|^\s*with\s+\w+\s*(\([\w, ]*\)\s*)?as\s*\(|"
    r"\b(create|alter|drop|truncate)\s+(table|index|role|function|schema|database|policy|view|type|extension)\s+\w|"
    r"^\s*(listen|notify|vacuum|analyze|grant|revoke)\s+\w+(\s+on\s|\s*$)",
    re.IGNORECASE | re.DOTALL,
)
CYPHER = re.compile(r"\b(optional\s+)?(match|merge)\s*\(\s*\w*\s*[:){]|\bdetach\s+delete\b", re.IGNORECASE)

ENVIRONMENT = {"os.environ", "os.environb", "os.getenv"}
ENVIRONMENT_ALLOWED = {
    # Writes the environment of the children it starts; reads no setting from its own.
    "core/embedded/environment.py",
}
CLOCK_ALLOWED = {"core/clock.py"}
STATUS_ALLOWED = {
    "chat_app/problems.py": "the one place where errors become HTTP answers",
    "chat_app/session.py": "guards Chainlit, whose page reads problems of its own form",
    "ops_dashboard/server.py": "another process, which only says that it does not serve a host",
    "core/demo/services/app.py": "stands for servers of other companies",
    "core/telemetry.py": "readiness, for probes: a state of the process, not an answer to a caller",
    "core/models/offline/server.py": "stands for a server of another company, with that company's errors",
    "core/models/offline/wire.py": "the same",
}
ANSWERS = re.compile(r"(Response|HTTPException|HTTPError)$")


def test_no_file_is_longer_than_400_lines() -> None:
    files = [path for path in sources(".py", ".sql", ".cypher", ".lua", tests=True) if path.name != "__init__.pyi"]
    lengths = {name_of(path): len(path.read_text("utf-8").splitlines()) for path in files}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_no_python_file_holds_sql_or_cypher() -> None:
    found = [
        f"{name}:{line}: {text.strip()[:60]}"
        for name, tree in modules()
        for line, text in texts(tree)
        if SQL.search(text) or CYPHER.search(text)
    ]
    assert found == []


def test_the_search_for_sql_sees_every_kind_of_statement_and_no_prose() -> None:
    statements = (
        "select run_id from runs",
        "SELECT pg_notify($1, $2)",
        "\n  insert into runs values ($1)",
        "update runs set state = $1",
        "delete from waits",
        "with due as (select 1) table due",
        "create table x (y int)",
        "listen channel",
    )
    assert all(SQL.search(text) for text in statements)
    assert CYPHER.search("MATCH (n:Entity {tenant_id: $t}) RETURN n")
    prose = (
        "Select a tenant.",
        "update the settings",
        "Listen until told to stop",
        "with care",
        "Delete this schedule?",
    )
    assert not [text for text in prose if SQL.search(text) or CYPHER.search(text)]


def test_only_the_settings_read_the_environment() -> None:
    readers = {name for name, tree in modules() if _reads_environment(tree)}
    assert readers - ENVIRONMENT_ALLOWED == set()


def test_only_the_clock_asks_what_time_it_is() -> None:
    calls = {"datetime.now", "datetime.utcnow", "datetime.today", "date.today", "time.time", "time.time_ns"}
    readers = {
        f"{name}:{node.lineno}"
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and any(dotted(node.func) == call or dotted(node.func).endswith(f".{call}") for call in calls)
    }
    assert {reader for reader in readers if reader.split(":")[0] not in CLOCK_ALLOWED} == set()


def test_http_errors_are_given_their_number_in_one_place() -> None:
    found = [
        f"{name}:{node.lineno}"
        for name, tree in modules()
        if name not in STATUS_ALLOWED
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and _answers_with_an_error(node)
    ]
    assert found == []


def test_nothing_is_pickled() -> None:
    users = {
        name
        for name, tree in modules()
        if {"pickle", "cloudpickle", "dill", "jsonpickle", "shelve", "marshal"}
        & {module.split(".")[0] for module in imported(tree)}
    }
    assert users == set()


def test_tests_use_real_servers_and_wait_for_conditions() -> None:
    doubles = {name for name, tree in modules(tests=True) if any("mock" in module for module in imported(tree))}
    sleepers = [
        f"{name}:{line}"
        for name, tree in modules(tests=True)
        if name.startswith("tests/")
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and function.name.startswith("test_")
        for line in _sleeps(function)
    ]
    assert (doubles, sleepers) == (set(), [])


def test_nothing_names_a_machine_or_a_registry() -> None:
    # Each pattern hides a letter, so that this file does not match itself.
    places = r"/[w]ork/|/[r]oot/|/[h]ome/[a-z]\w*/|/[U]sers/\w+/"
    hosts = r"py[p]i\.org|py[t]honhosted\.org|registry\.[n]pmjs\.org|[c]rates\.io|repo1?\.[m]aven\.|deb\.[d]ebian\.org"
    pattern = re.compile(f"{places}|{hosts}", re.IGNORECASE)
    found = []
    for path in tracked():
        try:
            lines = path.read_text("utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [f"{name_of(path)}:{number}" for number, line in enumerate(lines, 1) if pattern.search(line)]
    assert found == []


def test_every_setting_is_described_and_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    fields = Settings.model_fields
    assert [name for name, field in fields.items() if not field.description] == []
    missing = [name for name in fields if f"BAILIWICK_{name.upper()}" not in readme]
    assert missing == []


def test_the_import_contracts_hold() -> None:
    run = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_room_never_imports_the_store_of_another() -> None:
    found = [
        f"{name} imports {module}"
        for name, tree in modules()
        for module in sorted(imported(tree))
        if (store := re.fullmatch(r"((?:core|memory)(?:\.\w+)*)\.\w*store", module))
        and not name.startswith(store[1].replace(".", "/") + "/")
    ]
    assert found == []


def _sleeps(node: ast.AST) -> Iterator[int]:
    """Lines that sleep for a while, outside a loop that waits for a condition and outside nested functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.While | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(child, ast.Call) and dotted(child.func) in {"time.sleep", "asyncio.sleep"}:
            first = child.args[0] if child.args else None
            if not (isinstance(first, ast.Constant) and first.value == 0):
                yield child.lineno
        yield from _sleeps(child)


def _reads_environment(tree: ast.Module) -> bool:
    """Anything but setting a variable, which is how some libraries are configured."""
    written = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store)
    }
    return any(
        (isinstance(node, ast.Attribute) and dotted(node) in ENVIRONMENT and id(node) not in written)
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and f"os.{node.names[0].name}" in ENVIRONMENT)
        for node in ast.walk(tree)
    )


def _answers_with_an_error(call: ast.Call) -> bool:
    given = [*(keyword.value for keyword in call.keywords if keyword.arg in {"status_code", "status"})]
    if ANSWERS.search(dotted(call.func)):
        given += call.args
    return any(_is_error(node) for node in given)


def _is_error(node: ast.expr) -> bool:
    if isinstance(node, ast.IfExp):
        return _is_error(node.body) or _is_error(node.orelse)
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int) and 400 <= node.value < 600
    name = dotted(node)
    if name.startswith("HTTPStatus."):
        return HTTPStatus[name.split(".")[1]] >= 400
    return bool(re.search(r"HTTP_[45]\d\d_", name))

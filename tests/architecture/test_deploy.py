"""What deploy/ says about the product is true: processes, ports, settings, secrets, metrics, alerts.

Neither Docker nor a cluster is needed: the files are read, and compared with the code that they speak of.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.embedded.programs import WHOLE, Program
from core.embedded.secrets import role_password
from core.settings import APP_ROLE, LOCK_ROLE, Port, Settings
from scheduler.worker import DRAIN_S
from tests.architecture.tree import ROOT, modules, name_of, tracked

DEPLOY = ROOT / "deploy"
BASE = DEPLOY / "kubernetes" / "base"
PROGRAMS = {program.name: program for program in WHOLE.platform}
SECRETS = {name: program.secrets for name, program in PROGRAMS.items()} | {
    command.name: command.secrets for command in WHOLE.prepare
}
FIELDS = {f"BAILIWICK_{field.upper()}": field for field in Settings.model_fields}
HIDDEN = {field for secrets in SECRETS.values() for field in secrets}

METRIC_KINDS = {"Counter": "_total", "Gauge": "", "Histogram": "_bucket", "gauge": ""}
METRIC = re.compile(r"\bbailiwick_\w+")
RECORDED = re.compile(r"\bbailiwick:[\w:]+")


def files(*suffixes: str) -> list[Path]:
    found = [path for path in tracked() if path.is_relative_to(DEPLOY) and path.suffix in suffixes]
    assert found
    return found


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text("utf-8")) if document]


def read(path: Path) -> dict[str, Any]:
    (document,) = documents(path)
    return document


def resources(kind: str) -> dict[str, dict[str, Any]]:
    """The base's objects of one kind, by the name without our prefix."""
    return {
        document["metadata"]["name"].removeprefix("bailiwick-"): document
        for path in sorted(BASE.glob("*.yaml"))
        for document in documents(path)
        if document["kind"] == kind
    }


@pytest.fixture(scope="module")
def secret_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What make-secrets writes: variables by file."""
    folder = tmp_path_factory.mktemp("deploy") / "secrets"
    subprocess.run([DEPLOY / "make-secrets", folder, "db.example:5432"], check=True, capture_output=True)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    return {
        path.stem: dict(line.split("=", 1) for line in path.read_text("utf-8").splitlines())
        for path in folder.iterdir()
    }


def starts(command: list[str]) -> str:
    """The module or ``bailiwick`` command that a container runs, by its name in the plan of ``up``."""
    if command[0] == "bailiwick":
        return command[1]
    assert command[:2] == ["python", "-m"], command
    assert importlib.util.find_spec(command[2]), f"there is no module {command[2]}"
    return next(name for name, program in PROGRAMS.items() if program.module == command[2])


def handed(names: list[str], secret_files: dict[str, dict[str, str]]) -> set[str]:
    """Fields of the secrets in these files."""
    return {FIELDS[variable] for name in names for variable in secret_files[name]}


def port_of(program: Program) -> int:
    return Settings(_env_file=None).model_copy(update={"port_base": 8100}).port(program.port)


# Files ----------------------------------------------------------------------------------------------------


def test_every_file_parses_and_every_variable_of_ours_is_a_setting() -> None:
    for path in files(".yaml"):
        assert documents(path), name_of(path)
    for path in files(".json"):
        json.loads(path.read_text("utf-8"))
    unknown = {
        f"{name_of(path)}: {variable}"
        for path in tracked()
        if path.is_relative_to(DEPLOY) and path.suffix != ".md"
        for variable in re.findall(r"\bBAILIWICK_\w+", path.read_text("utf-8"))
        if variable not in FIELDS
    }
    assert unknown == set()


def test_the_image_is_built_from_what_is_pinned_runs_as_nobody_and_writes_only_where_volumes_are() -> None:
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    instructions = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    assert sum("--require-hashes" in line for line in instructions) == 2
    assert [line for line in instructions if line.startswith("USER ")][-1] == "USER 10001:10001"
    assert f"http://127.0.0.1:{8100 + Port.WEB}/healthz" in next(line for line in instructions if "urlopen" in line)
    exposed = next(line for line in instructions if line.startswith("EXPOSE")).split()[1:]
    assert {int(port) for port in exposed} == {port_of(program) for program in PROGRAMS.values()}
    built = {line.split()[1] for line in instructions if re.match(r"COPY [a-z_.]+ ", line)}
    wheel = re.search(r"^packages = \[(.*)\]$", (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert wheel
    assert set(re.findall(r'"(\w+)"', wheel[1])) <= built
    allowed = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert {name for name in built | {"requirements.lock", "pyproject.toml"} if f"!{name}" not in allowed} <= {
        ".chainlit"
    }


def test_the_tools_that_build_the_image_are_all_in_the_lock_file() -> None:
    wanted = re.search(r"\^\((uv\|[\w|-]+)\)==", (DEPLOY / "Dockerfile").read_text("utf-8"))
    assert wanted
    pinned = set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements.lock").read_text("utf-8"), re.MULTILINE))
    assert set(wanted[1].split("|")) - pinned == set()


def test_the_made_secrets_are_those_that_the_migration_gives_to_the_roles(
    secret_files: dict[str, dict[str, str]],
) -> None:
    key = secret_files["common"]["BAILIWICK_SECRET_KEY"]
    app, lock = role_password(key, APP_ROLE), role_password(key, LOCK_ROLE)
    assert secret_files["common"]["BAILIWICK_DATABASE_APP_URL"] == (
        f"postgresql://{APP_ROLE}:{app}@db.example:5432/bailiwick"
    )
    assert secret_files["lock"]["BAILIWICK_DATABASE_LOCK_URL"] == (
        f"postgresql://{LOCK_ROLE}:{lock}@db.example:5432/bailiwick"
    )
    assert secret_files["migrate"]["BAILIWICK_SECRET_KEY"] == key
    owner = secret_files["postgres"]["POSTGRES_PASSWORD"]
    assert f":{owner}@" in secret_files["migrate"]["BAILIWICK_DATABASE_URL"]
    assert len({owner, key, app, lock, secret_files["redis"]["VALKEY_PASSWORD"]}) == 5


# Compose --------------------------------------------------------------------------------------------------


def test_compose_starts_every_process_with_its_own_secrets_and_publishes_web_and_dashboard_only(
    secret_files: dict[str, dict[str, str]],
) -> None:
    services = read(DEPLOY / "compose.yaml")["services"]
    ours = {name: service for name, service in services.items() if service["image"] == "bailiwick"}
    assert set(ours) == {*PROGRAMS, "migrate"}
    for name, service in ours.items():
        assert starts(service["command"]) == name
        names = [Path(file).stem for file in service["env_file"]]
        assert handed(names, secret_files) == set(SECRETS[name]), name
        assert not HIDDEN & {FIELDS[variable] for variable in service["environment"]}
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert {entry.split(":")[0] for entry in service["tmpfs"]} == {"/tmp", "/var/lib/bailiwick"}
    for name, program in PROGRAMS.items():
        assert f"127.0.0.1:{port_of(program)}/readyz" in str(services[name]["healthcheck"]["test"])
        assert services[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert all("healthcheck" in service for name, service in services.items() if name != "migrate")
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {
        name: [f"127.0.0.1:{port_of(PROGRAMS[name])}:{port_of(PROGRAMS[name])}"] for name in ("web", "dashboard")
    }
    assert "container_name" not in services["worker"]
    assert int(services["worker"]["stop_grace_period"].removesuffix("s")) > DRAIN_S


# Kubernetes -----------------------------------------------------------------------------------------------


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for kind in ("Deployment", "Job"):
        for name, document in resources(kind).items():
            yield name, document["spec"]["template"]["spec"]


def test_every_file_of_a_kustomization_exists_and_none_is_forgotten() -> None:
    found = sorted((DEPLOY / "kubernetes").rglob("kustomization.yaml"))
    assert {path.parent.name for path in found} == {"base", "staging", "production"}
    for path in found:
        kustomization = read(path)
        named = {*kustomization["resources"], *(p["path"] for p in kustomization.get("patches", []) if "path" in p)}
        assert [entry for entry in named if not (path.parent / entry).exists()] == []
        assert {file.name for file in path.parent.glob("*.yaml")} - named == {"kustomization.yaml"}


def test_every_patch_of_an_overlay_meets_an_object_of_the_base() -> None:
    for path in (DEPLOY / "kubernetes" / "overlays").rglob("kustomization.yaml"):
        for patch in read(path)["patches"]:
            if "path" in patch:
                target = read(path.parent / patch["path"])
                assert target["metadata"]["name"].removeprefix("bailiwick-") in resources(target["kind"])
                continue
            objects = resources(patch["target"]["kind"])
            wanted = patch["target"].get("name", "bailiwick").removeprefix("bailiwick-")
            for change in yaml.safe_load(patch["patch"]):
                place: Any = objects[wanted]
                for part in change["path"].strip("/").split("/"):
                    place = place[int(part) if part.isdigit() else part]


def test_every_pod_starts_a_process_of_ours_with_its_own_secrets_and_no_rights(
    secret_files: dict[str, dict[str, str]],
) -> None:
    assert {name for name, _ in pods()} == {*PROGRAMS, "migrate"}
    (config,) = resources("ConfigMap").values()
    assert not HIDDEN & {FIELDS[variable] for variable in config["data"]}
    for name, pod in pods():
        (container,) = pod["containers"]
        assert starts(container["command"]) == name
        references = [
            e["secretRef"]["name"].removeprefix("bailiwick-") for e in container["envFrom"] if "secretRef" in e
        ]
        assert handed(references, secret_files) == set(SECRETS[name]), name
        assert [e["configMapRef"]["name"] for e in container["envFrom"] if "configMapRef" in e] == [
            config["metadata"]["name"]
        ]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/tmp", "/var/lib/bailiwick"}
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]


def test_every_deployment_is_probed_where_it_listens_and_stands_on_several_machines() -> None:
    for name, document in resources("Deployment").items():
        spec = document["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        assert container["ports"] == [{"name": "http", "containerPort": port_of(PROGRAMS[name])}]
        probed = {probe: container[probe]["httpGet"] for probe in ("livenessProbe", "readinessProbe", "startupProbe")}
        assert probed == {
            "livenessProbe": {"path": "/healthz", "port": "http"},
            "readinessProbe": {"path": "/readyz", "port": "http"},
            "startupProbe": {"path": "/healthz", "port": "http"},
        }
        assert {"name": "BAILIWICK_BIND_HOST", "value": "0.0.0.0"} in container["env"]
        assert "podAntiAffinity" in spec["affinity"]
        selector = document["spec"]["selector"]["matchLabels"]
        assert selector.items() <= document["spec"]["template"]["metadata"]["labels"].items()
        if name in PROGRAMS and name != "dashboard":
            assert resources("PodDisruptionBudget")[name]["spec"]["selector"]["matchLabels"] == selector
    assert resources("Deployment")["web"]["spec"]["replicas"] >= 3
    assert resources("Deployment")["worker"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > DRAIN_S
    for name in ("web", "dashboard"):
        service = resources("Service")[name]["spec"]
        assert service["sessionAffinity"] == "ClientIP"
        assert [port["port"] for port in service["ports"]] == [port_of(PROGRAMS[name])]


def test_workers_scale_on_a_metric_of_ours_and_nothing_else_says_how_many_there_are() -> None:
    assert "replicas" not in resources("Deployment")["worker"]["spec"]
    scaled = resources("ScaledObject")["worker"]["spec"]
    assert scaled["scaleTargetRef"]["name"] == resources("Deployment")["worker"]["metadata"]["name"]
    (trigger,) = scaled["triggers"]
    assert set(METRIC.findall(trigger["metadata"]["query"])) <= exposed()
    slots = int(next(iter(resources("ConfigMap").values()))["data"]["BAILIWICK_WORKER_SLOTS"])
    assert int(trigger["metadata"]["threshold"]) < slots
    assert scaled["minReplicaCount"] >= 3


# Metrics --------------------------------------------------------------------------------------------------


def exposed() -> set[str]:
    """Names of the series that our processes show, read from where they are made."""
    names: set[str] = set()
    for module, tree in modules():
        if module.startswith(("core/models/offline/", "core/demo/")):
            continue
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
                continue
            first = node.args[0]
            if node.func.id in METRIC_KINDS and isinstance(first, ast.Constant) and isinstance(first.value, str):
                suffix = METRIC_KINDS[node.func.id]
                names.add(first.value.removesuffix("_total") + suffix)
    assert len(names) > 15
    return names


def rules() -> list[dict[str, Any]]:
    return [rule for group in read(DEPLOY / "prometheus" / "rules.yaml")["groups"] for rule in group["rules"]]


def unknown_in(expression: str) -> set[str]:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    return (set(METRIC.findall(expression)) - exposed()) | (set(RECORDED.findall(expression)) - recorded)


def test_alerts_and_the_grafana_dashboard_name_only_metrics_that_there_are() -> None:
    assert {
        rule.get("alert") or rule["record"]: unknown_in(rule["expr"]) for rule in rules() if unknown_in(rule["expr"])
    } == {}
    grafana = json.loads((DEPLOY / "grafana" / "bailiwick.json").read_text("utf-8"))
    expressions = [target["expr"] for panel in grafana["panels"] for target in panel.get("targets", [])]
    expressions += [variable["query"] for variable in grafana["templating"]["list"]]
    assert len(expressions) > 20
    assert {expression for expression in expressions if unknown_in(expression)} == set()
    cases = (DEPLOY / "prometheus" / "rules.test.yaml").read_text("utf-8")
    assert set(METRIC.findall(cases)) <= exposed()


def test_every_alert_waits_for_a_while_has_a_runbook_and_a_case_in_which_it_rings() -> None:
    alerts = [rule for rule in rules() if "alert" in rule]
    assert len({alert["alert"] for alert in alerts}) == len(alerts) > 7
    cases = (DEPLOY / "prometheus" / "rules.test.yaml").read_text("utf-8")
    for alert in alerts:
        assert re.fullmatch(r"\d+m", alert["for"])
        assert alert["labels"]["severity"] in {"page", "ticket"}
        assert alert["annotations"]["summary"]
        runbook = ROOT / alert["annotations"]["runbook_url"]
        text = runbook.read_text("utf-8")
        assert alert["alert"] in text
        assert ("## Look" in text, "## Do" in text) == (True, True)
        assert f'alertname="{alert["alert"]}"' in cases
    pages = {path.name for path in (DEPLOY / "runbooks").glob("*.md")}
    assert pages == {Path(alert["annotations"]["runbook_url"]).name for alert in alerts}


def test_runbooks_name_only_alerts_metrics_and_settings_that_there_are() -> None:
    alerts = {rule["alert"] for rule in rules() if "alert" in rule}
    for path in files(".md"):
        text = path.read_text("utf-8")
        assert set(re.findall(r"\*([A-Z][a-z]+[A-Z]\w+)\*", text)) <= alerts, name_of(path)
        assert unknown_in(text) == set(), name_of(path)
        assert {variable for variable in re.findall(r"BAILIWICK_\w+", text) if variable not in FIELDS} == set()

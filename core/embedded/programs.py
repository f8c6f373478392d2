"""The processes that ``bailiwick up`` starts, and the secret settings each of them is given."""

from __future__ import annotations

from dataclasses import dataclass

from core.settings import Port


@dataclass(frozen=True, slots=True)
class Program:
    """A process of ours: what to run, where it listens, which secret settings it needs."""

    name: str
    module: str
    port: Port
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Command:
    """A ``bailiwick`` command that prepares the data and ends."""

    name: str
    secrets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What ``up`` runs besides the embedded servers.

    ``helpers`` need no data; ``prepare`` makes the data ready; then come the ``platform`` and, beside it,
    ``introduce``, whose output is shown when all is healthy.
    """

    helpers: tuple[Program, ...]
    prepare: tuple[Command, ...]
    platform: tuple[Program, ...]
    introduce: Command


# Every process of the platform works on tenants' rows as the runtime role, and is woken over Redis.
_COMMON = ("database_app_url", "redis_url", "secret_key")
_MODELS_AND_MEMORY = ("model_api_key", "graph_password")

OFFLINE_MODEL = Program("model", "core.models.offline", Port.MODEL)
DEMO_SERVICES = Program("demo", "core.demo.services", Port.DEMO)
DEMO_WORK = "core.demo.work"
"""Module of the workflow that `bailiwick demo burst` submits."""

WHOLE = Plan(
    helpers=(OFFLINE_MODEL, DEMO_SERVICES),
    # Only this one acts as the owner.
    prepare=(Command("migrate", ("database_url", "secret_key")),),
    platform=(
        Program("web", "chat_app", Port.WEB, (*_COMMON, *_MODELS_AND_MEMORY)),
        Program("worker", "scheduler.worker", Port.WORKER, (*_COMMON, *_MODELS_AND_MEMORY)),
        Program("scheduler", "scheduler", Port.SCHEDULER, (*_COMMON, *_MODELS_AND_MEMORY, "database_lock_url")),
        Program("dashboard", "ops_dashboard", Port.DASHBOARD, _COMMON),
    ),
    introduce=Command("seed", _COMMON),
)

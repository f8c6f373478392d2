"""Configuration: everything that differs between two installations, read once from the environment.

Every field is set by an environment variable named ``BAILIWICK_`` + the field's name in capitals.
Nothing else in the code base reads the environment.

Ports: all listeners sit at fixed offsets from ``port_base``, so two installations can run side by side.
Databases: three roles, three DSNs. ``database_url`` belongs to whoever may create roles and tables (used
only by ``bailiwick migrate``); the other two are derived from it unless they are given, and are all that
the running processes receive.
"""

from __future__ import annotations

import re
from enum import IntEnum
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.errors import SetupError

Needed = Literal[
    "database_url", "database_app_url", "database_lock_url", "graph_password", "graph_url", "redis_url", "secret_key"
]
"""Settings that may be unset and that somebody cannot do without."""


class Port(IntEnum):
    """Offset of each listener from ``Settings.port_base``."""

    WEB = 0
    DASHBOARD = 1
    WORKER = 2
    SCHEDULER = 3
    MODEL = 4
    DEMO = 5
    POSTGRES = 10
    REDIS = 11
    GRAPH = 12
    GRAPH_HTTP = 13


_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?/?", re.IGNORECASE | re.ASCII)
APP_ROLE = "bailiwick_app"
LOCK_ROLE = "bailiwick_lock"


class Settings(BaseSettings):
    """One installation. Immutable; pass it, never look it up."""

    model_config = SettingsConfigDict(env_prefix="BAILIWICK_", frozen=True, extra="ignore")

    home: Path = Field(Path(".bailiwick"), description="Folder of the embedded servers' data, secrets and logs.")
    port_base: int = Field(8100, ge=1024, le=65_000, description="First port; see Port for the offsets.")
    bind_host: str = Field("127.0.0.1", description="Address the processes listen on; 0.0.0.0 in a container.")
    region: str = Field("us-east-1", description="The one region this process serves.")
    region_urls: dict[str, str] = Field(
        default_factory=dict, description="Address of each other region, for 421 answers (JSON object)."
    )

    database_url: SecretStr | None = Field(
        None, description="Postgres, direct, as a role that may create roles and tables. Unset: embedded."
    )
    database_app_url: SecretStr | None = Field(
        None, description="Postgres as the runtime role; may be a transaction pooler. Unset: derived."
    )
    database_lock_url: SecretStr | None = Field(
        None, description="Postgres, direct, as the role that holds the scheduler's lock. Unset: derived."
    )
    database_pool_size: int = Field(10, ge=1, le=200, description="Connections per process.")
    redis_url: SecretStr | None = Field(None, description="Redis. Unset: embedded.")
    graph_url: str | None = Field(None, description="Neo4j, bolt:// or neo4j+s://. Unset: embedded.")
    graph_user: str = Field("root", description="User of the graph database.")
    graph_password: SecretStr | None = Field(None, description="Password of the graph database.")

    secret_key: SecretStr | None = Field(
        None, description="At least 32 characters; signs cookies and derives role passwords. Unset: made in home."
    )

    model_url: str | None = Field(
        None, description="OpenAI-compatible base URL, ending in /v1. Unset: the offline model."
    )
    model_api_key: SecretStr | None = Field(None, description="Key of that endpoint.")
    model_small: str = Field("gpt-5-mini", description="Model of tier small.")
    model_large: str = Field("gpt-5", description="Model of tier large.")
    model_embedding: str = Field("text-embedding-3-small", description="Embedding model; 384 dimensions are asked for.")
    model_region: str = Field("us-east-1", description="Region in which model_url answers.")
    model_api: str = Field("responses", pattern="^(responses|chat)$", description="Which of the two APIs to speak.")

    services: dict[str, str] = Field(
        default_factory=dict,
        description="Base URL of each external service that workflows call by name (JSON object). "
        "A name that is missing is looked for at the demo's services.",
    )
    demo_delay_ms: int = Field(4, ge=0, le=60_000, description="How long an answer of the demo's services takes.")
    allowed_hosts: tuple[str, ...] = Field(
        ("127.0.0.1", "localhost"),
        description="Host names the web process answers to, besides those of the two addresses below.",
    )
    public_url: str | None = Field(
        None, description="Where browsers reach chat and API, as https://bailiwick.example. Unset: this machine."
    )
    dashboard_url: str | None = Field(
        None, description="Where browsers reach the dashboard: the same host, or one under it. Unset: this machine."
    )
    allowed_private_hosts: tuple[str, ...] = Field(
        (), description="host:port pairs on private addresses that pollers and workflows may call (JSON list)."
    )
    cookie_secure: bool = Field(False, description="Send cookies over TLS only; implied by an https:// public address.")
    worker_slots: int = Field(32, ge=1, le=1000, description="Runs one worker process executes at a time.")
    worker_id: str | None = Field(None, description="Stable name of this worker. Unset: made at start.")
    worker_max_lifetime_s: float | None = Field(
        None,
        gt=0,
        description="Seconds after which a worker hands over what it executes and ends, before a platform that limits "
        "processes ends it. Unset: it stays.",
    )
    queue_limit: int = Field(
        2_000_000,
        ge=1,
        description="Runs queued on the whole platform beyond which urgent ones are refused; normal ones are at 85 % "
        "of it, background ones at 70 %.",
    )
    queue_headroom: float = Field(
        0.05,
        ge=0,
        le=0.5,
        description="Share of all slots, at least one, kept for quiet tenants; the same for every process.",
    )
    workflow_modules: tuple[str, ...] = Field(
        (), description="Modules that register workflows, besides entry point bailiwick.workflows (JSON list)."
    )
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR.")
    log_format: str = Field("json", pattern="^(json|console)$", description="Form of the log lines.")
    otlp_endpoint: str | None = Field(None, description="OpenTelemetry collector for traces, http(s). Unset: none.")

    @field_validator("secret_key")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 32:
            raise ValueError("BAILIWICK_SECRET_KEY needs at least 32 characters")
        return value

    @field_validator("public_url", "dashboard_url")
    @classmethod
    def _an_origin(cls, value: str | None) -> str | None:
        if value is not None and not _ORIGIN.fullmatch(value):
            raise ValueError("is http(s)://, a host name and perhaps a port, without a path")
        return None if value is None else value.rstrip("/").lower()

    @field_validator("dashboard_url")
    @classmethod
    def _one_login(cls, value: str | None, info: ValidationInfo) -> str | None:
        """The login's cookie belongs to the web process's host and what is under it."""
        if value is not None and "public_url" in info.data:
            web, dashboard = urlsplit(info.data["public_url"] or ""), urlsplit(value)
            if not web.hostname or not f".{dashboard.hostname}".endswith(f".{web.hostname}"):
                raise ValueError("needs BAILIWICK_PUBLIC_URL, and its host or one under it")
            if web.scheme != dashboard.scheme:
                raise ValueError("and BAILIWICK_PUBLIC_URL are both https, or both http")
        return value

    def port(self, which: Port) -> int:
        """The port of one listener."""
        return self.port_base + which

    def required(self, field: Needed) -> str:
        """The text of a setting, secret or not. Raises ``SetupError`` when it is not set."""
        value: SecretStr | str | None = getattr(self, field)
        if value is None:
            name = f"BAILIWICK_{field.upper()}"
            raise SetupError(f"{name} is not set. `bailiwick up` sets it; a process started alone needs it.")
        return value.get_secret_value() if isinstance(value, SecretStr) else value

    def service_url(self, name: str) -> str:
        """Base URL of an external service, without a slash at the end."""
        return self.services.get(name, f"http://127.0.0.1:{self.port(Port.DEMO)}/{name}").rstrip("/")

    def web_url(self) -> str:
        """Where the browser reaches chat and API on this machine."""
        return f"http://127.0.0.1:{self.port(Port.WEB)}"

    def web_link(self) -> str:
        """Where people's browsers reach chat and API, without a slash at the end."""
        return self.public_url or self.web_url()

    def dashboard_link(self) -> str:
        """Where people's browsers reach the dashboard, without a slash at the end."""
        return self.dashboard_url or f"http://127.0.0.1:{self.port(Port.DASHBOARD)}"

    def public_origins(self) -> frozenset[str]:
        """The addresses that were given, as browsers name them in ``Origin``."""
        return frozenset(url for url in (self.public_url, self.dashboard_url) if url is not None)

    def hosts(self) -> frozenset[str]:
        """Every host name under which the processes are reached, in lower case."""
        public = (urlsplit(url).hostname for url in self.public_origins())
        return frozenset(name.lower() for name in (*self.allowed_hosts, *public) if name)

    def secure_cookies(self) -> bool:
        """Whether cookies travel over TLS only."""
        return self.cookie_secure or (self.public_url or "").startswith("https:")

    def cookie_domain(self) -> str | None:
        """The host whose subdomains share the login's cookie; None: only the host that set it."""
        if self.public_url is None or self.dashboard_url is None:
            return None
        web, dashboard = urlsplit(self.public_url).hostname, urlsplit(self.dashboard_url).hostname
        return None if web == dashboard else web


def with_credentials(dsn: str, user: str, password: str) -> str:
    """The same database, reached as another role."""
    parts = urlsplit(dsn)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(user, safe='')}:{quote(password, safe='')}@{host}"))

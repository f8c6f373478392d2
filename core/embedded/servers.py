"""The embedded servers as one group, and the addresses they give to the rest of an installation."""

from __future__ import annotations

from pydantic import SecretStr

from core.embedded import graph, postgres, redis
from core.embedded.graph import Graph
from core.embedded.postgres import Postgres
from core.embedded.process import Reaper
from core.embedded.redis import Redis
from core.embedded.secrets import load_or_create, role_password
from core.embedded.server import Server
from core.settings import APP_ROLE, LOCK_ROLE, Port, Settings, with_credentials


def complete(settings: Settings) -> Settings:
    """The same settings with the secret key and every address of a server filled in.

    What the environment gives stays. The rest points to the embedded servers of this home, whether they run
    or not; their passwords are read from the home, or made. Raises ``SetupError`` when that is not possible.
    """
    secrets = load_or_create(settings.home)
    key = settings.secret_key or SecretStr(secrets.secret_key)
    owner = settings.database_url or SecretStr(
        postgres.dsn(settings.port(Port.POSTGRES), secrets.postgres_password),
    )
    update: dict[str, object] = {
        "secret_key": key,
        "database_url": owner,
        "database_app_url": settings.database_app_url or _as_role(owner, APP_ROLE, key),
        "database_lock_url": settings.database_lock_url or _as_role(owner, LOCK_ROLE, key),
    }
    if settings.redis_url is None:
        update["redis_url"] = SecretStr(redis.address(settings.port(Port.REDIS), secrets.redis_password))
    if settings.graph_url is None:
        update["graph_url"] = graph.address(settings.port(Port.GRAPH))
        update["graph_user"] = graph.USER
        update["graph_password"] = SecretStr(secrets.graph_password)
    return settings.model_copy(update=update)


def servers_to_start(settings: Settings, reaper: Reaper) -> dict[str, Server]:
    """The servers that the environment does not replace, by name, not started yet."""
    secrets = load_or_create(settings.home)
    home = settings.home.absolute()
    needed: dict[str, Server] = {}
    if settings.database_url is None:
        needed["postgres"] = Postgres(
            home, port=settings.port(Port.POSTGRES), password=secrets.postgres_password, reaper=reaper
        )
    if settings.redis_url is None:
        needed["redis"] = Redis(home, port=settings.port(Port.REDIS), password=secrets.redis_password, reaper=reaper)
    if settings.graph_url is None:
        needed["graph"] = Graph(
            home,
            port=settings.port(Port.GRAPH),
            http_port=settings.port(Port.GRAPH_HTTP),
            password=secrets.graph_password,
            reaper=reaper,
        )
    return needed


def _as_role(owner: SecretStr, role: str, key: SecretStr) -> SecretStr:
    password = role_password(key.get_secret_value(), role)
    return SecretStr(with_credentials(owner.get_secret_value(), role, password))

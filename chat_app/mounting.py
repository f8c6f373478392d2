"""Puts Chainlit under ``/chat`` of the web application.

Chainlit wants a folder of its own, named by an environment variable before it is imported, and it writes
into it. That folder is made in the installation's home at every start: configuration and texts from the
source tree, its web page without addresses of other sites. The source tree stays untouched, and read-only
installations work.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import shutil
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse, RedirectResponse, Response
from starlette.types import Scope

from chat_app.downloads import downloads
from chat_app.problems import answer
from chat_app.rendering import refusal_in_words
from chat_app.routes.pages import Pages, wants_page
from chat_app.services import ChatServices
from chat_app.session import COOKIE, Gate, identifier_of
from core.errors import BailiwickError, SetupError
from core.settings import Settings
from core.tenants.model import Identity

PATH = "/chat"
PDF_WORKER = "/assets"
OFFLINE_NOTE = "Offline model: answers come from fixed rules, not from a language model."
ONLINE_NOTE = "Models can be wrong. Check what matters."

_ASSETS = Path(__file__).with_name("assets")
_CONFIG = Path(__file__).parents[1] / ".chainlit" / "config.toml"
_OTHER_SITES = re.compile(r"<link\b[^>]*\bhref=\"https?://[^>]*>", re.IGNORECASE)


def mount_chat(app: FastAPI, services: ChatServices, settings: Settings) -> None:
    """Serve the chat and its downloads. Call it once per process, before Chainlit is imported anywhere."""
    if settings.secret_key is None:
        raise SetupError("The chat needs a secret key; set BAILIWICK_SECRET_KEY.")
    key = settings.secret_key.get_secret_value()
    root = prepare_folder(settings.home.absolute() / "chat", offline=services.offline)
    os.environ["CHAINLIT_APP_ROOT"] = str(root)
    os.environ["CHAINLIT_AUTH_COOKIE_NAME"] = COOKIE
    os.environ["CHAINLIT_AUTH_SECRET"] = hmac.new(key.encode(), b"chat token", hashlib.sha256).hexdigest()

    from chainlit.auth import create_jwt
    from chainlit.config import HeaderLink, config
    from chainlit.server import app as chainlit_app
    from chainlit.user import User
    from chainlit.utils import mount_chainlit

    def mint(identity: Identity) -> str:
        return create_jwt(User(identifier=identifier_of(identity), display_name=identity.name))

    config.ui.custom_meta_url = settings.web_link()
    config.ui.custom_meta_image_url = f"{settings.web_link()}{PATH}/logo"
    config.ui.header_links = [
        HeaderLink(
            name="Dashboard",
            display_name="Dashboard",
            icon_url=f"{PATH}/public/dashboard.svg",
            url=services.dashboard_url,
        )
    ]
    chainlit_app.state.chat = services
    app.include_router(downloads(services), prefix=PATH)
    app.add_api_route(PATH, _to_chat, include_in_schema=False)
    # What shows a PDF is asked for at the root of the host, wherever Chainlit is mounted.
    for worker in (_package_folder() / "frontend" / "dist" / "assets").glob("pdf.worker*.mjs"):
        app.add_api_route(f"{PDF_WORKER}/{worker.name}", _sender(worker), include_in_schema=False)
    mount_chainlit(app, target=str(Path(__file__).with_name("ui.py")), path=PATH)
    chainlit_app.add_middleware(
        Gate,
        identify=services.identify,
        mint=mint,
        respond=in_the_chat(Pages(settings)),
        login_path=services.login_path,
        origins=settings.public_origins(),
    )


def in_the_chat(pages: Pages) -> Callable[[Scope, BailiwickError], Response]:
    """How a request that failed is answered: with a page, or with what the chat then says in passing."""

    def respond(scope: Scope, error: BailiwickError) -> Response:
        return pages.respond(scope, error) if wants_page(scope) else answer(scope, error, refusal_in_words(error))

    return respond


def prepare_folder(root: Path, *, offline: bool) -> Path:
    """Make or renew Chainlit's folder; the folder."""
    chainlit = _package_folder()
    page = chainlit / "frontend" / "dist"
    note = OFFLINE_NOTE if offline else ONLINE_NOTE
    texts = json.loads((chainlit / "translations" / "en-US.json").read_text("utf-8"))
    _reword(texts, note)
    welcome = (_ASSETS / "chainlit.md").read_text("utf-8").replace("{note}", note)
    try:
        # Uploads of an earlier process that did not end in order; conversations have theirs in the database.
        shutil.rmtree(root / ".files", ignore_errors=True)
        for folder in (root / ".chainlit" / "translations", root / "build"):
            folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_CONFIG if _CONFIG.exists() else _ASSETS / "config.toml", root / ".chainlit" / "config.toml")
        (root / ".chainlit" / "translations" / "en-US.json").write_text(json.dumps(texts), "utf-8")
        (root / "chainlit.md").write_text(welcome, "utf-8")
        (root / "chainlit_en-US.md").write_text(welcome, "utf-8")
        shutil.copytree(_ASSETS / "public", root / "public", dirs_exist_ok=True)
        with (root / "public" / "bailiwick.css").open("a", encoding="utf-8") as style:
            style.write(f"#welcome-screen::after {{ content: {json.dumps(note)}; }}\n")
        (root / "build" / "index.html").write_text(own_page((page / "index.html").read_text("utf-8")), "utf-8")
        _link(root / "build" / "assets", page / "assets")
        shutil.copyfile(page / "favicon.svg", root / "build" / "favicon.svg")
    except OSError as error:
        raise SetupError(f"The data folder {root} cannot be written: {error.strerror}.") from error
    return root


async def _to_chat() -> RedirectResponse:
    """The address without the slash at its end."""
    return RedirectResponse(f"{PATH}/", status_code=303)


def _sender(script: Path) -> Callable[[], Awaitable[FileResponse]]:
    async def send() -> FileResponse:
        return FileResponse(script, media_type="text/javascript")

    return send


def _reword(texts: dict[str, Any], note: str) -> None:
    """Our words in Chainlit's texts."""
    texts["chat"]["watermark"] = note
    texts["chat"]["input"]["placeholder"] = "Ask, or attach a CSV file…"
    texts["common"]["status"]["error"]["serverConnection"] = (
        "The connection is lost. It is tried again; runs go on, and what you wrote is kept."
    )
    texts["navigation"]["header"]["readme"] = "Help"
    texts["threadHistory"]["sidebar"]["title"] = "Conversations"
    texts["threadHistory"]["sidebar"]["empty"] = "No conversations yet"


def own_page(html: str) -> str:
    """Chainlit's page without links to other sites: fonts and style sheets it does not need here."""
    return _OTHER_SITES.sub("", html)


def _package_folder() -> Path:
    """Where Chainlit is installed, found without importing it: it would look for its folder too early."""
    found = find_spec("chainlit")
    if found is None or found.origin is None:
        raise SetupError("Chainlit is not installed.")
    return Path(found.origin).parent


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() and link.readlink() == target:
        return
    link.unlink(missing_ok=True)
    link.symlink_to(target, target_is_directory=True)

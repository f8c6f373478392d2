"""Who is looking, asked anew on every run of a script and before every act.

The browser carries the HttpOnly cookie that the web process set at login; the session behind it dies with a
logout, after 12 hours, and at any change of the user's roles or password. Nothing about rights is kept in
Streamlit's session state.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import streamlit as st
import structlog

from core.bootstrap import Platform
from core.errors import BailiwickError, Unauthenticated
from core.tenancy import Role, TenantContext
from core.tenants.model import Identity
from ops_dashboard.bridge import bridge
from ops_dashboard.server import COOKIE, login_url
from ops_dashboard.words import code, literal

Result = TypeVar("Result")

_NOTICES = "notices"
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Viewer:
    """The person in front of the screen and what the dashboard lets them do."""

    identity: Identity

    @property
    def ctx(self) -> TenantContext:
        """Their context: the first argument of everything."""
        return self.identity.ctx

    @property
    def operator(self) -> bool:
        """Sees all tenants, and no content."""
        return Role.OPERATOR in self.identity.roles

    @property
    def admin(self) -> bool:
        """Runs their own tenant."""
        return Role.ADMIN in self.identity.roles

    @property
    def reviewer(self) -> bool:
        """Decides reviews of their own tenant; admins do too."""
        return self.admin or Role.REVIEWER in self.identity.roles

    @property
    def pool_reviewer(self) -> bool:
        """Decides reviews of the shared pools, and sees nothing else of their tenants."""
        return Role.POOL_REVIEWER in self.identity.roles

    @property
    def only_own_runs(self) -> str | None:
        """The user whose runs alone are shown (members); None: the whole tenant's."""
        return None if self.operator or self.reviewer else self.identity.user_id

    @property
    def timezone(self) -> str:
        """The tenant's time zone, in which times are shown."""
        return self.ctx.policy.timezone


class LoggedOut(Exception):
    """Nobody is logged in (any more)."""


def viewer() -> Viewer:
    """Who is looking now. Raises ``LoggedOut``, or ``Unavailable`` when Postgres is away."""
    token = st.context.cookies.get(COOKIE)
    if not token:
        raise LoggedOut
    link = bridge()
    try:
        return Viewer(link.run(link.platform.tenants.identify_session(token)))
    except Unauthenticated as error:
        raise LoggedOut from error


def ask(question: Callable[[Platform, Viewer], Awaitable[Result]]) -> Result:
    """Read something as the person in front of the screen, identified anew."""
    link = bridge()

    async def answer(who: Viewer) -> Result:
        return await question(link.platform, who)

    return link.run(answer(viewer()))


def act(deed: Callable[[Platform, Viewer], Awaitable[Any]], done: str) -> bool:
    """Do something as the person in front of the screen; say ``done``, or why not. Whether it was done."""
    try:
        ask(deed)
    except BailiwickError as error:
        notify(error.message, ok=False)
        return False
    notify(done)
    return True


def attempt(deed: Callable[[Platform, Viewer], Awaitable[Any]], done: str) -> bool:
    """Like ``act`` for a form that stays open: what is wrong stands below the form until it is right."""
    try:
        ask(deed)
    except BailiwickError as error:
        show_refusal(error)
        return False
    notify(done)
    return True


def show_refusal(error: BailiwickError) -> None:
    """What is wrong, and every fault of what was written."""
    faults = error.details.get("errors") or []
    told = [f"{code(fault['pointer'])}: {literal(fault['message'])}" for fault in faults]
    lines = [literal(error.message), *told]
    st.error("  \n".join(lines), icon=":material/error:")


def show_fault(error: Exception) -> None:
    """Something broke that nobody thought of: say what to do, and keep what it was for whoever mends it."""
    log.error("screen_failed", url=st.context.url, exc_info=error)
    st.error(
        "This part of the screen broke: the fault is ours, and is in the dashboard's log. Nothing else is concerned; "
        "reload in a moment, and tell whoever runs the platform when it stays.",
        icon=":material/bug_report:",
    )


def notify(text: str, *, ok: bool = True) -> None:
    """Say something in the corner of the screen, also when the script starts over at once."""
    st.session_state.setdefault(_NOTICES, []).append((text, ok))


def show_notices() -> None:
    """Show what ``notify`` collected."""
    for text, ok in st.session_state.pop(_NOTICES, []):
        st.toast(
            literal(text),
            icon=":material/check_circle:" if ok else ":material/error:",
            duration="short" if ok else "long",
        )


def live(every: str = "2s") -> Callable[[Callable[[], None]], Callable[[], None]]:
    """A part of a screen that renews itself. When the session ends it turns the whole page to the login."""

    def decorate(part: Callable[[], None]) -> Callable[[], None]:
        @functools.wraps(part)
        def guarded() -> None:
            try:
                part()
            except LoggedOut:
                st.rerun(scope="app")
            except BailiwickError as error:
                st.warning(f"{literal(error.message)} Trying again.", icon=":material/sync_problem:")
            except Exception as error:
                show_fault(error)
            show_notices()

        return st.fragment(guarded, run_every=every)

    return decorate


def logout() -> None:
    """End the session, in every tab and in the chat too."""
    link = bridge()
    link.run(link.platform.tenants.logout(st.context.cookies.get(COOKIE, "")))


def show_login() -> None:
    """What people without a session see."""
    st.html("<style>[data-testid=stSidebar], [data-testid=stExpandSidebarButton] {display: none;}</style>")
    st.title("Bailiwick operations", anchor=False)
    st.write("You are not logged in, or your session has ended.")
    url = login_url(bridge().platform.settings, st.context.url or "")
    st.html(f'<a class="login" href="{url}" target="_self">Log in</a>')

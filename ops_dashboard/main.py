"""The script that Streamlit runs for every page view: identify, navigate, show one screen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from core.errors import BailiwickError
from ops_dashboard import session
from ops_dashboard.bridge import bridge
from ops_dashboard.screens import audit, overview, reviews, runs, schedules, tenants, versions
from ops_dashboard.server import web_url
from ops_dashboard.session import LoggedOut, Viewer
from ops_dashboard.words import literal, plain

# A file of ours: an icon by name would be fetched from a foreign host.
ICON = Path(__file__).with_name("assets") / "icon.svg"


def pages(who: Viewer | None) -> list[tuple[str, str, str, Callable[[], None]]]:
    """Title, icon, path and screen of every page this person may open."""
    screens = {
        "overview": ("Overview", "monitoring", "", overview.show),
        "runs": ("Runs", "play_circle", "runs", runs.show),
        "reviews": ("Reviews", "rule", "reviews", reviews.show),
        "schedules": ("Schedules", "event_repeat", "schedules", schedules.show),
        "versions": ("Versions", "alt_route", "versions", versions.show),
        "tenants": ("Tenants", "domain", "tenants", tenants.show),
        "audit": ("Audit", "verified_user", "audit", audit.show),
    }
    if who is None:
        return [(title, icon, path, session.show_login) for title, icon, path, _ in screens.values()]
    if who.operator or who.pool_reviewer:
        allowed = ["overview", "runs", "versions", "tenants", "audit"] * who.operator + ["reviews"] * who.pool_reviewer
    elif who.admin:
        allowed = [name for name in screens if name != "versions"]
        screens["tenants"] = ("Tenant", *screens["tenants"][1:])
    elif who.reviewer:
        allowed = ["overview", "runs", "reviews", "schedules"]
    else:
        allowed = ["runs"]
    return [screens[name] for name in allowed]


def show() -> None:
    """One page view."""
    st.set_page_config(page_title="Bailiwick operations", page_icon=ICON, layout="wide")
    st.html(_STYLE)
    try:
        who = session.viewer()
    except LoggedOut:
        who = None
    except BailiwickError as error:
        st.error(f"{literal(error.message)} Reload in a moment.", icon=":material/sync_problem:")
        st.stop()
    page = st.navigation(
        [
            st.Page(screen, title=title, icon=f":material/{icon}:", url_path=path, default=index == 0)
            for index, (title, icon, path, screen) in enumerate(pages(who))
        ],
        position="hidden" if who is None else "sidebar",
    )
    if who is not None:
        _show_identity(who)
    try:
        page.run()
    except LoggedOut:
        st.rerun()
    except BailiwickError as error:
        st.error(
            f"{literal(error.message)} Reload in a moment, or go back to the page before.", icon=":material/error:"
        )
    except Exception as error:
        session.show_fault(error)
    session.show_notices()


def _show_identity(who: Viewer) -> None:
    st.logo(ICON, size="large")
    with st.sidebar:
        roles = ", ".join(plain(role) for role in who.identity.roles)
        st.caption(f"**{literal(who.identity.name)}** · {roles}  \n{literal(who.identity.tenant_name)}")
        with st.container(horizontal=True):
            if not (who.operator or who.pool_reviewer):
                st.link_button(
                    "Chat", web_url(bridge().platform.settings, st.context.url or ""), icon=":material/chat:"
                )
            st.button("Log out", icon=":material/logout:", on_click=session.logout, type="tertiary")


_STYLE = """<style>
[data-testid="stMainBlockContainer"] {padding-left: 2rem; padding-right: 2rem;}
[data-testid="stMetricValue"] {font-variant-numeric: tabular-nums;}
:is([data-testid="stMetricLabel"], [data-testid="stMetricValue"], [data-testid="stMetricDelta"]) *
  {white-space: normal !important; overflow: visible; text-overflow: clip;}
[data-testid="stMetricDelta"] {max-width: 100%; height: auto;}
@media (max-width: 640px) {[data-testid="stMetricValue"] {font-size: 1.5rem;}}
[data-testid="stElementContainer"][data-stale="true"] {opacity: 1 !important; transition: none !important;}
a.login {display: inline-block; padding: .5rem 1.25rem; border-radius: .5rem; background: #2f6fde;
         color: #fff !important; text-decoration: none; font-weight: 600;}
</style>"""

show()

"""Where a login may lead, and what counts as a session's cookie."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from chat_app.auth import check_origin, safe_next, session_token
from core.errors import Forbidden
from core.settings import Settings

SETTINGS = Settings(allowed_hosts=("127.0.0.1", "bank.example", "::1"))
PORTS = (8100, 8101)
TOKEN = "abcdefghijklmnopqrstuvwxyz_-0123456789"


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/chat",
        "/chat/thread/1?x=%2F%2Fevil.example#y",
        "/a//b",
        "http://127.0.0.1:8101/",
        "http://127.0.0.1:8101",
        "https://bank.example:8101/runs?tenant=a",
        "http://[::1]:8100/chat",
    ],
)
def test_a_login_leads_to_our_own_pages(target: str) -> None:
    assert safe_next(target, SETTINGS, PORTS) == target


@pytest.mark.parametrize(
    "target",
    [
        None,
        "",
        "chat",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/a\\b",
        "/\tevil",
        "/ evil",
        "/\n/evil.example",
        "/caf\u00e9",
        "https://evil.example/",
        "http://127.0.0.1/",
        "http://127.0.0.1:8102/",
        "http://127.0.0.1:8101@evil.example/",
        "http://user@127.0.0.1:8101/",
        "http://127.0.0.1:8101\\@evil.example/",
        "http://127.0.0.1:8101.evil.example/",
        "http://127.0.0.1:8101#@evil.example",
        "http://evil.example:8101/",
        "javascript:alert(1)",
        "data:text/html,x",
        "ftp://127.0.0.1:8101/",
        "/" + "a" * 3_000,
    ],
)
def test_a_login_leads_nowhere_else(target: str | None) -> None:
    assert safe_next(target, SETTINGS, PORTS) == "/"


@given(st.text(alphabet="/\\:@.#?%\t\n evilhttp12780", max_size=40))
def test_no_text_leads_to_another_host(target: str) -> None:
    chosen = safe_next(target, SETTINGS, PORTS)
    assert chosen.startswith(("/", "http://127.0.0.1:810", "https://127.0.0.1:810"))
    assert not chosen.startswith(("//", "/\\"))


def test_a_sessions_token_is_found_among_other_cookies_and_nothing_else_is_taken_for_one() -> None:
    assert session_token(Headers({"cookie": f"theme=dark; bailiwick_session={TOKEN}; a=b"})) == TOKEN
    for value in ("", "short", TOKEN + "!", "x" * 500, "a b" * 20):
        assert session_token(Headers({"cookie": f"bailiwick_session={value}"})) is None
    assert session_token(Headers({})) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "127.0.0.1:8100", "origin": "https://evil.example"},
        {"host": "127.0.0.1:8100", "origin": "null"},
        {"host": "127.0.0.1:8100", "origin": "http://127.0.0.1:8101"},
        {"host": "127.0.0.1:8100", "sec-fetch-site": "cross-site"},
        {"host": "127.0.0.1:8100", "sec-fetch-site": "same-site"},
    ],
)
def test_an_act_sent_by_another_sites_page_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(Forbidden):
        check_origin(headers)


def test_an_act_of_our_page_or_of_a_program_passes() -> None:
    check_origin({"host": "127.0.0.1:8100"})
    check_origin({"host": "127.0.0.1:8100", "origin": "http://127.0.0.1:8100", "sec-fetch-site": "same-origin"})


BEHIND_TLS = Settings(
    allowed_hosts=("127.0.0.1",),
    public_url="https://bank.example/",
    dashboard_url="https://ops.bank.example:8443",
)


@pytest.mark.parametrize(
    "target", ["https://bank.example/chat/", "https://bank.example", "https://ops.bank.example:8443/runs?tenant=a"]
)
def test_behind_tls_a_login_leads_to_the_public_addresses(target: str) -> None:
    assert safe_next(target, BEHIND_TLS, PORTS) == target


@pytest.mark.parametrize(
    "target",
    [
        "http://bank.example/",
        "https://bank.example.evil.example/",
        "https://bank.example@evil.example/",
        "https://bank.example:444/",
        "https://ops.bank.example/",
        "https://evil.example/",
    ],
)
def test_behind_tls_a_login_leads_nowhere_else(target: str) -> None:
    assert safe_next(target, BEHIND_TLS, PORTS) == "/"


def test_a_public_origin_is_ours_whatever_host_the_proxy_sends() -> None:
    headers = {"origin": "https://bank.example", "host": "web.internal:8100"}
    check_origin(headers, BEHIND_TLS.public_origins())
    for stranger in ("http://bank.example", "https://evil.example"):
        with pytest.raises(Forbidden):
            check_origin(headers | {"origin": stranger}, BEHIND_TLS.public_origins())

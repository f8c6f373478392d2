"""Settings as processes read them."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import SecretStr, ValidationError

from core.errors import SetupError
from core.settings import Needed, Settings


@pytest.mark.parametrize("field", get_args(Needed))
def test_a_setting_that_is_needed_is_read_as_text_and_named_when_it_is_missing(field: Needed) -> None:
    given = "text" if field == "graph_url" else SecretStr("text")
    assert Settings().model_copy(update={field: given}).required(field) == "text"
    with pytest.raises(SetupError, match=f"BAILIWICK_{field.upper()} is not set"):
        Settings().required(field)


def test_public_addresses_decide_links_hosts_and_cookies() -> None:
    own = Settings()
    assert own.dashboard_link() == "http://127.0.0.1:8101"
    assert (own.secure_cookies(), own.cookie_domain()) == (False, None)
    public = Settings(public_url="https://Bank.example/", dashboard_url="https://ops.bank.example")
    assert (public.web_link(), public.dashboard_link()) == ("https://bank.example", "https://ops.bank.example")
    assert public.hosts() == {"127.0.0.1", "localhost", "bank.example", "ops.bank.example"}
    assert (public.secure_cookies(), public.cookie_domain()) == (True, "bank.example")
    one_host = Settings(public_url="https://bank.example", dashboard_url="https://bank.example:8443")
    assert one_host.cookie_domain() is None


@pytest.mark.parametrize(
    "given",
    [
        {"public_url": "bank.example"},
        {"public_url": "https://bank.example/chat"},
        {"public_url": "https://user@bank.example"},
        {"dashboard_url": "https://bank.example"},
        {"public_url": "https://bank.example", "dashboard_url": "https://otherbank.example"},
        {"public_url": "https://bank.example", "dashboard_url": "http://ops.bank.example"},
    ],
)
def test_public_addresses_that_cannot_work_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(**given)

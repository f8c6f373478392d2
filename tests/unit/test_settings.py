"""Settings as processes read them."""

from __future__ import annotations

from typing import get_args

import pytest
from pydantic import SecretStr

from core.errors import SetupError
from core.settings import Needed, Settings


@pytest.mark.parametrize("field", get_args(Needed))
def test_a_setting_that_is_needed_is_read_as_text_and_named_when_it_is_missing(field: Needed) -> None:
    given = "text" if field == "graph_url" else SecretStr("text")
    assert Settings().model_copy(update={field: given}).required(field) == "text"
    with pytest.raises(SetupError, match=f"BAILIWICK_{field.upper()} is not set"):
        Settings().required(field)

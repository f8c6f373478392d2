"""A tenant's rules as a value: what cannot be said in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from core.tenancy import Policy


def numbers(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every number in a JSON schema, by where it stands."""
    if schema.get("type") in {"integer", "number"}:
        yield path, schema
    for each in schema.get("anyOf", []):
        yield from numbers(each, path)
    if isinstance(values := schema.get("additionalProperties"), Mapping):
        yield from numbers(values, f"{path}.*")
    for name, value in schema.get("properties", {}).items():
        yield from numbers(value, f"{path}.{name}")


def test_no_number_in_a_policy_is_without_a_bound_that_every_reader_can_hold() -> None:
    schema = Policy.model_json_schema()
    found = [*numbers(schema, "policy"), *numbers(schema["$defs"]["RateLimit"], "rate_limit")]
    assert {"policy.run_sla_s", "policy.user_cap", "policy.workflow_caps.*", "rate_limit.limit"} <= dict(found).keys()
    assert [path for path, number in found if number.get("maximum", 2**63) >= 2**63] == []
    assert [path for path, number in found if "minimum" not in number and "exclusiveMinimum" not in number] == []


def test_a_time_zone_is_one_that_python_and_postgres_know() -> None:
    assert Policy(timezone="Europe/Berlin").timezone == "Europe/Berlin"
    for name in ("Mars/Olympus", "localtime", "../etc/passwd", ""):
        with pytest.raises(ValidationError, match="There is no time zone"):
            Policy(timezone=name)

"""From CSV to applications."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidInput
from core.workflows.loan_intake import COLUMNS, from_csv_row, read_applications
from core.workflows.loan_model import LoanApplication
from tests.fixtures.data import real_data

ROW = {
    "rownames": "1",
    "card": "yes",
    "reports": "0",
    "age": "37.66667",
    "income": "4.52",
    "share": "0.03326991",
    "expenditure": "124.9833",
    "owner": "yes",
    "selfemp": "no",
    "dependents": "3",
    "months": "54",
    "majorcards": "1",
    "active": "12",
}


def as_csv(*rows: dict[str, str]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(ROW))
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def test_every_row_of_the_real_file_is_an_application() -> None:
    intake = read_applications(real_data("loans/credit-card-applications.csv").read_bytes())
    assert len(intake.applications) == 1319
    assert intake.problems == ()
    assert intake.applications[0] == from_csv_row(ROW)
    assert intake.applications[0].yearly_income_usd == 45_200


def test_a_file_of_another_kind_is_refused_with_the_missing_columns() -> None:
    with pytest.raises(InvalidInput, match=r"missing: active, age, dependents, expenditure"):
        read_applications(real_data("loans/lending-club-300.csv").read_bytes())


def test_the_historical_outcome_is_neither_needed_nor_read() -> None:
    without = {name: value for name, value in ROW.items() if name != "card"}
    assert from_csv_row(without) == from_csv_row(ROW | {"card": "no"}) == from_csv_row(ROW)
    assert "card" not in LoanApplication.model_fields


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("reports", "1_0"),
        ("reports", "-1"),
        ("reports", "1.5"),
        ("reports", "\u0663"),
        ("age", "inf"),
        ("age", "nan"),
        ("age", "400"),
        ("income", "=1+1"),
        ("share", ""),
        ("expenditure", "1e99"),
        ("owner", "perhaps"),
        ("rownames", "1; drop table runs"),
        ("rownames", "x" * 65),
        ("months", "5\u202e"),
    ],
)
def test_a_hostile_or_wrong_value_is_refused_and_its_column_named(column: str, value: str) -> None:
    with pytest.raises(InvalidInput, match=column if column != "rownames" else "rownames|application_id"):
        from_csv_row(ROW | {column: value})


def test_all_bad_columns_of_a_row_are_named_at_once() -> None:
    with pytest.raises(InvalidInput, match=r"reports: .*age: .*owner: ") as refused:
        from_csv_row(ROW | {"reports": "many", "age": "old", "owner": "1"})
    assert refused.value.details["columns"] == ["reports", "age", "owner"]


def test_a_bad_row_is_reported_with_its_line_and_spoils_no_other() -> None:
    text = as_csv(ROW, ROW | {"rownames": "2", "age": "old"}, ROW | {"rownames": "3"}, ROW)
    intake = read_applications("\ufeff" + text + '5,"yes",0,1\n')
    assert [application.application_id for application in intake.applications] == ["1", "3"]
    assert [problem.line for problem in intake.problems] == [3, 5, 6]
    assert "twice" in intake.problems[1].message
    assert "too short" in intake.problems[2].message


def test_a_row_with_more_cells_than_the_header_is_no_application() -> None:
    text = as_csv(ROW).rstrip() + ",7\n"
    assert "more cells" in read_applications(text).problems[0].message


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a\x00b", b"", "rownames\n1", 'x,"a\n'])
def test_what_is_no_such_file_is_refused(content: str | bytes) -> None:
    with pytest.raises(InvalidInput):
        read_applications(content)


def test_the_limit_stops_reading() -> None:
    rows = [ROW | {"rownames": str(number)} for number in range(5)]
    assert len(read_applications(as_csv(*rows), limit=2).applications) == 2


@given(st.dictionaries(st.sampled_from(COLUMNS), st.text(max_size=80), min_size=1))
def test_any_text_in_any_cell_gives_an_application_or_a_clear_refusal(cells: dict[str, str]) -> None:
    try:
        application = from_csv_row(ROW | cells)
    except InvalidInput as refused:
        problem = refused.message
    else:
        assert LoanApplication.model_validate_json(application.model_dump_json()) == application
        return
    assert any(name in problem for name in (*cells, "application_id"))

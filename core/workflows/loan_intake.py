"""From a CSV file to applications: strict, row by row, with an error a person can act on.

Columns are found by name, in any order; other columns (the historical outcome ``card`` among them) are
never read. One bad row does not spoil the rest: it is reported with its line and left out.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from core.errors import InvalidInput
from core.workflows.loan_model import LoanApplication

ID_COLUMN = "rownames"
MAX_ROWS = 100_000
MAX_CELL = 64
WHOLE = ("reports", "dependents", "months", "majorcards", "active")
DECIMAL = ("age", "income", "share", "expenditure")
YES_NO = ("owner", "selfemp")
COLUMNS = (ID_COLUMN, *WHOLE, *DECIMAL, *YES_NO)

# Python's own int() and float() also take "1_000", "Infinity" and digits of other scripts.
_WHOLE = re.compile(r"\d{1,9}", re.ASCII)
_DECIMAL = re.compile(r"\d{1,12}(\.\d{1,18})?([eE][+-]?\d{1,2})?", re.ASCII)
_YES_NO = {"yes": True, "no": False}


@dataclass(frozen=True, slots=True)
class RowProblem:
    """A row that is no application: its line in the file and what is wrong, in one sentence."""

    line: int
    message: str


@dataclass(frozen=True, slots=True)
class Intake:
    """What a file holds, in the order of its rows."""

    applications: tuple[LoanApplication, ...]
    problems: tuple[RowProblem, ...]


def read_applications(content: str | bytes, *, limit: int | None = None) -> Intake:
    """Read at most ``limit`` rows of a CSV file with a header line, UTF-8, separated by commas.

    Raises ``InvalidInput`` when it is not such a file, lacks a column or has more than 100,000 rows. A number
    that occurs twice is reported as a problem of the later row.
    """
    rows = _rows(_text(content))
    applications: dict[str, LoanApplication] = {}
    problems: list[RowProblem] = []
    for count, (line, row) in enumerate(rows, start=1):
        if limit is not None and count > limit:
            break
        if count > MAX_ROWS:
            raise InvalidInput(f"The file has more than {MAX_ROWS} rows.", limit=MAX_ROWS)
        try:
            application = from_csv_row(row)
        except InvalidInput as error:
            problems.append(RowProblem(line, error.message))
            continue
        if application.application_id in applications:
            problems.append(RowProblem(line, f"Application {application.application_id} is in the file twice."))
            continue
        applications[application.application_id] = application
    return Intake(tuple(applications.values()), tuple(problems))


def from_csv_row(row: Mapping[Any, Any]) -> LoanApplication:
    """One row, keyed by column name, as an application. Raises ``InvalidInput`` naming each bad column."""
    _require_columns(row)
    problems: list[str] = ["row: has more cells than the header"] if None in row else []
    values: dict[str, object] = {}
    for column in COLUMNS:
        try:
            values[column] = _cell(column, row[column])
        except ValueError as error:
            problems.append(str(error))
    if not problems:
        try:
            return LoanApplication.model_validate(values)
        except ValidationError as error:
            problems = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_input=False)]
    raise InvalidInput("; ".join(problems) + ".", columns=[problem.partition(":")[0] for problem in problems])


def _cell(column: str, value: object) -> object:
    if not isinstance(value, str):
        raise ValueError(f"{column}: the row is too short")
    text = value.strip()
    if not text:
        raise ValueError(f"{column}: is empty")
    if len(text) > MAX_CELL or not text.isprintable():
        raise ValueError(f"{column}: is too long or holds control characters")
    if column in YES_NO:
        if text.lower() not in _YES_NO:
            raise ValueError(f"{column}: must be yes or no, not {text!r}")
        return _YES_NO[text.lower()]
    if column in WHOLE:
        if not _WHOLE.fullmatch(text):
            raise ValueError(f"{column}: must be a whole number of 0 or more, not {text!r}")
        return int(text)
    if column in DECIMAL:
        if not _DECIMAL.fullmatch(text):
            raise ValueError(f"{column}: must be a number of 0 or more, not {text!r}")
        return float(text)
    return text


def _require_columns(found: Iterable[Any]) -> None:
    missing = sorted(set(COLUMNS) - set(found))
    if missing:
        raise InvalidInput(f"These columns are missing: {', '.join(missing)}.", columns=missing)


def _text(content: str | bytes) -> str:
    if isinstance(content, bytes):
        try:
            content = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InvalidInput("The file is not UTF-8 text.") from error
    if "\0" in content:
        raise InvalidInput("The file holds NUL characters; it is not a CSV file.")
    return content.removeprefix("\ufeff")


def _rows(text: str) -> Iterator[tuple[int, dict[Any, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        _require_columns(reader.fieldnames or ())
        duplicates = {name for name in reader.fieldnames or () if (reader.fieldnames or ()).count(name) > 1}
        if duplicates & set(COLUMNS):
            raise InvalidInput(f"These columns occur twice: {', '.join(sorted(duplicates))}.")
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise InvalidInput(f"Line {reader.line_num} is not CSV: {error}.") from error

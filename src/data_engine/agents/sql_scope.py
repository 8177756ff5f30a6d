"""Check that SQL speaks of nothing outside of the symbols and days that it was declared to be about.

Its views have nothing else, so a count of what lies outside is zero, which reads as a fact. DuckDB's own parser takes the SQL
apart, and DuckDB itself tells whether a condition on ``symbol`` or ``timestamp`` can hold inside.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from copy import deepcopy
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from data_engine.errors import InputError
from data_engine.market.time_range import TimeRange, new_york_date
from data_engine.read.statement import parts_of, syntax_parts

if TYPE_CHECKING:
    import duckdb

_DATE = re.compile(r"((?:19|20)\d\d)(?:[-/.]?(\d\d?)(?:[-/.]?(\d\d?))?)?(?!\d)")

_TICKER = re.compile(r"[A-Z][A-Z0-9]{0,5}(?:[./@-][A-Z0-9-]{1,10})?")

_WORDS = frozenset({"UTC", "DAY", "HOUR", "MINUTE", "MONTH", "WEEK", "YEAR", "EST", "EDT"})

_MATCHES = frozenset({
    "~~", "!~~", "~~*", "!~~*", "~~~", "like_escape", "ilike_escape", "not_like_escape", "not_ilike_escape", "regexp_matches",
    "regexp_full_match", "starts_with", "prefix", "suffix", "ends_with", "contains",
})  # fmt: skip
"""The functions and operators that compare texts."""

_TIMES = frozenset({"timestamp", "year", "month"})

_MOST_CONDITIONS = 200


def check_sql(
    connection: duckdb.DuckDBPyConnection, sql: str, views: Collection[str], symbols: Collection[str], span: TimeRange
) -> None:
    """Refuse SQL that names symbols or times of which its views have nothing, or tables that are not its views.

    Args:
        connection: The connection of the SQL, which is one statement that reads.
        sql: The SQL.
        views: The names of its views.
        symbols: The symbols of the views.
        span: The range of the views.

    Raises:
        InputError: If a constant is a date or a year outside of the range or looks like another symbol; if no symbol or no time
            of the range meets a condition; or if a table is no view.
        duckdb.Error: If the statement is interrupted.
    """
    parts = list(syntax_parts(connection, sql))
    _check_tables(parts, views)
    inside = _Inside(frozenset(symbols), new_york_date(span.start), new_york_date(span.end - timedelta(microseconds=1)))
    for text in _texts(parts):
        inside.check_text(text)
    for condition in _conditions(parts):
        columns = _columns(condition)
        if columns == {"symbol"}:
            if not _can_hold(connection, condition, f"(SELECT unnest({sorted(symbols)!r}) AS symbol)"):
                raise InputError(
                    f"cannot run the SQL: none of its symbols has {_text_of(connection, condition)}; symbols are capital "
                    "letters, and those that it is about are passed in symbols"
                )
        elif columns and columns <= _TIMES:
            inside.check_years(condition)
            if not _can_hold(connection, condition, _minutes(span)):
                raise InputError(
                    f"cannot run the SQL: no time of its range has {_text_of(connection, condition)}; pass another start or end"
                )


@dataclass(frozen=True, slots=True)
class _Inside:
    """The symbols and New York days of the views."""

    symbols: frozenset[str]
    first: date
    last: date

    def check_text(self, text: str) -> None:
        """Refuse a text that is a date outside, or looks like another symbol."""
        if _TICKER.fullmatch(text) and text not in self.symbols and text not in _WORDS:
            raise InputError(
                f"cannot run the SQL: it names {text!r}, which is not among the symbols; pass it in symbols, or, if it is none, "
                "write it in small letters"
            )
        found = _DATE.match(text.strip())
        if found is None:
            return
        try:
            first, last = _days(*(int(part) if part else None for part in found.groups()))
        except ValueError:  # no date
            return
        # The day after the last is where a range ends that excludes its end.
        if last < self.first or first > self.last + timedelta(days=1):
            self._refuse(text)

    def check_years(self, condition: dict[str, Any]) -> None:
        """Refuse a number that is a year outside, in a condition on times."""
        for literal in _literals(condition, "INTEGER"):
            if re.fullmatch(r"(19|20)\d\d", literal) and not self.first.year <= int(literal) <= self.last.year:
                self._refuse(literal)

    def _refuse(self, name: str) -> None:
        raise InputError(
            f"cannot run the SQL: it names {name!r}, and the range is {self.first} to {self.last}; pass another start or end"
        )


def _days(year: int | None, month: int | None = None, day: int | None = None) -> tuple[date, date]:
    """Return the first and the last day of a day, a month or a year."""
    first = date(year or 0, month or 1, day or 1)
    if day is not None:
        return first, first
    if month is not None:
        return first, (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    return first, date(first.year, 12, 31)


def _check_tables(parts: Collection[dict[str, Any]], views: Collection[str]) -> None:
    """Refuse tables that are neither views nor common table expressions of the SQL; the views before they were narrowed, too."""
    defined = {str(entry["key"]).lower() for part in parts for entry in _entries(part)}
    for part in parts:
        name = str(part.get("table_name", "")).lower()
        if part.get("type") == "BASE_TABLE" and name not in views and (name not in defined or name.startswith("all_bars_")):
            raise InputError(f"cannot run the SQL: it reads {name!r}; its views are {', '.join(sorted(views))}")


def _entries(part: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the common table expressions that a part defines."""
    found = part.get("cte_map")
    return found["map"] if isinstance(found, dict) else []


def _texts(parts: Collection[dict[str, Any]]) -> Iterator[str]:
    """Yield the texts of the SQL."""
    for part in parts:
        literal = part.get("literal")
        if isinstance(literal, dict) and literal.get("kind") == "STRING":
            yield str(literal["text"])


def _literals(part: Any, kind: str) -> Iterator[str]:
    """Yield the constants of one kind in a part of the syntax tree."""
    for inner in parts_of(part):
        literal = inner.get("literal")
        if isinstance(literal, dict) and literal.get("kind") == kind:
            yield str(literal["text"])


def _conditions(parts: Collection[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the comparisons with constants; of a list (``IN``), one for each of its elements.

    Raises:
        InputError: If there are very many.
    """
    count = 0
    for part in parts:
        kind = part.get("class")
        if kind not in ("COMPARISON", "BETWEEN", "OPERATOR", "FUNCTION") or "SUBQUERY" in _classes(part):
            continue
        if kind == "OPERATOR" and part.get("type") == "COMPARE_IN":
            tested, *elements = part["children"]
            found = [{**part, "children": [tested, element]} for element in elements]
        elif kind in ("COMPARISON", "BETWEEN") or part.get("function_name") in _MATCHES:
            found = [part]
        else:
            continue
        count += len(found)
        if count > _MOST_CONDITIONS:
            raise InputError(f"cannot run the SQL: it has more than {_MOST_CONDITIONS} conditions; simplify it")
        yield from found


def _classes(part: Any) -> set[str]:
    return {str(inner.get("class")) for inner in parts_of(part)}


def _columns(part: Any) -> set[str]:
    """Return the names of the columns in a part, without those of their tables."""
    return {str(inner["column_names"][-1]).lower() for inner in parts_of(part) if inner.get("class") == "COLUMN_REF"}


def _can_hold(connection: duckdb.DuckDBPyConnection, condition: dict[str, Any], source: str) -> bool:
    """Tell whether a condition holds for a row of a source; also if DuckDB cannot tell, as of an aggregate."""
    import duckdb

    try:
        return bool(connection.execute(_select(connection, condition, source)).fetchall())
    except duckdb.InterruptException:
        raise
    except duckdb.Error:
        return True


def _text_of(connection: duckdb.DuckDBPyConnection, condition: dict[str, Any]) -> str:
    """Return a condition as SQL."""
    return _select(connection, condition, "(SELECT 1)").split(" WHERE ", 1)[1].rpartition(" LIMIT ")[0]


def _select(connection: duckdb.DuckDBPyConnection, condition: dict[str, Any], source: str) -> str:
    """Return a SELECT of the rows of a source that meet a condition, whose columns lose the names of their tables."""
    sql = f"SELECT 1 FROM {source} WHERE true LIMIT 1"  # noqa: S608 - our text
    ((text,),) = connection.execute("SELECT json_serialize_sql($1::VARCHAR)", [sql]).fetchall()
    tree, wanted = json.loads(text), deepcopy(condition)
    for inner in parts_of(wanted):
        if inner.get("class") == "COLUMN_REF":
            inner["column_names"] = inner["column_names"][-1:]
    tree["statements"][0]["node"]["where_clause"] = wanted
    ((made,),) = connection.execute("SELECT json_deserialize_sql($1::JSON)", [json.dumps(tree)]).fetchall()
    return str(made)


def _minutes(span: TimeRange) -> str:
    """Return a source with all minutes of a range."""
    times = (
        f"generate_series(TIMESTAMPTZ '{span.start}', TIMESTAMPTZ '{span.end}' - INTERVAL 1 MICROSECOND, INTERVAL 1 MINUTE) s(t)"
    )
    return f"(SELECT t AS timestamp, year(t) AS year, month(t) AS month FROM {times})"  # noqa: S608 - our text

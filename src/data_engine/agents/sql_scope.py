"""Check that SQL speaks of nothing outside of the symbols and days that it was declared to be about.

Its views have nothing else, so a count of what lies outside is zero, which reads as a fact. DuckDB's own parser takes the SQL
apart, and DuckDB itself tells whether a condition on ``symbol`` or ``timestamp`` can hold inside; under another name, too, as far
as `Names` finds what the name stands for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from copy import deepcopy
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from data_engine.agents.sql_names import Names, Tree, columns_of, constants_of, entries_of, tells_value
from data_engine.errors import InputError
from data_engine.market.time_range import TimeRange, new_york_date
from data_engine.read.statement import parts_of, syntax_parts

if TYPE_CHECKING:
    import duckdb

_DATE = re.compile(r"((?:19|20)\d\d)(?:[-/.]?(\d\d?)(?:[-/.]?(\d\d?))?)?(?!\d)")

_TICKER = re.compile(r"[A-Z][A-Z0-9]{0,5}(?:[./@-][A-Z0-9-]{1,10})?")

_YEAR = re.compile(r"(?:19|20)\d\d")

_WORDS = frozenset({"UTC", "DAY", "HOUR", "MINUTE", "MONTH", "WEEK", "YEAR", "EST", "EDT"})

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
    holding, times = f"(SELECT unnest({sorted(symbols)!r}) AS symbol)", _minutes(span)
    for condition in _meant(parts, Names(parts, views)):
        columns = columns_of(condition)
        of_symbols = columns.keys() == {"symbol"}
        source = holding if of_symbols else times
        if condition["class"] == "FUNCTION" and _value_of(connection, condition, source)[0] != "BOOLEAN":
            continue  # it is no condition
        if not of_symbols:
            inside.check_years(condition)
            for constant in constants_of(condition):
                inside.check_value(_text_of(connection, constant), *_value_of(connection, constant))
        one_row = len(set().union(*columns.values())) == 1  # or columns of two rows are compared
        if one_row and (of_symbols or "symbol" not in columns) and not _can_hold(connection, condition, source):
            raise InputError(_nothing_has(_text_of(connection, condition), of_symbols=of_symbols))


def _nothing_has(text: str, *, of_symbols: bool) -> str:
    if of_symbols:
        return (
            f"cannot run the SQL: none of its symbols has {text}; symbols are capital letters, and those that it is about are "
            "passed in symbols"
        )
    return f"cannot run the SQL: no time of its range has {text}; pass another start or end"


def _meant(parts: Collection[Tree], names: Names) -> Iterator[Tree]:
    """Yield what the conditions on symbols and times stand for.

    Raises:
        InputError: If there are very many.
    """
    count = 0
    for condition in _conditions(parts):
        for meaning in names.meanings(condition):
            found = columns_of(meaning).keys()
            if not found or not found <= _TIMES | {"symbol"}:
                continue
            count += 1
            if count > _MOST_CONDITIONS:
                raise InputError(f"cannot run the SQL: it has more than {_MOST_CONDITIONS} conditions; simplify it")
            yield meaning


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
        if self._is_outside(text):
            self._refuse(repr(text))

    def check_years(self, condition: Tree) -> None:
        """Refuse a number that is a year outside, in a condition on times."""
        for literal in _literals(condition, "INTEGER"):
            if _YEAR.fullmatch(literal) and self._is_outside(literal):
                self._refuse(repr(literal))

    def check_value(self, text: str, kind: str, value: str) -> None:
        """Refuse an expression on which a time depends and whose value is a date or a year outside.

        Args:
            text: The expression.
            kind: The type of its value.
            value: The value as text.
        """
        dated = kind.startswith(("DATE", "TIMESTAMP", "VARCHAR")) or ("INT" in kind and _YEAR.fullmatch(value))
        if dated and self._is_outside(value):
            self._refuse(f"{text}, which is {value!r}")

    def _is_outside(self, text: str) -> bool:
        """Tell whether a text begins with a date, a month or a year outside."""
        found = _DATE.match(text.strip())
        if found is None:
            return False
        try:
            first, last = _days(*(int(part) if part else None for part in found.groups()))
        except ValueError:  # no date
            return False
        # The day after the last is where a range ends that excludes its end.
        return last < self.first or first > self.last + timedelta(days=1)

    def _refuse(self, name: str) -> None:
        raise InputError(
            f"cannot run the SQL: it names {name}, and the range is {self.first} to {self.last}; pass another start or end"
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
    defined = {str(entry["key"]).lower() for part in parts for entry in entries_of(part)}
    for part in parts:
        name = str(part.get("table_name", "")).lower()
        if part.get("type") == "BASE_TABLE" and name not in views and (name not in defined or name.startswith("all_bars_")):
            raise InputError(f"cannot run the SQL: it reads {name!r}; its views are {', '.join(sorted(views))}")


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


def _conditions(parts: Collection[Tree]) -> Iterator[Tree]:
    """Yield the comparisons; of a list (``IN``), one for each of its elements; and the functions, which may be conditions."""
    for part in parts:
        kind = part.get("class")
        if kind == "OPERATOR" and part.get("type") == "COMPARE_IN":
            tested, *elements = part["children"]
            found = [{**part, "children": [tested, element]} for element in elements]
        elif kind in ("COMPARISON", "BETWEEN", "FUNCTION"):
            found = [part]
        else:
            continue
        yield from (one for one in found if tells_value(one))


def _can_hold(connection: duckdb.DuckDBPyConnection, condition: Tree, source: str) -> bool:
    """Tell whether a condition holds for a row of a source; also if DuckDB cannot tell, as of an aggregate."""
    import duckdb

    try:
        return bool(connection.execute(_select(connection, condition, source)).fetchall())
    except duckdb.InterruptException:
        raise
    except duckdb.Error:
        return True


def _value_of(connection: duckdb.DuckDBPyConnection, expression: Tree, source: str = "(SELECT 1)") -> tuple[str, str]:
    """Return the type and the value of an expression, of the first row of a source; nothing if DuckDB cannot tell."""
    import duckdb

    text = _text_of(connection, expression)
    sql = f"SELECT typeof({text}), ({text})::VARCHAR FROM {source} LIMIT 1"  # noqa: S608 - of SQL that only reads
    try:
        ((kind, value),) = connection.execute(sql).fetchall()
    except duckdb.InterruptException:
        raise
    except duckdb.Error:
        return "", ""
    return str(kind), str(value)


def _text_of(connection: duckdb.DuckDBPyConnection, condition: Tree) -> str:
    """Return a condition as SQL."""
    return _select(connection, condition, "(SELECT 1)").split(" WHERE ", 1)[1].rpartition(" LIMIT ")[0]


def _select(connection: duckdb.DuckDBPyConnection, condition: Tree, source: str) -> str:
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

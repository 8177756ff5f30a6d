"""Check that SQL speaks of nothing outside of the symbols and days that it was declared to be about."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from data_engine.errors import InputError
from data_engine.market.time_range import TimeRange, new_york_date

_TEXT = re.compile(r"'((?:[^']|'')*)'")

_DAY = re.compile(r"(\d{4})-\d{1,2}(?:-\d{1,2})?")

_YEAR = re.compile(r"(?<![\w.'])(19\d\d|20\d\d)(?![\w.'])")

_TICKER = re.compile(r"[A-Z][A-Z0-9]{0,5}(?:[./@-][A-Z0-9-]{1,10})?")

_WORDS = frozenset({"UTC", "DAY", "HOUR", "MINUTE", "MONTH", "WEEK", "YEAR", "EST", "EDT"})


def check_sql(sql: str, symbols: Collection[str], span: TimeRange) -> None:
    """Refuse SQL that names a symbol or a year of which its views have nothing, since its result would read as an answer.

    Args:
        sql: The SQL.
        symbols: The symbols of the views.
        span: The range of the views.

    Raises:
        InputError: If a text of the SQL looks like another symbol, or a year lies outside of the range.
    """
    first, last = new_york_date(span.start).year, new_york_date(span.end).year
    for year in _years(sql):
        if not first <= year <= last:
            raise InputError(
                f"cannot run the SQL: it names {year}, and the range has {first} to {last}; pass another start or end"
            )
    for text in _TEXT.findall(sql):
        name = text.replace("''", "'").upper()
        if _TICKER.fullmatch(name) and name not in symbols and name not in _WORDS:
            raise InputError(f"cannot run the SQL: it names {text!r}, which is not among the symbols; pass it in symbols")
        if name in symbols and text not in symbols:
            raise InputError(f"cannot run the SQL: it names {text!r}, and symbols are capital letters; write {name!r}")


def _years(sql: str) -> Iterator[int]:
    """Yield the years that the SQL names, in dates and as numbers."""
    yield from (int(day[1]) for day in _DAY.finditer(sql))
    yield from (int(year[1]) for year in _YEAR.finditer(_TEXT.sub("''", sql)))

"""Compute the file of a bar: one per symbol and UTC month (minutes, hours) or UTC year (days and longer).

`Partition.key` and `Partition.parse` are inverse. The symbol is percent-encoded the same way on every system; the
encoding is UTF-8 and DuckDB and pyarrow decode it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import quote, unquote

from data_engine.market.series import Dataset, Series
from data_engine.market.time_range import TimeRange

_HEAD = re.compile(r"(?P<dataset>equities_[^/]+)/symbol=(?P<symbol>[^/]+)/(?P<tail>year=.*)", re.DOTALL)

_TAIL = re.compile(r"year=(?P<year>\d{4})(/month=(?P<month>\d\d))?/data\.parquet", re.ASCII)


def encode_symbol(symbol: str) -> str:
    """Return a symbol as a part of a path: letters, digits and ``. _ - ~`` stay, all else becomes ``%XX``.

    Windows drops a trailing dot, so that one is encoded too. (Reserved names such as ``CON`` are safe after ``symbol=``.)
    """
    if symbol.isascii() and symbol.isalnum():
        return symbol  # as nearly all are
    text = quote(symbol, safe="", errors="surrogateescape")  # a file name that is no UTF-8 is that of no symbol
    return text[:-1] + "%2E" if text.endswith(".") else text


def decode_symbol(text: str) -> str:
    """Return the symbol that `encode_symbol` encoded."""
    return unquote(text)


@lru_cache(maxsize=1 << 12)
def _period_of(tail: str, *, intraday: bool) -> Period | None:
    """Return the period of a path below the folder of a series, or None if it is not that of a bar file."""
    match = _TAIL.fullmatch(tail)
    if match is None:
        return None
    year, month = int(match["year"]), int(match["month"]) if match["month"] else None
    # A year has a next one, as a date.
    valid = (month is not None) == intraday and month in (None, *range(1, 13)) and 0 < year < 9999
    return Period(year, month) if valid else None


def symbols_of(keys: Iterable[str]) -> list[str]:
    """Return the symbols that have a file such as ``symbol=AAPL.json`` among *keys*, sorted."""
    names = (key.rsplit("/", 1)[-1] for key in keys)
    ours = (name for name in names if name.startswith("symbol=") and name.endswith(".json"))
    return sorted(decode_symbol(name[len("symbol=") : -len(".json")]) for name in ours)


@dataclass(frozen=True, order=True, slots=True)
class Period:
    """A UTC month or a UTC year: the time that one file spans.

    Attributes:
        year: The year, as in the path.
        month: The month, 1 to 12. If None, the whole year.
    """

    year: int
    month: int | None

    def __hash__(self) -> int:
        return self.year * 13 + (self.month or 0)  # in half the time of a tuple's; `status` asks for half a million

    def __contains__(self, instant: datetime) -> bool:
        return instant.year == self.year and self.month in (None, instant.month)

    @property
    def span(self) -> TimeRange:
        """The range in which the bars of the file start."""
        return TimeRange(self.start, self.next().start)

    @property
    def start(self) -> datetime:
        """The first instant."""
        return datetime(self.year, self.month or 1, 1, tzinfo=UTC)

    def next(self) -> Period:
        """Return the next period."""
        if self.month is None:
            return Period(self.year + 1, None)
        return Period(self.year + self.month // 12, self.month % 12 + 1)

    @classmethod
    def of(cls, instant: datetime, dataset: Dataset) -> Period:
        """Return the period of *dataset* that a bar starting at *instant* (UTC) belongs to."""
        return cls(instant.year, instant.month if dataset.timeframe.intraday else None)


def periods(span: TimeRange, dataset: Dataset) -> Iterator[Period]:
    """Yield the periods that *span* touches, in order."""
    period = Period.of(span.start, dataset)
    while period.start < span.end:
        yield period
        period = period.next()


@dataclass(frozen=True, slots=True)
class Partition:
    """One Parquet file: a series and a period."""

    series: Series
    period: Period

    @property
    def key(self) -> str:
        """The file's path below the store, with forward slashes."""
        return file_keys(self.series, (self.period,))[0]

    @classmethod
    def parse(cls, key: str) -> Partition | None:
        """Return the partition of a path, or None if it is not the path of one."""
        match = _HEAD.fullmatch(key)
        series = None if match is None else _series_of(match["dataset"], match["symbol"])
        return None if series is None else cls.in_folder(series, key)

    @classmethod
    def in_folder(cls, series: Series, key: str) -> Partition | None:
        """Return the partition of a path in the folder of a series, or None if it is not the path of one."""
        period = _period_of(key[len(series_folder(series)) + 1 :], intraday=series.dataset.timeframe.intraday)
        return None if period is None else cls(series, period)


@lru_cache(maxsize=64)  # the files of a series come one after the other
def _series_of(name: str, symbol: str) -> Series | None:
    """Return the series of a folder, or None if it is not the folder of one."""
    try:
        dataset = Dataset.from_name(name)
    except ValueError:
        return None
    series = Series(decode_symbol(symbol), dataset)
    return series if series_folder(series) == f"{name}/symbol={symbol}" else None


def file_keys(series: Series, chosen: Iterable[Period]) -> list[str]:
    """Return the paths of some files of a series below the store, with forward slashes."""
    folder = series_folder(series)
    return [
        f"{folder}/year={one.year:04d}/data.parquet"
        if one.month is None
        else f"{folder}/year={one.year:04d}/month={one.month:02d}/data.parquet"
        for one in chosen
    ]


def series_folder(series: Series) -> str:
    """Return the folder of a series below the store."""
    return f"{series.dataset.name}/symbol={encode_symbol(series.symbol)}"

"""Coverage as a JSON file, one interval a line, and back. Pure.

The series of a store share most of their ranges, instants and periods: each is parsed once and is one object in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from itertools import pairwise
from typing import Any

from data_engine.market.series import Dataset, Series
from data_engine.market.time_range import TimeRange, from_iso, iso, union
from data_engine.store.coverage import Coverage, Failure
from data_engine.store.dated_ranges import TENTATIVE, Seen, Tentative, Unconfirmed
from data_engine.store.file_count import Fingerprint
from data_engine.store.filled import Filled, check_source
from data_engine.store.partitions import Period
from data_engine.store.storing import Storing

FORMAT = 1

# ------------------------------------------------------------------------------------------------------- as a JSON file


def key(series: Series) -> str:
    """Return the path of a series' coverage file below the store."""
    from data_engine.store.partitions import encode_symbol

    return f"{folder(series.dataset)}/symbol={encode_symbol(series.symbol)}.json"


def folder(dataset: Dataset) -> str:
    """Return the folder of a dataset's coverage files below the store."""
    return f"metadata/coverage/{dataset.name}"


def dump(coverage: Coverage) -> bytes:
    """Write coverage as the bytes of its JSON file: one interval a line, for people too."""
    dataset = coverage.series.dataset
    failure = coverage.failure
    fields: list[tuple[str, Any]] = [
        ("format", FORMAT),
        ("symbol", coverage.series.symbol),
        ("timeframe", str(dataset.timeframe)),
        ("feed", dataset.feed.value),
        ("adjustment", str(dataset.adjustment)),
        ("wanted", _pairs(coverage.wanted)),
        ("covered", _pairs(coverage.covered)),
        ("provisional", _pairs(coverage.provisional)),
        ("tentative", [_dated(one) for one in coverage.tentative]),
        *([("imported", _pairs(coverage.imported))] if coverage.imported else []),
        *([("unconfirmed", [_dated(one) for one in coverage.unconfirmed])] if coverage.unconfirmed else []),
        *([("filled", to_rows(coverage.filled))] if coverage.filled else []),
        *(
            [("seen", [[iso(one.range.start), iso(one.range.end), iso(one.asked)] for one in coverage.seen])]
            if coverage.seen
            else []
        ),
        *([("conflicting", coverage.conflicting)] if coverage.conflicting else []),
        *([("basis_checked", _stamp(coverage.basis_checked))] if coverage.basis_checked else []),
        ("bars", coverage.bars),
        ("first_bar", _stamp(coverage.first_bar)),
        ("last_bar", _stamp(coverage.last_bar)),
        ("empty_since", _stamp(coverage.empty_since)),
        ("failure", {"code": failure.code, "message": failure.message, "at": iso(failure.at)} if failure else None),
        ("rows", {_period(period): count for period, count in sorted(coverage.rows.items())}),
        ("files", {_period(period): [mark.size, mark.digest] for period, mark in sorted(coverage.files.items())}),
        *([("changing", sorted(map(_period, coverage.changing)))] if coverage.changing else []),
        *(
            [("storing", [[_period(one.period), iso(one.since), one.writer] for one in coverage.storing])]
            if coverage.storing
            else []
        ),
        ("begun", _stamp(coverage.begun)),
        ("updated", _stamp(coverage.updated)),
        ("by", coverage.by),
    ]
    return ("{\n" + ",\n".join(f"  {json.dumps(name)}: {_lines(value)}" for name, value in fields) + "\n}\n").encode()


def load(data: bytes, series: Series, *, fingerprints: bool = True) -> Coverage:
    """Undo `dump`.

    Args:
        data: The content of the file.
        series: The series of the file.
        fingerprints: Whether to return the fingerprints of the bar files; they are half of the memory, and checked in any case.

    Raises:
        ValueError: damaged, of a newer format, or of another series.
    """
    with _damage():
        fields = _fields(data)
        files = {period: Fingerprint(size, digest) for period, size, digest in _files(fields) if fingerprints}
        return _coverage(fields, series, files)


def load_with_sizes(data: bytes, series: Series) -> tuple[Coverage, dict[Period, int]]:
    """Undo `dump`; return the coverage without fingerprints, and the sizes that are in them.

    Raises:
        ValueError: As `load`.
    """
    with _damage():
        fields = _fields(data)
        return _coverage(fields, series, {}), {period: size for period, size, _ in _files(fields)}


@contextmanager
def _damage() -> Iterator[None]:
    """Raise a `ValueError` for whatever may come of a file that is none of ours."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it lacks {error}" if isinstance(error, KeyError) else str(error)) from error


def _fields(data: bytes) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = json.loads(data)
    if fields["format"] != FORMAT:  # first: of another format, nothing else can be told
        raise ValueError(f"its format is {fields['format']!r}, this program knows {FORMAT}")
    return fields


def _coverage(fields: Mapping[str, Any], series: Series, files: Mapping[Period, Fingerprint]) -> Coverage:
    """Return the coverage of the fields of a file, but for the fingerprints in it."""
    dataset = series.dataset
    found = (fields["symbol"], fields["timeframe"], fields["feed"], fields["adjustment"])
    filled = _filled(fields.get("filled", []))
    if found != (series.symbol, *_names_of(dataset)):
        raise ValueError(f"it is the coverage of {' '.join(map(str, found))}")
    if dataset.fill and (fields["wanted"] or fields["covered"] or fields["provisional"]):
        raise ValueError("it has ranges that Alpaca was asked for; bars of another source have none")
    if filled and not dataset.fill:
        raise ValueError("it is the coverage of bars of another source")
    failure = fields["failure"]
    tentative = tuple(Tentative(*_from_dated(row)) for row in fields.get("tentative", ()))
    known = Coverage(
        series,
        wanted=_ranges(fields["wanted"]),
        covered=_ranges(fields["covered"]),
        provisional=_ranges(fields["provisional"]),
        rows=_rows(fields["rows"], dataset),
        files=files,
        first_bar=_instant(fields["first_bar"]),
        last_bar=_instant(fields["last_bar"]),
        empty_since=_instant(fields["empty_since"]),
        failure=Failure(failure["code"], failure["message"], from_iso(failure["at"])) if failure else None,
        begun=_instant(fields.get("begun", fields["updated"])),  # older files have none
        updated=_instant(fields["updated"]),
        by=fields["by"],
        changing=frozenset(_period_of(text) for text in fields.get("changing", ())),
        storing=tuple(
            Storing(_period_of(text), _parsed(since), str(writer)) for text, since, writer in fields.get("storing", ())
        ),
        imported=_ranges(fields.get("imported", [])),
        tentative=tentative,
        unconfirmed=tuple(Unconfirmed(*_from_dated(row)) for row in fields.get("unconfirmed", ())),
        filled=filled,
        seen=tuple(Seen(*_from_dated(row)) for row in fields.get("seen", ())),
        conflicting=_count(fields.get("conflicting", 0)),
        basis_checked=_instant(fields.get("basis_checked")),
    )
    return known if "tentative" in fields else replace(known, tentative=_tentative_by_age(known))


@lru_cache(maxsize=256)
def _names_of(dataset: Dataset) -> tuple[str, str, str]:
    return str(dataset.timeframe), dataset.feed.value, str(dataset.adjustment)


def _dated(one: Tentative | Unconfirmed) -> list[str]:
    return [iso(one.range.start), iso(one.range.end), iso(one.answered)]


def _from_dated(row: list[str]) -> tuple[TimeRange, datetime]:
    start, end, answered = row
    return _range(start, end), _parsed(answered)


def to_rows(filled: Iterable[Filled]) -> list[list[str]]:
    """Return filled ranges as lists of their start, end and source."""
    return [[iso(one.range.start), iso(one.range.end), one.source] for one in filled]


def _filled(rows: list[list[str]]) -> tuple[Filled, ...]:
    made = tuple(Filled(_range(start, end), check_source(source)) for start, end, source in rows)
    if any(before.range.end > after.range.start for before, after in pairwise(made)):
        raise ValueError("its filled ranges overlap or are not in order")
    return made


def _pairs(ranges: Iterable[TimeRange]) -> list[list[str]]:
    return [[iso(piece.start), iso(piece.end)] for piece in ranges]


_FIRST_YEAR, _LAST_YEAR = 1900, 2200  # no exchange has sessions outside; days near 1 and 9999 break the arithmetic of dates


_parsed = lru_cache(maxsize=1 << 14)(from_iso)


@lru_cache(maxsize=1 << 14)
def _range(start: str, end: str) -> TimeRange:
    return TimeRange(_parsed(start), _parsed(end))


def _ranges(pairs: list[list[str]]) -> tuple[TimeRange, ...]:
    return _joined(tuple((start, end) for start, end in pairs)) if pairs else ()


@lru_cache(maxsize=1 << 12)
def _joined(pairs: tuple[tuple[str, str], ...]) -> tuple[TimeRange, ...]:
    """Return the ranges of a list that is in order."""
    made = tuple(_range(start, end) for start, end in pairs)
    if union(made) != made:
        raise ValueError("its ranges overlap or are not in order")
    if made and not (made[0].start.year >= _FIRST_YEAR and made[-1].end.year <= _LAST_YEAR):
        raise ValueError(f"its ranges are not within {_FIRST_YEAR} to {_LAST_YEAR}")
    return made


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"it counts {value!r} conflicting bars")
    return value


def _stamp(instant: datetime | None) -> str | None:
    return None if instant is None else iso(instant)


def _instant(text: str | None) -> datetime | None:
    return None if text is None else _parsed(text)


def _period(period: Period) -> str:
    return f"{period.year:04d}" if period.month is None else f"{period.year:04d}-{period.month:02d}"


@lru_cache(maxsize=1 << 12)
def _period_of(text: str) -> Period:
    year, _, month = text.partition("-")
    return Period(int(year), int(month) if month else None)


def _tentative_by_age(known: Coverage) -> tuple[Tentative, ...]:
    """Return the emptiness that is to be asked for again of a file that says nothing of it, by when the series was begun."""
    since = known.first_bar or known.empty_since
    if since is None or known.begun is None or known.begun - since > TENTATIVE:
        return ()
    empty = (part if known.first_bar is None else part.before(known.first_bar) for part in known.covered)
    return tuple(Tentative(part, known.begun) for part in empty if part is not None)


def _rows(fields: Mapping[str, Any], dataset: Dataset) -> dict[Period, int]:
    rows = {}
    intraday = dataset.timeframe.intraday
    for text, count in fields.items():
        period = _period_of(text)
        if (period.month is not None) != intraday or (intraday and not 0 < period.month < 13):  # type: ignore[operator]
            raise ValueError(f"it counts bars in {_period(period)}, which is no file of {dataset.name}")
        if type(count) is not int or count < 0:
            raise ValueError(f"it counts {count!r} bars in {_period(period)}")
        rows[period] = count
    return rows


def _files(fields: Mapping[str, Any]) -> Iterator[tuple[Period, int, str]]:
    """Yield the sizes and digests of the fingerprints of a coverage; older ones have none."""
    for text, (size, digest) in fields.get("files", {}).items():
        period = _period_of(text)
        if type(size) is not int or not isinstance(digest, str):
            raise ValueError(f"it has {size!r} and {digest!r} for the fingerprint of {_period(period)}")
        yield period, size, digest


def _storing_row(one: Storing) -> list[str]:
    return [_period(one.period), iso(one.since), one.writer]


def _storing(text: str, since: str, writer: str) -> Storing:
    return Storing(_period_of(text), _parsed(since), writer)


def _lines(value: Any) -> str:
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(f"    {json.dumps(item)}" for item in value) + "\n  ]"
    return json.dumps(value)

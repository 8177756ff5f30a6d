"""Convert tables of bars to the DataFrame that users get, and back; read and write its frame metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa

from data_engine.errors import InputError
from data_engine.market.bars import VALUES, Int64s, _chunk, make_table, problems
from data_engine.market.series import Adjustment, Dataset, Feed, Timeframe

if TYPE_CHECKING:
    import pandas as pd

_Kind = TypeVar("_Kind")

_KEYS = ("symbol", "timestamp")


def to_frame(
    tables: Iterable[tuple[str, pa.Table]],
    columns: Sequence[str] = VALUES,
    zone: tzinfo | None = None,
    *,
    rows: int | None = None,
) -> pd.DataFrame:
    """Return bars as a sorted DataFrame with the levels ``symbol`` and ``timestamp`` (``datetime64[ns, UTC]``), all float64.

    Args:
        tables: Pairs of a symbol and its sorted bars; by symbol if *rows* is given.
        columns: The columns of `VALUES` that the tables have besides ``timestamp``.
        zone: The time zone of the timestamps. If None, UTC.
        rows: About how many rows there are, rather more than fewer. Then each table is copied and dropped as it comes, so that
            the bars are in memory once, and the memory of one table serves for the next.
    """
    import pandas as pd

    ordered = sorted(tables, key=lambda item: item[0]) if rows is None else tables
    room = sum(table.num_rows for _, table in ordered) if isinstance(ordered, list) else rows or 0
    times, values = np.empty(room, dtype=np.int64), np.empty((len(columns), room))
    symbols: list[str] = []
    lengths: list[int] = []
    at = 0
    for symbol, table in ordered:
        if not table.num_rows:
            continue
        if at + table.num_rows > times.size:
            times, values = _with_room(times, values, at, at + table.num_rows)
        _fill(times, at, table.column("timestamp"))
        for row, name in zip(values, columns, strict=True):
            _fill(row, at, table.column(name))
        symbols.append(symbol)
        lengths.append(table.num_rows)
        at += table.num_rows
    if at < times.size:
        times, values = _cut_to(times, values, at)
    times *= 1000  # users get nanoseconds: what pandas, and every tool built on it, takes for granted
    distinct, codes = _factorised(times)
    stamps = pd.DatetimeIndex(distinct, dtype=pd.DatetimeTZDtype("ns", "UTC"), copy=False)
    levels: list[Any] = [  # the stubs know only lists of lists, though any index will do
        pd.Index(symbols, dtype="str"),
        stamps if zone is None else stamps.tz_convert(zone),
    ]
    # The types that pandas would convert the codes to.
    numbers: list[Any] = [np.repeat(np.arange(len(symbols), dtype=_smallest(len(symbols))), lengths), codes]
    index = pd.MultiIndex(levels=levels, codes=numbers, names=_KEYS, verify_integrity=False)
    return pd.DataFrame(values.T, index=index, columns=list(columns), copy=False)


def _with_room(times: Int64s, values: Any, filled: int, least: int) -> tuple[Int64s, Any]:
    """Return the same in larger arrays."""
    room = max(least, filled * 3 // 2)
    more, wider = np.empty(room, dtype=np.int64), np.empty((len(values), room))
    more[:filled], wider[:, :filled] = times[:filled], values[:, :filled]
    return more, wider


def _cut_to(times: Int64s, values: Any, filled: int) -> tuple[Int64s, Any]:
    """Return the filled part; without a copy if little was not filled, which costs no memory that was never written to."""
    times, values = times[:filled], values[:, :filled]
    return (times, values) if 4 * filled > 3 * values.strides[0] // 8 else (times.copy(), values.copy())


def _fill(target: Any, at: int, column: pa.ChunkedArray) -> None:
    """Copy a column into *target* from position *at* on: the one copy on the way to a frame."""
    for chunk in column.chunks:
        if len(chunk):
            target[at : at + len(chunk)] = _chunk(chunk, target.dtype.type)
            at += len(chunk)


def _factorised(times: Int64s) -> tuple[Int64s, Any]:
    """Return the distinct times, sorted, and each time's position among them."""
    if (times[1:] > times[:-1]).all():  # one symbol: already both
        return times, np.arange(times.size, dtype=_smallest(times.size))
    return _on_minutes(times) or np.unique(times, return_inverse=True)


_MINUTE = 60_000_000_000

_BLOCK = 1 << 16  # rows whose intermediate results stay in the cache of a core


def _on_minutes(times: Int64s) -> tuple[Int64s, Any] | None:
    """Return what `_factorised` does for times on whole minutes, without sorting them; None for others.

    All bars of Alpaca begin on one, and many symbols have the same: a place for each minute is less work than a sort.
    """
    first = int(times.min())
    count = (int(times.max()) - first) // _MINUTE + 1
    if count > 4 * times.size + (1 << 20):
        return None
    places, seen = np.empty(times.size, np.int32), np.zeros(count, bool)
    for at in range(0, times.size, _BLOCK):
        since = times[at : at + _BLOCK] - first
        minutes = since // _MINUTE
        if (minutes * _MINUTE != since).any():
            return None
        places[at : at + _BLOCK] = minutes
        seen[minutes] = True
    distinct = np.flatnonzero(seen)
    numbers = (np.cumsum(seen, dtype=np.int32) - 1).astype(_smallest(distinct.size))
    return distinct * _MINUTE + first, numbers[places]


def _smallest(size: int) -> type[np.signedinteger[Any]]:
    """Return the type of codes for so many values, as pandas chooses it."""
    return next((kind for kind in (np.int8, np.int16, np.int32) if size < np.iinfo(kind).max), np.int64)


@dataclass(slots=True)
class Folded:
    """The rows of a DataFrame whose (symbol, timestamp) a later row repeats.

    Attributes:
        rows: The rows of the DataFrame.
        repeated: How many a later row repeats.
        differing: How many of these have other values than the last one.
    """

    rows: int = 0
    repeated: int = 0
    differing: int = 0


def from_frame(
    frame: pd.DataFrame, canonical: Callable[[str], str] = str, folded: Folded | None = None
) -> Mapping[str, pa.Table]:
    """Return a DataFrame of bars as one sorted table per symbol.

    Accepts what `to_frame` and alpaca-py's ``.df`` return, and a flat DataFrame with columns ``symbol`` and ``timestamp``. If a
    (symbol, timestamp) occurs twice, the later row wins.

    Args:
        frame: The bars.
        canonical: A function from a symbol as written to the symbol as stored; its errors are passed on.
        folded: Where repeated rows are counted. If None, they are not.

    Raises:
        InputError: If columns are missing, timestamps are naive or finer than microseconds, or a value is not a number.
    """
    flat = _flattened(frame)
    if flat is None:
        return {}
    times = _checked_times(flat["timestamp"])
    values = _floats(flat)
    tables: dict[str, pa.Table] = {}
    for symbol, rows in flat.groupby(_checked_symbols(flat["symbol"], canonical), sort=True, observed=True).indices.items():
        places: Any = rows
        stamps, last = np.unique(times[places][::-1], return_index=True)
        chosen = places[::-1][last]
        if folded is not None:
            _count_folded(folded, values, places, chosen[np.searchsorted(stamps, times[places])])
        table = make_table(times[chosen], [values[name][chosen] for name in VALUES])
        problem = problems(table)
        if problem:
            raise InputError(f"{symbol}: {problem}")
        tables[str(symbol)] = table
    return tables


def _count_folded(folded: Folded, values: Mapping[str, Any], rows: Any, kept: Any) -> None:
    """Count the rows of a symbol in whose place another one is kept."""
    folded.rows += rows.size
    again = rows != kept
    if not again.any():
        return
    lost, winners = rows[again], kept[again]
    differs = np.zeros(lost.size, bool)
    for column in values.values():
        differs |= column[lost] != column[winners]
    folded.repeated += int(lost.size)
    folded.differing += int(np.count_nonzero(differs))


def _flattened(frame: pd.DataFrame) -> pd.DataFrame | None:
    """Return a DataFrame of bars with ``symbol`` and ``timestamp`` as columns, or None if it is alpaca-py's empty response."""
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"cannot store a {type(frame).__name__}; pass a DataFrame of bars")
    levels = [name for name in _KEYS if name in frame.index.names]
    repeated = [name for name in levels if name in frame.columns] + list(frame.columns[frame.columns.duplicated()])
    if repeated:
        raise InputError(f"bars have {', '.join(map(str, repeated))} twice, as two columns or as a column and a level")
    flat = frame.reset_index(level=levels) if levels else frame
    missing = [name for name in (*_KEYS, *VALUES) if name not in flat.columns]
    if missing and frame.empty and not levels:  # alpaca-py's empty response has neither columns nor levels
        return None
    if missing:
        raise InputError(f"bars lack {', '.join(missing)}; they have {', '.join(map(str, flat.columns)) or 'no columns'}")
    return flat


def _checked_times(times: pd.Series) -> Int64s:
    """Return a column of timestamps as microseconds since 1970."""
    import pandas as pd

    if not isinstance(times.dtype, pd.DatetimeTZDtype):
        raise InputError(f"timestamps have no time zone, their type is {times.dtype}; use pd.to_datetime(..., utc=True)")
    if times.isna().any():
        raise InputError("a timestamp is missing (NaT)")
    whole = times.dt.tz_convert("UTC").dt.as_unit("us")
    if not (whole == times).all():
        raise InputError("a timestamp is finer than a microsecond")
    micros: Int64s = whole.astype("int64").to_numpy()
    return micros


def _floats(flat: pd.DataFrame) -> dict[str, Any]:
    try:
        return {name: flat[name].to_numpy(dtype="float64", na_value=np.nan) for name in VALUES}
    except (TypeError, ValueError) as error:
        raise InputError(f"a column of bars does not contain numbers: {error}") from error


def _checked_symbols(symbols: pd.Series, canonical: Callable[[str], str]) -> pd.Series:
    """Return a column of symbols, each as *canonical* writes it."""
    if symbols.isna().any():
        raise InputError("a symbol is missing")
    names = {}
    for name in symbols.unique():
        if not isinstance(name, str):
            raise InputError(f"symbol {name} is not text but {type(name).__name__}")
        names[name] = canonical(name)
    return symbols.map(names)


ATTRS_KEY = "data_engine"
"""The key of the frame metadata in ``DataFrame.attrs``."""


def frame_identity(
    dataset: Dataset, asof: object = None, currency: str | None = None, computed: str | None = None
) -> dict[str, str | None]:
    """Return the frame metadata of bars of a dataset, as fetched, or *computed* from it: how, in words."""
    return {
        "timeframe": str(dataset.timeframe),
        "feed": dataset.feed.value,
        "adjustment": str(dataset.adjustment),
        "asof": None if asof is None else str(asof),
        "currency": None if currency is None else currency.upper(),
        **({} if computed is None else {"computed": computed}),
    }


def is_marked(bars: pd.DataFrame) -> bool:
    """Return whether a DataFrame has the frame metadata that say which bars it has."""
    return bool(bars.attrs.get(ATTRS_KEY))


def dataset_of_frame(bars: pd.DataFrame, timeframe: object, feed: object, adjustment: object) -> Dataset:
    """Return the dataset of a DataFrame of bars: by the arguments, else by the frame metadata, else minutes, sip, raw.

    Raises:
        InputError: If an argument contradicts the frame metadata, or the store has no dataset for these bars.
    """
    metadata = bars.attrs.get(ATTRS_KEY) or {}
    if metadata.get("computed") is not None:
        raise InputError(f"these bars were computed ({metadata['computed']}); a store holds only bars as Alpaca sent them")
    for name in ("asof", "currency"):
        if metadata.get(name) not in (None, "USD"):
            raise InputError(
                f"these bars were fetched with {name}={metadata[name]}; the store could not tell them from ordinary ones"
            )
    return Dataset(
        timeframe=_chosen("timeframe", timeframe, metadata, Timeframe.parse, "1Min"),
        feed=_chosen("feed", feed, metadata, lambda value: Feed.parse(value).stored),
        adjustment=_chosen("adjustment", adjustment, metadata, Adjustment.parse),
    )


def _chosen(
    name: str, given: object, metadata: Mapping[str, object], parse: Callable[[object], _Kind], default: object = None
) -> _Kind:
    """Return an argument, or what the frame metadata says in its place; they must not contradict each other."""
    if given is None:
        return parse(metadata.get(name, default))
    value = parse(given)
    if name in metadata and parse(metadata[name]) != value:
        fetched = metadata[name]
        raise InputError(f"{name}={given!r} contradicts the bars, which were fetched with {name}={fetched!r}; omit {name}")
    return value

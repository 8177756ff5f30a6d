"""A table of bars as the pandas frame that users get, and back; and what a frame says of itself in ``attrs``. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from data_engine.errors import InputError
from data_engine.market.bars import VALUES, Int64s, _chunk, make_table, problems
from data_engine.market.series import Adjustment, Dataset, Feed, Timeframe

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def to_frame(tables: Iterable[tuple[str, pa.Table]], columns: Sequence[str] = VALUES) -> pd.DataFrame:
    """Make the frame that users get: levels ``symbol`` and ``timestamp`` (``datetime64[ns, UTC]``), float64 columns, sorted.

    Args:
        tables: symbol and its bars, sorted.
        columns: those of `VALUES` that the tables have beside ``timestamp``.
    """
    import pandas as pd

    pieces = [(symbol, table) for symbol, table in sorted(tables, key=lambda item: item[0]) if table.num_rows]
    lengths = [table.num_rows for _, table in pieces]
    times = np.empty(sum(lengths), dtype=np.int64)
    values = np.empty((len(columns), times.size))
    at = 0
    for _, table in pieces:
        _fill(times, at, table.column("timestamp"))
        for row, name in zip(values, columns, strict=True):
            _fill(row, at, table.column(name))
        at += table.num_rows
    times *= 1000  # users get nanoseconds: what pandas, and every tool built on it, takes for granted
    distinct, codes = _factorised(times)
    levels: list[Any] = [  # the stubs know lists of lists alone, though any index will do
        pd.Index([symbol for symbol, _ in pieces], dtype="str"),
        pd.DatetimeIndex(distinct.view("datetime64[ns]"), tz="UTC"),
    ]
    rows: list[Any] = [np.repeat(np.arange(len(pieces)), lengths), codes]
    index = pd.MultiIndex(levels=levels, codes=rows, names=["symbol", "timestamp"], verify_integrity=False)
    return pd.DataFrame(values.T, index=index, columns=list(columns), copy=False)


def _fill(target: Any, at: int, column: pa.ChunkedArray) -> None:
    """Copy a column into *target* from position *at* on: the one copy on the way to a frame."""
    for chunk in column.chunks:
        if len(chunk):
            target[at : at + len(chunk)] = _chunk(chunk, target.dtype.type)
            at += len(chunk)


def _factorised(times: Int64s) -> tuple[Int64s, Int64s]:
    """Return the distinct times, sorted, and each time's position among them."""
    if (np.diff(times) > 0).all():  # one symbol: already both
        return times, np.arange(times.size)
    return np.unique(times, return_inverse=True)


def from_frame(frame: pd.DataFrame, canonical: Callable[[str], str] = str) -> Mapping[str, pa.Table]:
    """Read a user's frame of bars into one table per symbol, sorted.

    Accepts what `to_frame` and alpaca-py's ``.df`` make, and a flat frame with columns ``symbol`` and ``timestamp``. Where a
    frame holds a (symbol, timestamp) twice, the later row wins.

    Args:
        frame: of the user's.
        canonical: makes one symbol of its spellings; what it refuses, it raises.

    Raises:
        InputError: columns are missing, stamps are naive or finer than microseconds, or a value is not a number.
    """
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"store takes a DataFrame of bars, not {type(frame).__name__}")
    index_names = [name for name in ("symbol", "timestamp") if name in frame.index.names]
    twice = [name for name in index_names if name in frame.columns] + list(frame.columns[frame.columns.duplicated()])
    if twice:
        raise InputError(f"bars have {', '.join(map(str, twice))} twice, as columns or as a column and a level")
    flat = frame.reset_index(level=index_names) if index_names else frame
    lacking = [name for name in ("symbol", "timestamp", *VALUES) if name not in flat.columns]
    if lacking:
        if frame.empty and not index_names:  # alpaca-py's empty answer has neither columns nor levels
            return {}
        raise InputError(f"bars lack {', '.join(lacking)}; they have {', '.join(map(str, flat.columns)) or 'no columns'}")
    times = flat["timestamp"]
    if not isinstance(times.dtype, pd.DatetimeTZDtype):
        raise InputError(f"timestamps must be aware (UTC), they are {times.dtype}; use pd.to_datetime(..., utc=True)")
    if times.isna().any():
        raise InputError("a timestamp is missing (NaT)")
    whole = times.dt.tz_convert("UTC").dt.as_unit("us")
    if not (whole == times).all():
        raise InputError("a timestamp is finer than a microsecond")
    tables: dict[str, pa.Table] = {}
    try:
        values = {name: flat[name].to_numpy(dtype="float64", na_value=np.nan) for name in VALUES}
    except (TypeError, ValueError) as error:
        raise InputError(f"a column of bars does not hold numbers: {error}") from error
    if flat["symbol"].isna().any():
        raise InputError("a symbol is missing")
    raw = whole.astype("int64").to_numpy()
    names = {name: _spelled(name, canonical) for name in flat["symbol"].unique()}
    for symbol, rows in flat.groupby(flat["symbol"].map(names), sort=True).indices.items():
        _, last = np.unique(raw[rows][::-1], return_index=True)
        chosen = rows[::-1][last]
        table = make_table(raw[chosen], [values[name][chosen] for name in VALUES])
        trouble = problems(table)
        if trouble:
            raise InputError(f"{symbol}: {trouble}")
        tables[str(symbol)] = table
    return tables


def _spelled(name: object, canonical: Callable[[str], str]) -> str:
    if not isinstance(name, str):
        raise InputError(f"symbol {name} is not text but {type(name).__name__}")
    return canonical(name)


ATTRS_KEY = "data_engine"
"""The key in a frame's ``attrs``."""


def frame_identity(
    dataset: Dataset, asof: object = None, currency: str | None = None, computed: str | None = None
) -> dict[str, str | None]:
    """Return the mark of a frame with bars of a dataset, as they were fetched, or *computed* from it: what, in words."""
    return {
        "timeframe": str(dataset.timeframe),
        "feed": dataset.feed.value,
        "adjustment": str(dataset.adjustment),
        "asof": None if asof is None else str(asof),
        "currency": None if currency is None else currency.upper(),
        **({} if computed is None else {"computed": computed}),
    }


def dataset_of_frame(bars: pd.DataFrame, timeframe: object, feed: object, adjustment: object) -> Dataset:
    """Return which bars a frame holds: what its mark says, what the arguments say, else minutes, sip, raw.

    Raises:
        InputError: an argument contradicts the mark, or the bars are of a kind that the store does not tell apart.
    """
    found = bars.attrs.get(ATTRS_KEY) or {}
    if found.get("computed") is not None:
        raise InputError(f"these bars were computed ({found['computed']}); a store holds what the vendor gave")
    for name in ("asof", "currency"):
        if found.get(name) not in (None, "USD"):
            raise InputError(
                f"these bars were fetched with {name}={found[name]}; the store could not tell them from ordinary ones"
            )
    chosen: dict[str, object] = {}
    parsers = {"timeframe": Timeframe.parse, "feed": lambda value: Feed.parse(value).stored, "adjustment": Adjustment.parse}
    given = {"timeframe": timeframe, "feed": feed, "adjustment": adjustment}
    for name, parse in parsers.items():
        meant = parse(found[name]) if name in found else None
        said = parse(given[name]) if given[name] is not None else None
        if meant is not None and said is not None and said != meant:
            shown = found[name]
            raise InputError(f"{name}={given[name]!r} contradicts the bars, which were fetched with {name}={shown!r}")
        chosen[name] = (
            said if said is not None else meant if meant is not None else parse("1Min" if name == "timeframe" else None)
        )
    return Dataset(chosen["timeframe"], chosen["adjustment"], chosen["feed"])  # type: ignore[arg-type]

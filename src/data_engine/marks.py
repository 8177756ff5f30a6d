"""What a frame of bars says of itself, so that days cannot land among minutes unnoticed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from data_engine.bars import Int64s, instant, stamps
from data_engine.errors import InputError
from data_engine.ranges import NEW_YORK, iso
from data_engine.series import Adjustment, Dataset, Feed, Timeframe

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_DAY = 86_400_000_000  # microseconds

MARK = "data_engine"
"""The key in a frame's ``attrs``."""


def mark(
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


def marked(bars: pd.DataFrame, timeframe: object, feed: object, adjustment: object) -> Dataset:
    """Return which bars a frame holds: what its mark says, what the arguments say, else minutes, sip, raw.

    Raises:
        InputError: an argument contradicts the mark, or the bars are of a kind that the store does not tell apart.
    """
    found = bars.attrs.get(MARK) or {}
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


def check_stamps(tables: Mapping[str, pa.Table], dataset: Dataset) -> None:
    """Check that every bar starts where bars of the dataset's timeframe do.

    Args:
        tables: bars by symbol.
        dataset: that they are to be stored in.

    Raises:
        InputError: one does not; or minutes or hours are all midnights, which no session has: they are daily bars.
    """
    timeframe = dataset.timeframe
    for symbol, table in tables.items():
        wrong = off_grid(stamps(table), timeframe)
        if wrong.size:
            stamp = iso(instant(wrong[0]))
            raise InputError(f"{symbol}: {stamp} is not the start of a {timeframe} bar; say which timeframe these bars have")
    if timeframe.intraday and tables:
        every = np.concatenate([stamps(table) for table in tables.values()])
        if _only_midnights(every, overnight=dataset.feed not in (Feed.SIP, Feed.IEX)):
            raise InputError("every stamp is a midnight: these are daily bars; say timeframe='1Day'")


def off_grid(times: Int64s, timeframe: Timeframe) -> Int64s:
    """Return the stamps that are not where a bar of *timeframe* starts."""
    if timeframe.intraday:
        step = int(timeframe.length.total_seconds()) * 1_000_000
        off = times % _DAY % step != 0
    else:
        off = np.array([timeframe.floor(instant(time)) != instant(time) for time in times], dtype=bool)
    wrong: Int64s = times[off]
    return wrong


def _only_midnights(times: Int64s, *, overnight: bool) -> bool:
    """Tell whether all stamps are midnights of New York, or of UTC on several days. Only overnight feeds have one by chance."""
    if not times.size or (times % 3_600_000_000).any():
        return False
    several = np.unique(times // _DAY).size > 1
    clocks = {instant(time).astimezone(NEW_YORK).hour for time in np.unique(times)}
    if clocks == {0}:
        return several or not overnight
    return several and not (times % _DAY).any()

"""What a frame of bars says of itself, so that days cannot land among minutes unnoticed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from data_engine.bars import stamps
from data_engine.errors import InputError
from data_engine.ranges import NEW_YORK, iso
from data_engine.series import Adjustment, Dataset, Feed, Timeframe

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

MARK = "data_engine"
"""The key in a frame's ``attrs``."""


def mark(dataset: Dataset, asof: object = None, currency: str | None = None) -> dict[str, str | None]:
    """Return the mark of a frame with bars of a dataset, as they were fetched."""
    return {
        "timeframe": str(dataset.timeframe),
        "feed": dataset.feed.value,
        "adjustment": str(dataset.adjustment),
        "asof": None if asof is None else str(asof),
        "currency": None if currency is None else currency.upper(),
    }


def marked(bars: pd.DataFrame, timeframe: object, feed: object, adjustment: object) -> Dataset:
    """Return which bars a frame holds: what its mark says, what the arguments say, else minutes, sip, raw.

    Raises:
        InputError: an argument contradicts the mark, or the bars are of a kind that the store does not tell apart.
    """
    found = bars.attrs.get(MARK) or {}
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


def check_stamps(symbol: str, table: pa.Table, timeframe: Timeframe) -> None:
    """Check that every bar of a table starts where bars of *timeframe* do.

    Raises:
        InputError: one does not; or all of them are midnights, which no session's minutes are.
    """
    times = stamps(table)
    if timeframe.intraday:
        step = int(timeframe.length.total_seconds()) * 1_000_000
        wrong = np.flatnonzero(times % 86_400_000_000 % step)
        midnights = 0
        if not wrong.size and len(times) > 1 and not (times % 3_600_000_000).any():
            clocks = [datetime.fromtimestamp(int(time) // 1_000_000, NEW_YORK) for time in times]
            midnights = sum(clock.hour == 0 and clock.minute == 0 for clock in clocks)
        if len(times) > 1 and midnights == len(times):
            raise InputError(f"{symbol}: every stamp is midnight in New York: these are daily bars; say timeframe='1Day'")
    else:
        instants = [datetime.fromtimestamp(int(time) // 1_000_000, UTC) for time in times]
        off = [timeframe.floor(instant) != instant for instant in instants]
        wrong = np.flatnonzero(np.array(off) | (times % 1_000_000 != 0))
    if wrong.size:
        stamp = iso(datetime.fromtimestamp(int(times[wrong[0]]) // 1_000_000, UTC))
        raise InputError(f"{symbol}: {stamp} is not the start of a {timeframe} bar; say which timeframe these bars have")

"""Compare the daily bars of a series with each other: repeated bars, and volumes of another order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_engine.market.bars import from_micros
from data_engine.market.series import Series
from data_engine.market.time_range import new_york_date
from data_engine.market.wording import and_more, plural
from data_engine.verify.file_bars import FileBars
from data_engine.verify.findings import Finding
from data_engine.verify.session_habits import SIZE, VOLUME, odd_levels

_SHOWN = 3

_AROUND = 10

_MOST = 2  # of the 20 days around may be without volume, too

_COLUMNS = ("open", "high", "low", "close", "volume")


def compare_days(series: Series, files: Sequence[FileBars]) -> Iterator[Finding]:
    """Yield the findings about daily bars that repeat the day before, and about unusual volumes.

    Args:
        series: The series.
        files: Its files, in order.
    """
    times = np.concatenate([bars.times for bars in files])
    values = {name: np.concatenate([bars[name] for bars in files]) for name in (*_COLUMNS, "trade_count")}
    same = np.all([values[name][1:] == values[name][:-1] for name in _COLUMNS], axis=0)
    same &= (values["high"][1:] > values["low"][1:]) & (values["volume"][1:] > 0)
    repeated = [f"{_day(times[row + 1])} equals {_day(times[row])}" for row in np.flatnonzero(same).tolist()]
    if repeated:
        yield Finding("session_repeated", f"daily bars repeat the one before: {and_more(repeated, _SHOWN)}", series)
    texts = [*_without(times, values["volume"]), *_levels(times, values)]
    if texts:
        yield Finding("volume_unusual", and_more(texts, _SHOWN, separator="; "), series)


def _without(times: Any, volume: Any) -> Iterator[str]:
    """Yield the days without volume, if nearly all days around have some."""
    none = volume <= 0
    if not none.any():
        return
    sums = np.concatenate([[0], np.cumsum(none)])
    edges = np.diff(np.concatenate([[0], none.view(np.int8), [0]]))
    for first, last in zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True):
        low, high = max(first - _AROUND, 0), min(last + _AROUND, none.size)
        if high - low - (last - first) >= _AROUND and sums[high] - sums[low] - (last - first) <= _MOST:
            yield f"{plural(last - first, 'day')} from {_day(times[first])} on without volume"


def _levels(times: Any, values: dict[str, Any]) -> Iterator[str]:
    some = (values["volume"] > 0) & (values["close"] > 0)
    if values["trade_count"].any():
        some &= values["trade_count"] > 0
        sizes = np.log(values["volume"][some] * values["close"][some] / values["trade_count"][some])
        return odd_levels(times[some], sizes, SIZE, "dollars per trade")
    return odd_levels(times[some], np.log(values["volume"][some]), VOLUME, "volume")


def _day(time: int) -> str:
    return new_york_date(from_micros(time)).isoformat()

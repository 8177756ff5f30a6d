"""Flag bars with improbable prices or volumes.

Real bars include such outliers, so these are warnings, and no bar is dropped. Each rule counts bars and has a few examples. The
thresholds flag almost no real consolidated minutes; docs/explanation/verification.md has the counts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine.market.bars import Int64s, from_micros, numbers, timestamps_us, to_micros
from data_engine.market.exchange_calendar import is_session, regular_hours
from data_engine.market.series import Dataset, Series
from data_engine.market.time_range import iso, new_york_date, new_york_midnight
from data_engine.verify.findings import Finding

JUMP = 1.3
"""The maximum ratio between the open of a session and the close of the one before, either way."""

SPIKE = 1.3
"""The maximum ratio between a bar's close and those of its two neighbors, which agree within `_AGREE`."""

_AGREE = 1.05

_ROUNDED = 1e-4  # dollars: Alpaca rounds vwap to four decimals

_LOOSE = 1e-4  # relative

_EXAMPLES = 3

_FAR = 45 * 86_400_000_000  # microseconds: after a longer time without bars any price is plausible

_PRICES = ("open", "high", "low", "close")


@dataclass(frozen=True, slots=True)
class Flag:
    """The bars of a series that break one rule.

    Attributes:
        code: ``price_order``, ``price_not_positive``, ``volume_negative``, ``vwap_outside``, ``price_jump`` or ``price_spike``.
        count: The number of bars.
        examples: The first few, as text.
    """

    code: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        more = f" and {self.count - len(self.examples):,} more" if self.count > len(self.examples) else ""
        return f"{_WORDS[self.code]}: {'; '.join(self.examples)}{more}"


_WORDS = {
    "price_order": "bars whose open or close is not between low and high",
    "price_not_positive": "bars with a price of zero or less",
    "volume_negative": "bars with a negative volume or trade count",
    "vwap_outside": "bars whose vwap is not between low and high",
    "price_jump": f"prices that jump between sessions by more than a factor of {JUMP:g}, without a known corporate action",
    "price_spike": f"bars that differ from both neighbors by more than a factor of {SPIKE:g}",
}


class PriceChecks:
    """Check the bars of one series.

    Args:
        dataset: The dataset of the series.
        ex_dates: The New York days on which a corporate action explains a price jump.
    """

    def __init__(self, dataset: Dataset, ex_dates: Collection[date] = ()) -> None:
        self._dataset = dataset
        self._ex_dates = frozenset(ex_dates)
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}
        self._closed: float | None = None  # the close of the last session
        self._closed_at = 0
        self._far = max(_FAR, 2 * int(dataset.timeframe.length.total_seconds() * 1e6))

    def add(self, table: pa.Table) -> None:
        """Check the bars of the next file, in order of time."""
        if not table.num_rows:
            return
        times = timestamps_us(table)
        values = {name: numbers(table.column(name)) for name in (*_PRICES, "volume", "trade_count", "vwap")}
        for code, wrong in _rules(values).items():
            self._flag_rows(code, np.flatnonzero(wrong), times, values)
        if self._dataset.timeframe.intraday:
            self._flag_rows("price_spike", _spikes(values["close"]), times, values)
        self._flag_jumps(times, values)

    def findings(self, series: Series) -> list[Finding]:
        """Return a warning per rule that bars break."""
        return [Finding(flag.code, str(flag), series) for flag in self.flags]

    @property
    def flags(self) -> list[Flag]:
        """The rules that bars break, by code."""
        return [Flag(code, count, tuple(self._examples[code])) for code, count in sorted(self._counts.items())]

    def _flag(self, code: str, count: int, examples: Iterable[str]) -> None:
        if count:
            self._counts[code] = self._counts.get(code, 0) + count
            shown = self._examples.setdefault(code, [])
            shown += islice(examples, _EXAMPLES - len(shown))

    def _flag_rows(self, code: str, rows: Any, times: Int64s, values: dict[str, Any]) -> None:
        examples = (f"{iso(from_micros(times[row]))} {_values_text(code, values, row)}" for row in rows.tolist())
        self._flag(code, int(rows.size), examples)

    def _flag_jumps(self, times: Int64s, values: dict[str, Any]) -> None:
        """Compare the first price of each session with the last price of the session before."""
        for first, last in zip(*_sessions(times, self._dataset), strict=True):
            opened, before, apart = float(values["open"][first]), self._closed, int(times[first]) - self._closed_at
            self._closed, self._closed_at = float(values["close"][last]), int(times[last])
            if before is None or not (before > 0 and opened > 0) or apart > self._far:
                continue
            start = from_micros(times[first])
            if not 1 / JUMP <= opened / before <= JUMP and new_york_date(start) not in self._ex_dates:
                self._flag("price_jump", 1, [f"{iso(start)} from {before:g} to {opened:g}"])


def _rules(values: dict[str, Any]) -> dict[str, Any]:
    """Return the bars that break a rule about single bars, by code."""
    low, high, vwap = values["low"], values["high"], values["vwap"]
    inner_low, inner_high = np.minimum(values["open"], values["close"]), np.maximum(values["open"], values["close"])
    slack = _ROUNDED + _LOOSE * np.abs(high)
    return {
        "price_order": (low > high) | (inner_low < low) | (inner_high > high),
        "price_not_positive": np.minimum(inner_low, np.minimum(low, high)) <= 0,
        "volume_negative": (values["volume"] < 0) | (values["trade_count"] < 0),
        "vwap_outside": (vwap < low - slack) | (vwap > high + slack),
    }


def _spikes(close: Any) -> Any:
    """Return the rows whose close differs from those of both neighbors, which agree with each other."""
    if close.size < 3:
        return np.empty(0, np.int64)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.where(close > 0, close, np.nan))
    before, here, after = logs[:-2], logs[1:-1], logs[2:]
    far = (np.abs(here - before) > np.log(SPIKE)) & (np.abs(here - after) > np.log(SPIKE))
    return np.flatnonzero(far & (np.abs(after - before) < np.log(_AGREE))) + 1


def _sessions(times: Int64s, dataset: Dataset) -> tuple[list[int], list[int]]:
    """Return the rows of the first and last bar of each session's regular hours; for bars of a day or longer, every row."""
    if not dataset.timeframe.intraday:
        rows = list(range(times.size))
        return rows, rows
    firsts, lasts = [], []
    at = 0
    while at < times.size:
        day = new_york_date(from_micros(times[at]))
        if is_session(day):
            hours = regular_hours(day)
            start, stop = np.searchsorted(times, [to_micros(hours.start), to_micros(hours.end)]).tolist()
            if stop > start:
                firsts.append(start)
                lasts.append(stop - 1)
            at = max(at, stop)
        at = _next_day(times, at, day)
    return firsts, lasts


def _next_day(times: Int64s, at: int, day: date) -> int:
    """Return the first row from *at* on of a later New York day."""
    return max(at, int(np.searchsorted(times, to_micros(new_york_midnight(day + timedelta(days=1))))))


def _values_text(code: str, values: dict[str, Any], row: int) -> str:
    names = {
        "volume_negative": ("volume", "trade_count"),
        "vwap_outside": ("low", "high", "vwap"),
        "price_spike": ("close",),
    }.get(code, _PRICES)
    return " ".join(f"{name} {values[name][row]:g}" for name in names)

"""Bars against sanity: what no market should print, flagged and never dropped. Pure.

Real bars have odd ones among them (an open outside its high and low, an outlier that stayed), so nothing here is an error:
every rule counts what it meets, and keeps a few examples. The thresholds were set on real consolidated minutes, of which they
flag next to none; docs/explanation/verification.md has the counts.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine.market.bars import Int64s, from_micros, numbers, timestamps_us, to_micros
from data_engine.market.exchange_calendar import is_session, regular_hours
from data_engine.market.series import Dataset
from data_engine.market.time_range import iso, new_york_date, new_york_midnight

JUMP = 1.3
"""A session's open beside the session before's close: a ratio of more than this, or of less than 1 / this, is a jump."""

SPIKE = 1.3
"""A bar's close beside those of its two neighbours, by the same ratio; the neighbours agree within `_AGREE`."""

_AGREE = 1.05

_ROUNDED = 1e-4  # dollars: the vendor rounds a vwap to four decimals

_LOOSE = 1e-4  # relative

_EXAMPLES = 3

_FAR = 45 * 86_400_000_000  # microseconds: over a longer time without bars a price may go anywhere

_PRICES = ("open", "high", "low", "close")


@dataclass(frozen=True, slots=True)
class Flag:
    """What one rule met in a series.

    Attributes:
        code: ``price_order``, ``price_not_positive``, ``volume_negative``, ``vwap_outside``, ``price_jump`` or ``price_spike``.
        count: how many bars.
        examples: the first few, for people.
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
    "price_jump": f"prices that jump between sessions by more than a factor of {JUMP:g}, with no action known",
    "price_spike": f"bars that stand out from both neighbours by more than a factor of {SPIKE:g}",
}


class SanityCheck:
    """Looks at the bars of one series, file by file in order of time.

    Args:
        dataset: of the series.
        ex_dates: days (New York) on which a corporate action explains a jump.
    """

    def __init__(self, dataset: Dataset, ex_dates: Collection[date] = ()) -> None:
        self._dataset = dataset
        self._ex_dates = frozenset(ex_dates)
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}
        self._closed: float | None = None  # the close of the last session so far
        self._closed_at = 0
        self._far = max(_FAR, 2 * int(dataset.timeframe.length.total_seconds() * 1e6))

    def look(self, table: pa.Table) -> None:
        """Take the bars of the next file, by `BAR_SCHEMA`."""
        if not table.num_rows:
            return
        times = timestamps_us(table)
        values = {name: numbers(table.column(name)) for name in (*_PRICES, "volume", "trade_count", "vwap")}
        for code, wrong in _rules(values).items():
            self._note(code, times, np.flatnonzero(wrong), values)
        if self._dataset.timeframe.intraday:
            self._note("price_spike", times, _spikes(values["close"]), values)
        self._look_at_jumps(times, values)

    @property
    def flags(self) -> list[Flag]:
        """What was met, by code."""
        return [Flag(code, count, tuple(self._examples[code])) for code, count in sorted(self._counts.items())]

    def _note(self, code: str, times: Int64s, rows: Any, values: dict[str, Any]) -> None:
        if rows.size:
            self._counts[code] = self._counts.get(code, 0) + int(rows.size)
            kept = self._examples.setdefault(code, [])
            for row in rows[: _EXAMPLES - len(kept)].tolist():
                kept.append(f"{iso(from_micros(times[row]))} {_shown(code, values, row)}")

    def _look_at_jumps(self, times: Int64s, values: dict[str, Any]) -> None:
        """Hold each session's first price against the last price of the session before."""
        for first, last in zip(*_sessions(times, self._dataset), strict=True):
            opened, before, apart = float(values["open"][first]), self._closed, int(times[first]) - self._closed_at
            self._closed, self._closed_at = float(values["close"][last]), int(times[last])
            if before is None or not (before > 0 and opened > 0) or apart > self._far:
                continue
            ratio = opened / before
            if 1 / JUMP <= ratio <= JUMP or new_york_date(from_micros(times[first])) in self._ex_dates:
                continue
            self._counts["price_jump"] = self._counts.get("price_jump", 0) + 1
            kept = self._examples.setdefault("price_jump", [])
            if len(kept) < _EXAMPLES:
                kept.append(f"{iso(from_micros(times[first]))} from {before:g} to {opened:g}")


def _rules(values: dict[str, Any]) -> dict[str, Any]:
    """Return which bars break which rule about one bar alone."""
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
    """Return the rows whose close differs from both neighbours', which agree with each other."""
    if close.size < 3:
        return np.empty(0, np.int64)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.where(close > 0, close, np.nan))
    before, here, after = logs[:-2], logs[1:-1], logs[2:]
    far = (np.abs(here - before) > np.log(SPIKE)) & (np.abs(here - after) > np.log(SPIKE))
    return np.flatnonzero(far & (np.abs(after - before) < np.log(_AGREE))) + 1


def _sessions(times: Int64s, dataset: Dataset) -> tuple[list[int], list[int]]:
    """Return the rows of each session's first and last bar: of its regular hours, or every bar where bars are days or longer."""
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
    """Return the first row from *at* on that is of a later New York day."""
    return max(at, int(np.searchsorted(times, to_micros(new_york_midnight(day + timedelta(days=1))))))


def _shown(code: str, values: dict[str, Any], row: int) -> str:
    names = {
        "volume_negative": ("volume", "trade_count"),
        "vwap_outside": ("low", "high", "vwap"),
        "price_spike": ("close",),
    }.get(code, _PRICES)
    return " ".join(f"{name} {values[name][row]:g}" for name in names)

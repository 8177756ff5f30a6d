"""Judge absent bars of a day or longer: a day without a trade, or a bar that is missing.

Many healthy series skip days. A single absent day is surprising only if the series skips no other, and the bars next to it have
so many trades that a day without one is improbable; a run of days if its probability by the habit of the series is tiny.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from data_engine.market.bars import Int64s

YEAR = 250
"""The number of sessions before and after that tell the habit."""

_LEAST = 20  # with fewer known sessions around, nothing is surprising

_BUSY = 100.0  # trades in the quietest of the bars around: a day without one is improbable

_VERY_BUSY = 1000.0

_NEXT = 10  # bars on each side whose trades count


def trades_around(starts: Int64s, times: Int64s, trades: Any) -> Any:
    """Return for each session the trades of the quietest of the ten bars before it and the ten after it.

    Args:
        starts: The start of the bar of each session, ascending.
        times: The timestamps of the bars, ascending.
        trades: The number of trades of each bar.
    """
    padded = np.concatenate([np.full(_NEXT, np.inf), trades, np.full(_NEXT + 1, np.inf)])
    lowest = np.lib.stride_tricks.sliding_window_view(padded, _NEXT).min(axis=1)
    at = np.searchsorted(times, starts)
    present = (
        (at < times.size) & (times[np.minimum(at, max(times.size - 1, 0))] == starts) if times.size else np.zeros(at.size, bool)
    )
    return np.minimum(lowest[at], lowest[at + _NEXT + present])


def surprising_days(rows: Int64s, filled: Any, alive: slice, trades: Any, chance: float) -> Any:
    """Return for each session whether an absent bar would be surprising.

    Args:
        rows: The place of each covered session in the calendar, ascending.
        filled: Whether each has a bar.
        alive: The covered sessions from the first to the last with a bar.
        trades: The result of `trades_around`. If None, nothing is known of trades.
        chance: The logarithm of the probability below which a run of absent bars is surprising.
    """
    surprising = np.zeros(rows.size, bool)
    rows, filled = rows[alive], filled[alive]
    if not rows.size:
        return surprising
    empty = ~filled
    first, last = _runs(rows, empty)
    low, high = np.searchsorted(rows, rows - YEAR), np.searchsorted(rows, rows + YEAR, side="right")
    sums = np.concatenate([[0], np.cumsum(empty)])
    length = last - first
    others = sums[high] - sums[low] - np.where(empty, length, 0)
    known = high - low - length
    probable = length * np.log((others + 0.5) / (known + 1)) >= chance
    ever, sessions = int(sums[-1]) - np.where(empty, length, 0), rows.size - length
    if trades is None:
        lone = ever == 0
    else:
        least = trades[alive]
        lone = (ever == 0) & ((least >= _BUSY) | ((least <= 0) & (sessions >= YEAR)))
        lone |= (ever * YEAR <= sessions) & (least >= _VERY_BUSY)
    surprising[alive] = (known >= _LEAST) & (lone | ~probable)
    return surprising


def _runs(rows: Int64s, empty: Any) -> tuple[Int64s, Int64s]:
    """Return the first and the one after the last position of the run of absent bars around each; of a present bar, its own."""
    count = rows.size
    breaks = np.ones(count + 1, bool)
    breaks[1:-1] = ~(empty[1:] & empty[:-1]) | (np.diff(rows) > 1)
    edges = np.flatnonzero(breaks)
    at = np.searchsorted(edges, np.arange(count), side="right") - 1
    return edges[at], edges[at + 1]

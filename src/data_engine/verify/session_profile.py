"""Measure each session of a series of minutes: bars by part of the day, volume, repetitions. Later rules compare the sessions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data_engine.market.bars import Int64s
from data_engine.verify.file_bars import FileBars, SessionRows, reduce_rows

MINUTE = 60_000_000  # microseconds

AROUND = 5  # minutes before and after the open whose volumes are compared

STILL = 60
"""The least number of equal minutes in a row that are kept."""

_BEFORE = 3  # minutes whose mean volume a minute is compared with

_HOUR = 60

OFFSETS = np.array([-_HOUR, *range(-AROUND, AROUND + 1), _HOUR])
"""The minutes after the open at which the day may seem to begin."""

_REACH = np.array([center - back for center in OFFSETS.tolist() for back in range(_BEFORE + 1)]) * MINUTE


@dataclass(frozen=True, slots=True)
class Still:
    """A stretch of bars of one session that all have one price.

    Attributes:
        midnight: The session.
        first: The timestamp of the first bar.
        count: The number of bars.
        price: The price.
    """

    midnight: int
    first: int
    count: int
    price: float


@dataclass(slots=True)
class SessionProfile:
    """What is measured of the sessions of one series: arrays with a value per session, ascending.

    Attributes:
        midnights: The start of the day in New York, in microseconds since 1970.
        before: The number of bars before the open.
        regular: The number of bars in regular hours.
        after: The number of bars from the close on.
        size: The mean logarithm of the dollars per trade of a regular bar; without trade counts, of its volume.
        without: The number of regular bars without volume.
        flat: The number of regular bars whose prices all equal the close before.
        prices: A sum over the prices of the regular bars.
        products: Another one.
        places: The minutes from the first to the last regular bar, without the longest hole.
        disorder: The sum of the moves from each close to the next open, relative to that of the moves from open to close.
        onset: The minute after the open at which the volume rises most, one of `OFFSETS`; -1000 if it rises nowhere.
        still: The long stretches at one price.
        counted: Whether trades are counted.
    """

    midnights: Int64s
    before: Int64s
    regular: Int64s
    after: Int64s
    size: Any
    without: Int64s
    flat: Int64s
    prices: Any
    products: Any
    places: Int64s
    disorder: Any
    onset: Int64s
    still: list[Still] = field(default_factory=list)
    counted: bool = True


_NAMES = (
    "midnights",
    "before",
    "regular",
    "after",
    "size",
    "without",
    "flat",
    "prices",
    "products",
    "places",
    "disorder",
    "onset",
)

NO_ONSET = -1000

_LEAST = 1e-12

_MOST = 0.02  # of a move between two bars: a break has its own rule

_RISE = np.log(3.0)  # a rise of the volume by less is no onset


def measure(bars: FileBars) -> SessionProfile:
    """Return what is measured of the sessions in one file."""
    days = bars.days
    some = days.stops > days.starts
    regular = bars.regular
    flat = np.zeros(len(bars), bool)
    flat[1:] = (bars["close"][1:] == bars["close"][:-1]) & (bars["high"][1:] == bars["low"][1:])
    measured = _regular(bars, regular, flat)
    onset = np.full(regular.opens.size, NO_ONSET, np.int64)
    measured["onset"] = _onset(bars, regular) if bars.step <= AROUND * MINUTE and regular.opens.size else onset
    for name, values in measured.items():
        whole = np.zeros(some.size, values.dtype)
        whole[some] = values
        measured[name] = whole
    return SessionProfile(
        days.midnights,
        days.starts - days.begins,
        days.stops - days.starts,
        days.ends - days.stops,
        **measured,
        still=_still(bars, regular, flat),
        counted=bool(bars["trade_count"].any()),
    )


def joined(parts: list[SessionProfile]) -> SessionProfile:
    """Return what is measured of a series, from its files in order.

    The end of a month in UTC cuts the evening off a session: its bars are in the next file.
    """
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _NAMES}
    midnights = columns["midnights"]
    again = np.flatnonzero(midnights[1:] == midnights[:-1]) + 1
    for name in ("before", "after"):
        np.add.at(columns[name], again - 1, columns[name][again])
    # The part with regular hours is the one that was measured.
    swap = again[columns["regular"][again] > 0]
    for name in set(_NAMES) - {"midnights", "before", "after"}:
        columns[name][swap - 1] = columns[name][swap]
    keep = np.ones(midnights.size, bool)
    keep[again] = False
    return SessionProfile(
        **{name: column[keep] for name, column in columns.items()},
        still=[one for part in parts for one in part.still],
        counted=any(part.counted for part in parts),
    )


def _regular(bars: FileBars, days: SessionRows, flat: Any) -> dict[str, Any]:
    """Return the measures of regular hours, one value per session."""
    starts, stops = days.starts, days.stops
    high, low, close, volume = (bars[name] for name in ("high", "low", "close", "volume"))
    traded = (volume > 0) & (close > 0)
    apart = np.append(np.diff(bars.times), bars.step)
    between = np.append(np.abs(bars.seams - 1.0), 0.0)
    np.minimum(between, _MOST, out=between)
    between[apart != bars.step] = 0.0
    # The last close of a session and what comes after the close
    between[stops - 1], apart[stops - 1] = 0.0, bars.step
    reach = bars.times[stops - 1] - bars.times[starts]
    sums = {
        "size": _per_trade(bars, traded),
        "traded": traded,
        "flat": flat,
        "prices": close + 0.5 * high + 0.25 * low,
        "products": bars["open"] * close,
        "between": between,
        "within": np.abs(close / np.maximum(bars["open"], _LEAST) - 1.0),
    }
    made = {name: reduce_rows(np.add, values, starts, stops) for name, values in sums.items()}
    with_volume = made.pop("traded")
    return {
        **{name: made[name] for name in ("flat", "prices", "products")},
        "size": made["size"] / np.maximum(with_volume, 1),
        "without": stops - starts - with_volume,
        "places": (reach - reduce_rows(np.maximum, apart, starts, stops)) // bars.step + 2,
        "disorder": made["between"] / np.maximum(made["within"], _LEAST),
    }


def _per_trade(bars: FileBars, traded: Any) -> Any:
    """Return the logarithm of the dollars per trade of each bar, of its volume if trades are not counted; 0 without volume."""
    values = bars["volume"]
    if bars["trade_count"].any():
        values = values * bars["close"] / np.maximum(bars["trade_count"], 1.0)
    # Half of the digits are enough, and take half of the time.
    return np.log(np.where(traded, values, 1.0).astype(np.float32)).astype(np.float64)


def _still(bars: FileBars, days: SessionRows, flat: Any) -> list[Still]:
    """Return the long stretches of regular bars at one price."""
    moved = np.flatnonzero(~flat)
    lengths = np.diff(np.concatenate([moved, [flat.size]]))
    found = []
    for at in np.flatnonzero(lengths >= STILL).tolist():
        # The bar that reached the price is the first of the stretch.
        begin, end = int(moved[at]), int(moved[at] + lengths[at])
        for session in np.flatnonzero((days.starts < end) & (days.stops > begin)).tolist():
            first, last = max(begin, int(days.starts[session])), min(end, int(days.stops[session]))
            if last - first >= STILL:
                price = float(bars["close"][first])
                found.append(Still(int(days.midnights[session]), int(bars.times[first]), last - first, price))
    return found


def _onset(bars: FileBars, days: SessionRows) -> Int64s:
    """Return for each session the minute after the open at which the volume rises most over the minutes before."""
    wanted = days.opens[:, None] + _REACH
    at = np.minimum(np.searchsorted(bars.times, wanted), len(bars) - 1)
    volumes = np.where(bars.times[at] == wanted, np.maximum(bars["volume"][at], 0.0), 0.0)
    shares = np.log1p(volumes).reshape(-1, OFFSETS.size, _BEFORE + 1)
    rises = shares[:, :, 0] - shares[:, :, 1:].mean(axis=2)
    best = rises.argmax(axis=1)
    return np.where(rises[np.arange(best.size), best] >= _RISE, OFFSETS[best], NO_ONSET)

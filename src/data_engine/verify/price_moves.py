"""Flag prices that move as trades do not: between sessions, between the bars of a session, and within a bar.

Trades lead from one price to the next. Within regular hours a bar opens where the last one closed, to about a percent, and a
change of a third overnight passes through the bars outside regular hours. A price that was stored wrong has no such path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_engine.market.bars import Int64s, from_micros, to_micros
from data_engine.market.series import Dataset
from data_engine.market.time_range import TimeRange, iso, new_york_date, new_york_midnight, union
from data_engine.verify.file_bars import FileBars
from data_engine.verify.known_actions import JUMP, KnownActions

BREAK = 1.08
"""The maximum ratio between a bar's open and the close of the bar right before it, in regular hours. Real ones reach 1.03."""

WICK = 1.3
"""The maximum ratio between a high (low) and the bar's open and close. Real ones reach 1.07."""

DAILY_WICK = 1.8
"""The same for bars of a day or longer."""

_NOISE = 25  # times the usual distance of open and close before it: prices of a few cents move in large steps

_WICK_NOISE = 15  # times the usual ratio of high and low

_UNVERIFIED = 10 * 86_400_000_000  # microseconds: bars without coverage are compared across no longer time

Add = Callable[[str, int, Iterable[str]], None]
"""A function that takes a code, the number of bars and examples."""


@dataclass(slots=True)
class _Last:
    """The end of the bars so far.

    Attributes:
        close: The close of the last session.
        closed_at: The timestamp of that bar.
        final: The close of the last bar, which may be later.
        leaps: Whether a price after that session jumps.
    """

    close: float
    closed_at: int
    final: float
    leaps: bool = False


class PriceMoves:
    """Check the prices of one series, file by file.

    Args:
        dataset: The dataset of the series.
        add: A function that takes what is found.
        known: The corporate actions of the symbol.
        covered: The ranges that are covered or provisional. If None, nothing is known of that.
    """

    def __init__(
        self, dataset: Dataset, add: Add, known: KnownActions | None = None, covered: Sequence[TimeRange] | None = None
    ) -> None:
        self._dataset = dataset
        self._flag = add
        self._known = known or KnownActions()
        ranges = union(covered or ())
        self._starts = np.array([to_micros(span.start) for span in ranges], np.int64)
        self._ends = np.array([to_micros(span.end) for span in ranges], np.int64)
        self._last: _Last | None = None

    def add(self, bars: FileBars) -> None:
        """Check the bars of the next file, in order of time."""
        self._flag_jumps(bars)
        self._flag_wicks(bars)
        if self._dataset.timeframe.intraday:
            self._flag_breaks(bars)

    def _flag_jumps(self, bars: FileBars) -> None:
        """Compare the first price of each session with the last price of the session before."""
        if self._dataset.timeframe.intraday:
            firsts, lasts = bars.regular.starts, bars.regular.stops - 1
        else:
            firsts = lasts = np.arange(len(bars))
        # A bar may begin with a late print at yesterday's price: its close counts as well as its open.
        leaps = np.flatnonzero(_beyond(bars.seams, JUMP) | _beyond(bars.changes, JUMP))
        if self._last is not None:
            self._last.leaps |= any(_leap(self._last.final, float(bars[name][0])) for name in ("open", "close"))
        if not firsts.size:
            if self._last is not None:
                self._last.leaps |= bool(leaps.size)
                self._last.final = float(bars["close"][-1])
            return
        opens, closes, times = bars["open"][firsts], bars["close"][lasts], bars.times
        last = self._last
        if last is not None:
            leapt = last.leaps or bool(leaps.size and leaps[0] < firsts[0])
            self._judge(last.close, float(opens[0]), last.closed_at, int(times[firsts[0]]), leapt=leapt)
        with np.errstate(divide="ignore", invalid="ignore"):
            changes = _beyond(opens[1:] / closes[:-1], JUMP)
        wanted = changes | self._with_split(times[lasts[:-1]], times[firsts[1:]])
        for at in np.flatnonzero(wanted).tolist():
            begin, end = int(lasts[at]), int(firsts[at + 1])
            leapt = bool(np.searchsorted(leaps, begin) < np.searchsorted(leaps, end))
            self._judge(float(closes[at]), float(opens[at + 1]), int(times[begin]), int(times[end]), leapt=leapt)
        tail = bool(leaps.size and leaps[-1] >= lasts[-1])
        self._last = _Last(float(closes[-1]), int(times[lasts[-1]]), float(bars["close"][-1]), tail)

    def _with_split(self, befores: Int64s, afters: Int64s) -> Any:
        """Tell for pairs of neighboring sessions whether a split lies between them."""
        found = np.zeros(befores.size, bool)
        for action in self._known.splits:
            at = int(np.searchsorted(afters, to_micros(new_york_midnight(action.day))))
            if at < found.size:
                found[at] = True
        return found

    def _judge(self, before: float, opened: float, closed_at: int, opened_at: int, *, leapt: bool) -> None:
        if not (before > 0 and opened > 0) or not self._is_held(closed_at, opened_at):
            return
        start = from_micros(opened_at)
        actions = self._known.between(new_york_date(from_micros(closed_at)), new_york_date(start))
        text = f"{iso(start)} from {before:g} to {opened:g}"
        contradicted = self._known.contradictions(before, opened, actions)
        self._flag("split_contradicted", len(contradicted), (f"{text}, {action.event}" for action in contradicted))
        if contradicted or not leapt or 1 / JUMP <= opened / before <= JUMP:
            return
        if not self._known.explain(before, opened, actions):
            self._flag("price_jump", 1, [text])

    def _is_held(self, before: int, after: int) -> bool:
        """Tell whether all the time between two bars is covered, so that no bar between them can be missing."""
        if not self._starts.size:
            return after - before <= _UNVERIFIED
        at = int(np.searchsorted(self._starts, before, side="right")) - 1
        return at >= 0 and after < int(self._ends[at])

    def _flag_breaks(self, bars: FileBars) -> None:
        """Compare each open in regular hours with the close of the bar right before it."""
        rows = np.flatnonzero(_beyond(bars.seams, BREAK))
        if not rows.size:
            return
        regular = bars.in_regular
        next_to = (np.diff(bars.times) == bars.step) & regular[1:] & regular[:-1]
        rows = rows[next_to[rows]]
        # A close or open outside its own bar's range has a warning of its own.
        low, high, close, opens = (bars[name] for name in ("low", "high", "close", "open"))
        rows = rows[(close[rows] >= low[rows]) & (close[rows] <= high[rows])]
        rows = rows[(opens[rows + 1] >= low[rows + 1]) & (opens[rows + 1] <= high[rows + 1])]
        if not rows.size:
            return
        usual = float(np.nanmedian(np.abs(np.log(bars.seams[next_to]))))
        rows = rows[np.abs(np.log(bars.seams[rows])) > _NOISE * usual] + 1
        texts = (
            f"{iso(from_micros(bars.times[row]))} from {bars['close'][row - 1]:g} to {bars['open'][row]:g}"
            for row in rows.tolist()
        )
        self._flag("price_break", int(rows.size), texts)

    def _flag_wicks(self, bars: FileBars) -> None:
        """Find highs and lows far from the prices of their own bar and of the bars around it."""
        opens, highs, lows, closes = (bars[name] for name in ("open", "high", "low", "close"))
        limit = WICK if self._dataset.timeframe.intraday else DAILY_WICK
        up, down = highs > limit * np.maximum(opens, closes), np.minimum(opens, closes) > limit * lows
        rows = np.flatnonzero((up | down) & (lows > 0))
        if not rows.size:
            return
        with np.errstate(divide="ignore", invalid="ignore"):
            usual = float(np.nanmedian(np.log(highs / lows)))
        found = [row for row in rows.tolist() if _is_alone(highs, lows, row, up=bool(up[row]), least=_WICK_NOISE * usual)]
        texts = (
            f"{iso(from_micros(bars.times[row]))} open {opens[row]:g} high {highs[row]:g} low {lows[row]:g} close {closes[row]:g}"
            for row in found
        )
        self._flag("price_wick", len(found), texts)


def _beyond(ratios: Any, limit: float) -> Any:
    """Tell which ratios are beyond a limit, either way; NaN is not."""
    with np.errstate(invalid="ignore"):
        return (ratios > limit) | (ratios < 1 / limit)


def _leap(before: float, after: float) -> bool:
    return before > 0 and after > 0 and not 1 / JUMP <= after / before <= JUMP


def _is_alone(highs: Any, lows: Any, row: int, *, up: bool, least: float) -> bool:
    """Tell whether no bar around one reaches half of the way to its high (its low), as a logarithm."""
    around = [at for at in range(max(row - 2, 0), min(row + 3, len(highs))) if at != row]
    if not around:
        return False
    if up:
        nearest, own = float(max(highs[around])), float(highs[row])
        ratio = own / nearest if nearest > 0 else 0.0
    else:
        nearest, own = float(min(lows[around])), float(lows[row])
        ratio = nearest / own
    return ratio > WICK**0.5 and float(np.log(max(ratio, 1.0))) > least

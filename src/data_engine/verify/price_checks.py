"""Flag bars with improbable prices or volumes.

Real bars include such outliers, so these are warnings, and no bar is dropped. Each rule counts bars and has a few examples. The
limits flag no real consolidated minutes; docs/explanation/verification.md has the counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from data_engine.market.bars import Int64s, from_micros
from data_engine.market.series import Dataset, Series
from data_engine.market.time_range import TimeRange, iso
from data_engine.verify.file_bars import FileBars
from data_engine.verify.findings import Finding
from data_engine.verify.known_actions import JUMP, KnownActions
from data_engine.verify.price_moves import BREAK, PriceMoves

SPIKE = 1.3
"""The maximum ratio between a bar's close and those of its two neighbors, which agree within `_AGREE`."""

_AGREE = 1.05

_ROUNDED = 1e-4  # dollars: Alpaca rounds vwap to four decimals

_LOOSE = 1e-4  # relative

_EXAMPLES = 3

_PRICES = ("open", "high", "low", "close")


@dataclass(frozen=True, slots=True)
class Flag:
    """The bars of a series that break one rule.

    Attributes:
        code: The code of a finding.
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
    "price_break": f"bars in regular hours whose open differs from the close right before by more than a factor of {BREAK:g}",
    "price_jump": f"prices that jump between sessions by more than a factor of {JUMP:g}, unexplained by known corporate actions",
    "price_spike": f"bars that differ from both neighbors by more than a factor of {SPIKE:g}",
    "price_wick": "bars with a high or low far from all prices around",
    "split_contradicted": "splits that the prices contradict; prices adjusted for them are wrong",
}


class PriceChecks:
    """Check the bars of one series.

    Args:
        dataset: The dataset of the series.
        known: The corporate actions of the symbol. If None, none.
        covered: The ranges that are covered or provisional. If None, nothing is known of that.
    """

    def __init__(self, dataset: Dataset, known: KnownActions | None = None, covered: Sequence[TimeRange] | None = None) -> None:
        self._intraday = dataset.timeframe.intraday
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}
        self._moves = PriceMoves(dataset, self._flag, known, covered)

    def add(self, bars: FileBars) -> None:
        """Check the bars of the next file, in order of time."""
        if not len(bars):
            return
        for code, wrong in _rules(bars).items():
            self._flag_rows(code, np.flatnonzero(wrong), bars)
        if self._intraday:
            self._flag_rows("price_spike", _spikes(bars["close"]), bars)
        self._moves.add(bars)

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

    def _flag_rows(self, code: str, rows: Int64s, bars: FileBars) -> None:
        examples = (f"{iso(from_micros(bars.times[row]))} {_values_text(code, bars, row)}" for row in rows.tolist())
        self._flag(code, int(rows.size), examples)


def _rules(values: FileBars) -> dict[str, Any]:
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
        change = close[1:] / close[:-1]
        far = (change > SPIKE) | ((change < 1 / SPIKE) & (change > 0))
        rows = np.flatnonzero(far[:-1] & far[1:])
        back = close[rows + 2] / close[rows]
        agree = (close[rows] > 0) & (close[rows + 1] > 0) & (back < _AGREE) & (back > 1 / _AGREE)
    return rows[agree] + 1


def _values_text(code: str, values: FileBars, row: int) -> str:
    names = {
        "volume_negative": ("volume", "trade_count"),
        "vwap_outside": ("low", "high", "vwap"),
        "price_spike": ("close",),
    }.get(code, _PRICES)
    return " ".join(f"{name} {values[name][row]:g}" for name in names)

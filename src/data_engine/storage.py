"""The bars of a store as people use them: `ParquetStorage`, frames in and frames out."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from data_engine.bar_files import BarFiles, Written, by_period
from data_engine.bars import VALUES, from_frame, instant, stamps, to_frame
from data_engine.coverage import Coverage
from data_engine.errors import InputError, StoreError
from data_engine.marks import MARK, check_stamps, mark, marked
from data_engine.partitions import Period
from data_engine.ranges import TimeRange
from data_engine.series import Adjustment, Dataset, Feed, Series, Timeframe
from data_engine.sessions import can_hold_bars
from data_engine.spans import DateLike, parse_span
from data_engine.symbols import check_symbol

if TYPE_CHECKING:
    import pandas as pd

_READERS = 4


class IncompleteWarning(UserWarning):
    """A range that was asked to be ingested is not held whole."""


class ParquetStorage(BarFiles):
    """Bars in plain Parquet files. Safe between threads and processes.

    Args:
        base_path: of the store, a folder or ``s3://bucket/prefix``; None takes it from the settings (``DATA_ENGINE_BASE_PATH``,
            ``settings.ini``, ``~/stock_data``).
        files: in place of those at *base_path*.
    """

    def store(self, bars: pd.DataFrame, *, timeframe: object = None, feed: object = None, adjustment: object = None) -> Written:
        """Merge a frame of bars into the store: one row per (symbol, timestamp), the new one wins.

        Storing twice is storing once, and the other bars of a month stay. No coverage is claimed: that these bars are all
        there are in some range is more than a frame can say.

        Args:
            bars: as `AlpacaClient.fetch_bars` or alpaca-py's ``.df`` makes them: index levels ``symbol`` and ``timestamp``
                (aware) or columns of those names, and ``open high low close volume trade_count vwap``.
            timeframe: None is what the frame is marked with, else minutes.
            feed: None is what the frame is marked with, else the consolidated tape.
            adjustment: None is what the frame is marked with, else raw.

        Raises:
            InputError: a column is missing, a value is not a number, stamps cannot be of that timeframe, or an argument
                contradicts the frame's mark.
            StoreError: the store cannot be written.
        """
        tables = from_frame(bars, canonical=check_symbol)
        dataset = marked(bars, timeframe, feed, adjustment)
        check_stamps(tables, dataset)
        total = Written()
        for symbol, table in tables.items():
            series = Series(symbol, dataset)
            parts = dict(by_period(table, dataset))
            # Nobody vouches for these files as a whole any more: first, so that a killed `store` does not look like damage.
            self.coverage.update(series, partial(Coverage.unmarked, periods=parts))
            for period, part in parts.items():
                total += self.write(series, period, part)
            self._note_rows(series, parts, table)
        return total

    def load(
        self,
        symbols: str | Iterable[str],
        start: DateLike,
        end: DateLike | None = None,
        *,
        timeframe: object = "1Min",
        feed: object = None,
        adjustment: object = None,
        columns: Sequence[str] | None = None,
        incomplete: Literal["warn", "raise", "ignore"] = "warn",
    ) -> pd.DataFrame:
        """Return stored bars that start inside a range, in the shape of `AlpacaClient.fetch_bars`.

        Args:
            symbols: one or several; those without bars have no rows.
            start: a New York calendar day, or an aware instant.
            end: a day (included) or an aware instant (excluded); None is now.
            timeframe: of the bars.
            feed: of the bars.
            adjustment: of the bars.
            columns: some of ``open high low close volume trade_count vwap``; only those are read.
            incomplete: what to do about a range that was asked to be ingested but is not held whole: name it in an
                `IncompleteWarning`, raise a `StoreError`, or nothing.

        Raises:
            StoreError: there is no store, or a file of it cannot be read.
            InputError: an argument cannot be used.
        """
        names = [symbols] if isinstance(symbols, str) else list(symbols)
        wanted = list(dict.fromkeys(check_symbol(name) for name in names))
        dataset = Dataset(Timeframe.parse(timeframe), Adjustment.parse(adjustment), Feed.parse(feed))
        span = parse_span(start, end, now=datetime.now(UTC)).range
        chosen = VALUES if columns is None else _chosen(columns)
        if incomplete not in ("warn", "raise", "ignore"):
            raise InputError(f"incomplete={incomplete!r} is not one of warn, raise, ignore")
        self.check_exists()
        series = [Series(symbol, dataset) for symbol in wanted]
        if incomplete != "ignore":
            self._name_holes(series, span, incomplete)
        jobs = [(one, period) for one in series for period in self.periods(one, span)]
        names_read = ["timestamp", *chosen]

        def read(job: tuple[Series, Period]) -> tuple[str, pa.Table]:
            return job[0].symbol, self.read(*job, columns=names_read, within=span, threads=len(jobs) <= 2)

        if len(jobs) > 2:
            with ThreadPoolExecutor(_READERS) as pool:
                pieces = list(pool.map(read, jobs))
        else:
            pieces = [read(job) for job in jobs]
        by_symbol: dict[str, list[pa.Table]] = {}
        for symbol, table in pieces:
            by_symbol.setdefault(symbol, []).append(table)
        frame = to_frame(((symbol, pa.concat_tables(tables)) for symbol, tables in by_symbol.items()), chosen)
        frame.attrs[MARK] = mark(dataset)
        return frame

    def _note_rows(self, series: Series, written: Collection[Period], table: pa.Table) -> None:
        times = stamps(table)
        first, last = instant(int(times[0])), instant(int(times[-1]))

        def change(known: Coverage) -> Coverage:
            return replace(
                known.unmarked(written),
                # Counted here, where nobody else can be counting: a neighbour may have written since.
                rows={**known.rows, **{period: self.count(series, period) for period in written}},
                first_bar=min(first, known.first_bar or first),
                last_bar=max(last, known.last_bar or last),
                empty_since=None,
            )

        self.coverage.update(series, change)

    def _name_holes(self, series: list[Series], span: TimeRange, incomplete: str) -> None:
        for one in series:
            holes = [hole for hole in self.coverage.read(one).incomplete(span) if can_hold_bars(hole, one.dataset)]
            if not holes:
                continue
            options = _options(one.dataset)
            text = (
                f"{one} is not held whole, though it was asked for: {', '.join(map(str, holes[:3]))}"
                f"{f' and {len(holes) - 3} more ranges' if len(holes) > 3 else ''}; "
                f"`data-engine update {one.symbol}{options}` completes it"
            )
            if incomplete == "raise":
                raise StoreError(text)
            warnings.warn(text, IncompleteWarning, stacklevel=3)


def _chosen(columns: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in columns if name not in VALUES]
    if isinstance(columns, str) or unknown:
        raise InputError(f"columns {columns!r}: choose from {', '.join(VALUES)}")
    return tuple(dict.fromkeys(columns))


def _options(dataset: Dataset) -> str:
    """Return the options that name a dataset on the command line."""
    text = "" if str(dataset.timeframe) == "1Min" else f" --timeframe {dataset.timeframe}"
    if not dataset.adjustment.is_raw:
        text += f" --adjustment {dataset.adjustment}"
    return text if dataset.feed is Feed.SIP else f"{text} --feed {dataset.feed.value}"

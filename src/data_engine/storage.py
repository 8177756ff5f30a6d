"""The bars on disk: `ParquetStorage`, one Parquet file per symbol and month (or year), merged and never overwritten blindly."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from data_engine.bars import (
    BAR_SCHEMA,
    EMPTY,
    VALUES,
    from_frame,
    from_parquet,
    instant,
    merge,
    micros,
    stamps,
    to_frame,
    to_parquet,
    without,
)
from data_engine.bars import within as cut
from data_engine.coverage_store import CoverageStore
from data_engine.errors import DamagedFile, InputError, StoreError
from data_engine.files import FileStore, LocalFiles
from data_engine.marks import MARK, check_stamps, mark, marked
from data_engine.partitions import Partition, Period, decode_symbol, periods
from data_engine.ranges import TimeRange
from data_engine.series import Adjustment, Dataset, Feed, Series, Timeframe
from data_engine.sessions import can_hold_bars
from data_engine.spans import DateLike, parse_span
from data_engine.symbols import check_symbol

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

_READERS = 4


class IncompleteWarning(UserWarning):
    """A range that was asked to be ingested is not held whole."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a write did to one file, or to several.

    Attributes:
        rows: bars now in the file.
        added: new timestamps.
        revised: bars whose values changed.
        vanished: bars that the vendor was asked for and no longer has; kept, unless removals were accepted.
    """

    rows: int = 0
    added: int = 0
    revised: int = 0
    vanished: int = 0

    def __add__(self, other: Written) -> Written:
        return Written(
            self.rows + other.rows, self.added + other.added, self.revised + other.revised, self.vanished + other.vanished
        )


class ParquetStorage:
    """Bars in plain Parquet files. Safe between threads and processes.

    Args:
        base_path: of the store; None takes it from the settings (``DATA_ENGINE_BASE_PATH``, ``settings.ini``, ``~/stock_data``).
        files: in place of a folder on this machine.
    """

    def __init__(self, base_path: Path | str | None = None, *, files: FileStore | None = None) -> None:
        if files is None:
            from data_engine.settings import load_settings

            files = LocalFiles(load_settings(base_path=base_path).base_path)
        self.files = files
        self.coverage = CoverageStore(files)

    def __repr__(self) -> str:
        return f"ParquetStorage({self.files.location!r})"

    # ------------------------------------------------------------------------------------------------------------ frames

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
            rows: dict[Period, int] = {}
            for period, part in by_period(table, dataset):
                written = self.write(series, period, part)
                rows[period] = written.rows
                total += written
            self._note_rows(series, rows, table)
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

    # ------------------------------------------------------------------------------------------------- files, one by one

    def write(
        self, series: Series, period: Period, fetched: pa.Table, *, answered: TimeRange | None = None, drop_vanished: bool = False
    ) -> Written:
        """Merge bars into one file.

        Args:
            series: whose bars.
            period: which file; all bars start inside it.
            fetched: by `BAR_SCHEMA`; where the file has a bar of the same time, these win.
            answered: the range that *fetched* answers in full, to tell which stored bars the vendor no longer has.
            drop_vanished: take those out.

        Raises:
            DamagedFile: the file that is there cannot be read; it is left as it is.
            StoreError: the file cannot be written; the old one is untouched.
        """
        key = Partition(series, period).key
        result = Written()

        def change(data: bytes | None) -> bytes | None:
            nonlocal result
            stored = self._decode(key, data)
            merged = merge(stored, fetched, answered)
            table = merged.table
            if drop_vanished and merged.vanished and answered is not None:
                table = merge(without(stored, answered, kept=fetched), fetched).table
            elif not merged.changed:
                result = Written(stored.num_rows, vanished=merged.vanished)
                return None
            result = Written(table.num_rows, merged.added, merged.revised, merged.vanished)
            return to_parquet(table) if table.num_rows else b""

        self.files.update(key, change)
        return result

    def read(
        self,
        series: Series,
        period: Period,
        columns: Sequence[str] | None = None,
        *,
        within: TimeRange | None = None,
        threads: bool = False,
    ) -> pa.Table:
        """Return the bars of one file, sorted; none where there is no file.

        Args:
            series: whose bars.
            period: which file.
            columns: of `BAR_SCHEMA`, ``timestamp`` first; None is all.
            within: only bars that start inside it.
            threads: decode on several cores; for one file at a time.

        Raises:
            DamagedFile: it cannot be read as bars.
        """
        key = Partition(series, period).key
        table = self._decode(key, self.files.get(key), columns, within, threads=threads)
        return table if within is None else cut(table, within)

    def remove(self, series: Series, span: TimeRange) -> int:
        """Take the bars of a series that start inside *span* out, and its coverage with them; return how many bars."""
        rows: dict[Period, int] = {}
        removed = 0
        # A removal that was killed may have left rows in the coverage whose file is gone already.
        known = set(self.coverage.read(series).rows)
        known.update(partition.period for partition in self.partitions(series.dataset, series.symbol))
        touched = sorted(period for period in known if period.span.intersect(span))
        # Coverage first, here: it must never claim what is being removed.
        self.coverage.update(series, lambda known: known.without(span, {}, known.first_bar, known.last_bar))
        for period in touched:
            key = Partition(series, period).key

            def change(data: bytes | None, key: str = key, period: Period = period) -> bytes | None:
                nonlocal removed
                stored = self._decode(key, data)
                kept = without(stored, span)
                removed += stored.num_rows - kept.num_rows
                rows[period] = kept.num_rows
                if kept.num_rows == stored.num_rows:
                    return None
                return to_parquet(kept) if kept.num_rows else b""

            self.files.update(key, change)
        first, last = self._reach(series)
        left = self.coverage.update(series, lambda known: known.without(span, rows, first, last))
        if not left.rows and not left.wanted and not left.covered:
            self.coverage.remove(series)
        return removed

    def _reach(self, series: Series) -> tuple[datetime | None, datetime | None]:
        """Return the first and the last bar that the files of a series hold."""
        held = sorted(partition.period for partition in self.partitions(series.dataset, series.symbol))
        if not held:
            return None, None
        ends = [stamps(self.read(series, period, ["timestamp"])) for period in (held[0], held[-1])]
        return instant(int(ends[0][0])), instant(int(ends[1][-1]))

    def periods(self, series: Series, span: TimeRange) -> Iterator[Period]:
        """Yield the files of a series that *span* touches, in order of time; exact names, no glob."""
        for period in periods(span, series.dataset):
            if self.files.size(Partition(series, period).key) is not None:
                yield period

    def partitions(self, dataset: Dataset, symbol: str | None = None) -> Iterator[Partition]:
        """Yield every file of a dataset (of one symbol), in order of its path."""
        from data_engine.partitions import series_folder

        folder = dataset.name if symbol is None else series_folder(Series(symbol, dataset))
        for key in self.files.list(folder):
            partition = Partition.parse(key)
            if partition is not None:
                yield partition

    def symbols(self, dataset: Dataset) -> list[str]:
        """Return the symbols that have a folder in a dataset, sorted."""
        names = self.files.folders(dataset.name)
        return sorted(decode_symbol(name[len("symbol=") :]) for name in names if name.startswith("symbol="))

    def check_exists(self) -> None:
        """Raise `StoreError` where there is no store."""
        if not self.exists():
            raise StoreError(f"no store at {self.files.location}; `data-engine ingest` creates one")

    def exists(self) -> bool:
        """Tell whether anything was ever stored here; a lock alone is nothing."""
        if any(self.files.folders(f"metadata/{name}") for name in ("coverage", "indices")):
            return True
        folders = (*self.files.folders(""), *(f"metadata/{name}" for name in ("coverage", "indices")))
        ours = (name for name in folders if name.startswith(("equities_", "metadata/")))
        return any(next(iter(self.files.list(name)), None) is not None for name in ours)

    def _decode(
        self,
        key: str,
        data: bytes | None,
        columns: Sequence[str] | None = None,
        within: TimeRange | None = None,
        *,
        threads: bool = False,
    ) -> pa.Table:
        if data is None:
            return EMPTY if columns is None else EMPTY.select(list(columns))
        try:
            return from_parquet(data, columns, within=within, threads=threads)
        except ValueError as error:
            raise DamagedFile(f"{self.files.location}/{key} cannot be read as bars: {error}") from error

    def _note_rows(self, series: Series, rows: dict[Period, int], table: pa.Table) -> None:
        times = stamps(table)
        first, last = instant(int(times[0])), instant(int(times[-1]))

        def change(known):  # type: ignore[no-untyped-def]
            return replace(
                known,
                rows={**known.rows, **rows},
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


def by_period(table: pa.Table, dataset: Dataset) -> Iterator[tuple[Period, pa.Table]]:
    """Cut a sorted table at the edges of its files, without copying."""
    times = stamps(table)
    at = 0
    while at < len(times):
        period = Period.of(datetime.fromtimestamp(int(times[at]) // 1_000_000, UTC), dataset)
        stop = int(np.searchsorted(times, micros(period.next().start)))
        yield period, table.slice(at, stop - at)
        at = stop


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


__all__ = ["BAR_SCHEMA", "IncompleteWarning", "ParquetStorage", "Written", "by_period"]

"""Import bars from the files of other programs into a store. Stored bars keep their values, and the files are only read.

No range becomes covered, unless that is claimed: nothing says that such files have every bar.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine.errors import DataEngineError, InputError
from data_engine.ingest.import_claim import sessions_of, with_claims
from data_engine.ingest.import_sources import Problem, SourceFile, last_of_each, read_pieces, with_timeframes
from data_engine.market.bars import EMPTY, Int64s, from_micros, take, timestamps_us, to_micros
from data_engine.market.series import Series
from data_engine.market.time_range import TimeRange
from data_engine.store.bar_store import BarStore, split_by_period
from data_engine.store.legacy_files import refuse_foreign, refuse_legacy_store


@dataclass(slots=True)
class ImportReport:
    """The result of an import, or of a dry run.

    Attributes:
        files: The number of files read.
        bars: The number of bars in them.
        added: The number of bars that the store did not have.
        stored: The number of bars whose timestamps the store had; it keeps its own.
        covered: The number of other bars in covered or provisional ranges, where Alpaca has none; they are not added.
        by_series: The number of bars added, by series.
        failed: The path, or series, and the message of each that could not be imported.
        spans: The range from the first to the last bar of each series in the files.
        claimed: The number of sessions that are covered by the user's word, by series.
        moved: The number of old files that left their places.
        kept: Whether they were moved to ``metadata/legacy``, not removed.
        continued: The number of months of an interrupted import that were completed first.
        lists: The names of the lists that were stored.
        lists_kept: The names of lists that the store has with other members or another past.
    """

    files: int = 0
    bars: int = 0
    added: int = 0
    stored: int = 0
    covered: int = 0
    by_series: dict[Series, int] = field(default_factory=dict)
    failed: list[Problem] = field(default_factory=list)
    spans: dict[Series, TimeRange] = field(default_factory=dict)
    claimed: dict[Series, int] = field(default_factory=dict)
    moved: int = 0
    kept: bool = True
    continued: int = 0
    lists: list[str] = field(default_factory=list)
    lists_kept: list[str] = field(default_factory=list)

    def add(self, other: ImportReport) -> None:
        """Take over what is reported of other series."""
        for name in ("files", "bars", "added", "stored", "covered", "moved"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.failed += other.failed
        for series, count in other.by_series.items():
            self.by_series[series] = self.by_series.get(series, 0) + count
        for series, count in other.claimed.items():
            self.claimed[series] = self.claimed.get(series, 0) + count
        for series, span in other.spans.items():
            self._widen(series, span)

    def saw(self, series: Series, table: pa.Table) -> None:
        """Take note of bars of a series in the files."""
        times = timestamps_us(table)
        self._widen(series, TimeRange(from_micros(times[0]), from_micros(times[-1] + 1)))

    def _widen(self, series: Series, span: TimeRange) -> None:
        known = self.spans.get(series, span)
        self.spans[series] = TimeRange(min(known.start, span.start), max(known.end, span.end))


def import_bars(
    storage: BarStore,
    sources: Sequence[SourceFile],
    *,
    now: datetime,
    timeframe: object = None,
    claim: bool = False,
    dry_run: bool = False,
) -> ImportReport:
    """Add the bars of files to a store; of several bars with one timestamp, the last one counts.

    Args:
        storage: The store to add to; the caller has locked it against other runs.
        sources: The files that `find_sources` returned, by series.
        now: The instant before which all bars start.
        timeframe: The timeframe of all bars. If None, as their timestamps and the names of the datasets say.
        claim: Whether the sessions of the files count as covered, by the user's word.
        dry_run: Whether to read everything and write nothing.

    Raises:
        InputError: If the files are the store's own.
        ForeignFiles: If the legacy pipeline wrote the folder of the store.
    """
    report = ImportReport()
    for series, table in bars_by_series(storage, sources, report, now=now, timeframe=timeframe):
        _import_series(storage, series, table, report, now, claim, dry_run)
    return report


def _import_series(
    storage: BarStore, series: Series, table: pa.Table, report: ImportReport, now: datetime, claim: bool, dry_run: bool
) -> None:
    report.bars += table.num_rows
    if not table.num_rows:
        return
    try:
        refuse_foreign(storage.files, series)
        claims = sessions_of(series, timestamps_us(table), now) if claim else ()
        new = _new_bars(storage, series, table, report)
        if new.num_rows and not dry_run:
            storage.add(series, new)
        if claims and not dry_run:
            storage.coverage.update(series, partial(with_claims, sessions=claims))
            report.claimed[series] = len(claims)
    except DataEngineError as error:
        report.failed.append((str(series), str(error)))
    else:
        report.saw(series, table)
        report.added += new.num_rows
        report.by_series[series] = report.by_series.get(series, 0) + new.num_rows


def bars_by_series(
    storage: BarStore, sources: Sequence[SourceFile], report: ImportReport, *, now: datetime, timeframe: object
) -> Iterator[tuple[Series, pa.Table]]:
    """Yield the bars of files by series, sorted, one per timestamp; files that cannot be read go to the report.

    Raises:
        InputError: If the files are the store's own.
        ForeignFiles: If the legacy pipeline wrote the folder of the store.
    """
    _check_outside(storage, sources)
    refuse_legacy_store(storage.files)
    assigned, unknown = with_timeframes(sources, timeframe)
    report.failed += unknown
    for _, files in groupby(assigned, key=lambda source: source.series):
        yield from _bars_of(list(files), now, report).items()


def _bars_of(files: Sequence[SourceFile], now: datetime, report: ImportReport) -> dict[Series, pa.Table]:
    """Return the bars of the files of one symbol by series."""
    made: dict[Series, list[pa.Table]] = {}
    for source in files:
        try:
            pieces = read_pieces(source, now)
        except (InputError, OSError, pa.ArrowException) as error:
            report.failed.append((str(source.path), str(error)))
        else:
            report.files += 1
            for series, table in pieces:
                made.setdefault(series, []).append(table)
    return {series: last_of_each(pa.concat_tables([EMPTY, *tables])) for series, tables in made.items()}


def _check_outside(storage: BarStore, sources: Sequence[SourceFile]) -> None:
    """Raise `InputError` if a file is the store's own."""
    folder = storage.files.folder
    if folder is not None and any(source.path.resolve().is_relative_to(folder.resolve()) for source in sources):
        raise InputError(f"cannot import files of the store {folder} into itself; pass another --base-path")


def _new_bars(storage: BarStore, series: Series, table: pa.Table, report: ImportReport) -> pa.Table:
    """Return the bars that are neither stored nor in a range that Alpaca has answered, finally or not."""
    times = timestamps_us(table)
    periods = split_by_period(table, series.dataset)
    there = [timestamps_us(storage.read(series, period, ["timestamp"])) for period, _ in periods]
    stored = np.isin(times, np.concatenate([np.empty(0, np.int64), *there]), assume_unique=True)
    known = storage.coverage.read(series)
    covered = inside((*known.covered, *known.provisional), times)
    report.stored += int(np.count_nonzero(stored))
    report.covered += int(np.count_nonzero(covered & ~stored))
    return take(table, ~(stored | covered))


def inside(ranges: Iterable[TimeRange], times: Int64s) -> Any:
    """Return which of some timestamps, in microseconds, lie in some ranges."""
    made = np.zeros(times.size, bool)
    for piece in ranges:
        made |= (times >= to_micros(piece.start)) & (times < to_micros(piece.end))
    return made


def to_json(report: ImportReport) -> Mapping[str, Any]:
    """Return the fields that ``import --json`` prints, but for the command to run next."""
    return {
        "files": report.files,
        "bars": report.bars,
        "added": report.added,
        "held": report.stored,
        "covered": report.covered,
        "series": [
            {
                "dataset": series.dataset.name,
                "symbol": series.symbol,
                "added": count,
                "claimed_sessions": report.claimed.get(series, 0),
            }
            for series, count in report.by_series.items()
        ],
        "moved": report.moved,
        "continued": report.continued,
        "failed": [{"file": path, "message": message} for path, message in report.failed],
        "lists": report.lists,
        "lists_kept": report.lists_kept,
    }

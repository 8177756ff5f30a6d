"""Turn a folder that the legacy pipeline wrote into a store, month by month: `import_in_place`.

The unit is the folder of one month of one symbol. Where the store has a bar of the same time, its own wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from threading import Event

import numpy as np
import pyarrow as pa

from data_engine.errors import InputError, StoreError
from data_engine.ingest.file_import import ImportReport, inside
from data_engine.ingest.import_claim import sessions_of
from data_engine.ingest.import_journal import STAGED, Entering, Exchange, Leaving, carry_out, forget, go_on, unused_place
from data_engine.ingest.import_sources import Problem, SourceFile, last_of_each, read_pieces, with_timeframes
from data_engine.market.bar_parquet import from_parquet, to_parquet
from data_engine.market.bars import EMPTY, merge, take, timestamps_us
from data_engine.market.series import Adjustment, Dataset, Feed, Series
from data_engine.market.symbol import check_symbol
from data_engine.market.time_range import difference
from data_engine.store.bar_store import BarStore, split_by_period
from data_engine.store.file_count import Fingerprint
from data_engine.store.legacy_files import journal_key, legacy_folders, legacy_keys
from data_engine.store.partitions import Partition, decode_symbol

_HEADROOM = 64 << 20  # bytes that are left free on the disk


@dataclass(frozen=True, slots=True)
class Legacy:
    """The legacy files of a store.

    Attributes:
        sources: The files, by series.
        unusable: Path and message of those that cannot be imported.
    """

    sources: tuple[SourceFile, ...]
    unusable: tuple[Problem, ...]


def find_legacy(storage: BarStore, *, feed: object = None, adjustment: object = None) -> Legacy:
    """Return the legacy files of a store.

    Args:
        storage: The store.
        feed: The feed of the bars. If None, as the datasets' names say.
        adjustment: The adjustment of the bars. If None, as the datasets' names say.

    Raises:
        InputError: If the store is a bucket, whose files cannot be exchanged.
    """
    base = storage.files.folder
    if base is None:
        raise InputError(f"cannot import in place in {storage.files.location}: a bucket; copy it to a folder, and import that")
    sources: list[SourceFile] = []
    unusable: list[Problem] = []
    for folder in legacy_folders(storage.files):
        name, _, place = folder.partition("/")
        dataset = Dataset.from_name(name)
        feed_of, adjusted = dataset.feed if feed is None else Feed.parse(feed), Adjustment.parse(adjustment or dataset.adjustment)
        for key in legacy_keys(storage.files, folder):
            try:
                symbol = check_symbol(decode_symbol(place.removeprefix("symbol=")))
            except InputError as error:
                unusable.append((str(base / key), str(error)))
                continue
            sources.append(SourceFile(base / key, Series(symbol, Dataset(dataset.timeframe, adjusted, feed_of))))
    sources.sort(key=lambda one: (one.series.dataset.name, one.series.symbol, _in_time(one.path)))
    return Legacy(tuple(sources), tuple(unusable))


def import_in_place(
    storage: BarStore,
    legacy: Legacy,
    *,
    now: datetime,
    timeframe: object = None,
    claim: bool = False,
    drop_originals: bool = False,
    dry_run: bool = False,
    workers: int = 4,
) -> ImportReport:
    """Exchange the legacy files of a store for its own, and go on with an import that was interrupted.

    Bars that both have stay as the store has them; the report counts them as stored.

    Args:
        storage: The store; the caller has locked it against other runs.
        legacy: What `find_legacy` returned.
        now: The instant before which all bars start.
        timeframe: The timeframe of all bars. If None, as their timestamps say.
        claim: Whether the sessions of the files count as covered, by the user's word.
        drop_originals: Whether to remove the old files instead of moving them to ``metadata/legacy``.
        dry_run: Whether to read everything and write nothing.
        workers: The number of symbols whose files are exchanged at once: the disk, not the processor, takes the time.

    Raises:
        StoreError: If the disk cannot hold the new files, or the store cannot be written.
    """
    report = ImportReport(kept=not drop_originals)
    if not dry_run:
        report.continued = go_on(storage)
    sources = [source for source in legacy.sources if source.path.exists()]
    report.failed += legacy.unusable
    assigned, unknown = with_timeframes(sources, timeframe)
    report.failed += unknown
    if not dry_run:
        _check_room(storage, assigned, drop_originals=drop_originals)
    left_alone = {Path(path).parent for path, _ in unknown}  # a month whose files are not all understood stays as it is
    usable = [source for source in assigned if source.path.parent not in left_alone]
    stop = Event()

    def import_symbol(files: Sequence[SourceFile]) -> ImportReport:
        found = ImportReport()
        for _, month in groupby(files, key=lambda source: source.path.parent):
            if not stop.is_set():
                _import_month(storage, list(month), now, found, claim=claim, drop=drop_originals, dry_run=dry_run)
        if not dry_run:
            for journal in sorted({_journal_of(storage, source) for source in files}):
                forget(storage, journal)
        return found

    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(import_symbol, list(files)) for _, files in groupby(usable, key=lambda source: source.series)]
        try:
            for one in waiting:
                report.add(one.result())
        except BaseException:
            stop.set()
            for one in waiting:
                one.cancel()
            raise
    return report


def _import_month(
    storage: BarStore,
    files: Sequence[SourceFile],
    now: datetime,
    report: ImportReport,
    *,
    claim: bool,
    drop: bool,
    dry_run: bool,
) -> None:
    """Exchange the files in the folder of one month; if one of them cannot be imported, none is."""
    pieces: dict[Series, list[pa.Table]] = {}
    for source in files:
        try:
            for series, table in read_pieces(source, now):
                pieces.setdefault(series, []).append(table)
        except (InputError, OSError, pa.ArrowException) as error:
            report.failed.append((str(source.path), str(error)))
            return
    tables = {series: last_of_each(pa.concat_tables([EMPTY, *some])) for series, some in pieces.items()}
    bars = sum(table.num_rows for table in tables.values())
    try:
        tables = {series: _uncovered(storage, series, table, report) for series, table in tables.items()}
        # What Alpaca has answered otherwise stays in the old file.
        drop = drop and bars == sum(table.num_rows for table in tables.values())
        claims = {series: sessions_of(series, timestamps_us(table), now) for series, table in tables.items() if claim}
        entering = [one for series, table in tables.items() for one in _stage(storage, series, table, report, dry_run=dry_run)]
        if not dry_run:
            leaving = [_leaving(storage, source, drop=drop) for source in files]
            carry_out(storage, Exchange(_journal_of(storage, files[0]), tuple(leaving), tuple(entering), claims))
    except (_OfOneFile, InputError) as error:
        report.failed.append((str(files[0].path.parent), str(error)))
        return
    report.files += len(files)
    report.bars += bars
    report.moved += 0 if dry_run else len(files)
    for series, table in tables.items():
        report.saw(series, table)
        if claim:
            report.claimed[series] = report.claimed.get(series, 0) + len(claims[series])


class _OfOneFile(StoreError):
    """A file of the store cannot be united with old ones; other months are not affected."""


def _uncovered(storage: BarStore, series: Series, table: pa.Table, report: ImportReport) -> pa.Table:
    """Return the bars that are stored, and those that are not and lie outside of what Alpaca has answered."""
    times, known = timestamps_us(table), storage.coverage.read(series)
    answered = inside(difference((*known.covered, *known.provisional), known.imported), times)
    if not answered.any():
        return table
    files = [timestamps_us(storage.read(series, period, ["timestamp"])) for period, _ in split_by_period(table, series.dataset)]
    stored = np.isin(times, np.concatenate([np.empty(0, np.int64), *files]))
    apart = answered & ~stored
    report.covered += int(np.count_nonzero(apart))
    return take(table, ~apart)


def _stage(storage: BarStore, series: Series, table: pa.Table, report: ImportReport, *, dry_run: bool) -> Iterable[Entering]:
    """Write the new files of a series under ``metadata/import``, read them back and compare them."""
    for period, rows in split_by_period(table, series.dataset):
        key = Partition(series, period).key
        present = storage.files.get(key)
        try:
            ours = EMPTY if present is None else from_parquet(present)
            united = merge(rows, ours).table
        except ValueError as error:
            raise _OfOneFile(f"{key} cannot be read as bars: {error}; run `data-engine verify --repair`") from error
        added = united.num_rows - ours.num_rows
        report.added += added
        report.stored += rows.num_rows - added
        report.by_series[series] = report.by_series.get(series, 0) + added
        if dry_run:
            continue
        content = to_parquet(united)
        staged = f"{STAGED}/{key}.new"
        storage.files.update(staged, lambda _, content=content: content)  # type: ignore[misc]
        _compare(storage, staged, rows, ours)
        yield Entering(staged, key, None if present is None else Fingerprint.of(present).digest)


def _compare(storage: BarStore, staged: str, rows: pa.Table, ours: pa.Table) -> None:
    """Read a new file back: it must have the bars of the store, those of the old files at other times, and nothing else.

    Raises:
        StoreError: If it does not.
    """
    content = storage.files.get(staged)
    back = EMPTY if content is None else from_parquet(content)
    old, stored = timestamps_us(rows), timestamps_us(ours)
    new = take(rows, ~np.isin(old, stored, assume_unique=True))
    lacking = merge(merge(back, new).table, ours).changes.written + merge(back, new).changes.written
    if lacking or back.num_rows != new.num_rows + ours.num_rows:
        raise StoreError(f"cannot import in place: {staged} does not read back as it was written; check the disk")


def _leaving(storage: BarStore, source: SourceFile, *, drop: bool) -> Leaving:
    key = _key_of(storage, source)
    return Leaving(key, None if drop else unused_place(storage.files, key, source.path.read_bytes()))


def _journal_of(storage: BarStore, source: SourceFile) -> str:
    dataset, symbol_folder, *_ = _key_of(storage, source).split("/")
    return journal_key(dataset, symbol_folder)


def _key_of(storage: BarStore, source: SourceFile) -> str:
    assert storage.files.folder is not None  # noqa: S101 - `find_legacy` has refused a bucket
    return source.path.relative_to(storage.files.folder).as_posix()


def _in_time(path: Path) -> tuple[int, int, str]:
    """Return year, month and name of a legacy file, whose months are not padded."""
    year, month = (int(part.name.partition("=")[2]) for part in (path.parents[1], path.parents[0]))
    return year, month, path.name


def _check_room(storage: BarStore, sources: Sequence[SourceFile], *, drop_originals: bool) -> None:
    """Raise `StoreError` if the disk cannot hold the new files beside the old ones, or one month of them."""
    by_month: dict[Path, int] = {}
    for source in sources:
        by_month[source.path.parent] = by_month.get(source.path.parent, 0) + source.path.stat().st_size
    # Of a month, the staged file, the placed one and the kept original lie there at once.
    need = 2 * max(by_month.values(), default=0) + (0 if drop_originals else sum(by_month.values()))
    free = storage.files.free_bytes()
    if by_month and free is not None and need + _HEADROOM > free:
        remedy = "free some space, or use another disk" if drop_originals else "free some space, or pass --drop-originals"
        raise StoreError(
            f"cannot import in place in {storage.files.location}: about {need / 1e9:,.1f} GB are needed, "
            f"{free / 1e9:,.1f} GB are free; {remedy}"
        )

"""Write plain files of a store, as it is or as it was, to a folder that is a store of its own: `StateExport`.

The files are those of the store, byte for byte. Those of a series are written so that its coverage never claims bars that are not
there, also if the export is interrupted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_engine.corporate_actions import symbol_actions
from data_engine.errors import InputError, StoreBusy, StoreError
from data_engine.export.atomic_file import flush, is_draft, remove, write_whole
from data_engine.export.engine_export import checked_folder
from data_engine.market.series import Series
from data_engine.market.symbol import ticker_of
from data_engine.market.time_range import TimeRange
from data_engine.market.wording import and_more, plural
from data_engine.store import coverage_file, requested
from data_engine.store.bar_store import BarStore
from data_engine.store.conflicts import conflict_file
from data_engine.store.history.past_files import PastFiles
from data_engine.store.history.store_history import StoreHistory
from data_engine.store.partitions import series_folder
from data_engine.store.selection import DatasetFilter
from data_engine.verify.verify import known_series

_LISTS = "metadata/indices"

_ACTIONS = "metadata/actions"

_TRIES = 5  # of a series that a run is writing


@dataclass(frozen=True, slots=True)
class StateCall:
    """What a user asks to export.

    Attributes:
        folder: The folder to write.
        symbols: The symbols. If None, all.
        datasets: The datasets.
        span: The range: whole files that can have bars of it. If None, all.
    """

    folder: Path
    symbols: Sequence[str] | None
    datasets: DatasetFilter
    span: TimeRange | None

    @property
    def is_everything(self) -> bool:
        """Whether nothing of the store is left out."""
        return self.symbols is None and self.datasets == DatasetFilter() and self.span is None


@dataclass(slots=True)
class Written:
    """What an export has, and what of it was written now.

    Attributes:
        files: The number of files.
        bytes: Their size.
        written_files: The number of files whose content differed from that of the folder.
        written_bytes: Their size.
    """

    files: int = 0
    bytes: int = 0
    written_files: int = 0
    written_bytes: int = 0


class StateExport:
    """One export of plain files.

    Args:
        store: The store, as it is or as it was.
        call: What is asked for.
        folder: The folder of the store on this machine; None if it is elsewhere.

    Attributes:
        notes: What is said of the files.

    Raises:
        InputError: If the folder is in the store or around it, or has other files.
        StoreError: If there is no store, or it cannot be read.
    """

    def __init__(self, store: BarStore, call: StateCall, *, folder: Path | None) -> None:
        store.check_exists()
        self._store, self._call = store, call
        self._history = None if isinstance(store.files, PastFiles) else StoreHistory(store.files)  # the past does not change
        self._folder = checked_folder(call.folder, folder)
        self._series = {one: list(self._bar_keys(one)) for one in known_series(store, call.datasets, call.symbols)}
        self._shared = list(self._shared_keys())
        every = {key for one, bars in self._series.items() for key in (*bars, *self._keys_of(one))}.union(self._shared)
        self._drafts = self._check_folder(every)
        self.notes: list[str] = []
        if call.span is not None:
            self.notes.append("with --start or --end no coverage is exported: the bars count as unverified there")

    def run(self, *, dry_run: bool = False) -> Written:
        """Write what differs, and return the counts.

        Args:
            dry_run: Whether nothing is written, and only counted.

        Raises:
            StoreBusy: If a run changes a series again and again; the next export writes the rest.
            StoreError: If a file cannot be read or written.
        """
        done = Written()
        try:
            if not dry_run:
                self._folder.mkdir(parents=True, exist_ok=True)
                for draft in self._drafts:
                    draft.unlink(missing_ok=True)
            for series in self._series:
                self._write_series(series, done, dry_run=dry_run)
            for key in self._shared:
                self._write(key, self._store.files.get(key), done, dry_run=dry_run)
        except OSError as error:
            raise StoreError(
                f"cannot write {error.filename or self._folder}: {error.strerror or error}; run the export again"
            ) from error
        files = self._store.files
        if isinstance(files, PastFiles) and (remade := len(files.remade)):
            self.notes.append(
                f"{plural(remade, 'file')} exported with the same bars in other bytes: another version of pyarrow wrote them"
            )
        return done

    def _write_series(self, series: Series, done: Written, *, dry_run: bool) -> None:
        """Write the bars of a series, then what is known of them if no run has changed that meanwhile."""
        seen = set(self._series[series])
        for _ in range(_TRIES):
            known = [(key, self._store.files.get(key)) for key in self._keys_of(series)]
            # Listed after the coverage was read: a run stores bars before it covers them.
            bars = list(self._bar_keys(series))
            seen.update(bars)
            counted = Written()
            stale = not dry_run and self._withdraw(known)
            for key in bars:
                self._write(key, self._store.files.get(key), counted, dry_run=dry_run)
            again = [(key, self._store.files.get(key)) for key, _ in known]
            if known != again or self._has_changed(series):
                continue
            if not dry_run:
                for key in seen.difference(bars):
                    remove(self._path(key))
            if stale:  # the bars are durable before what claims them
                flush((self._path(key) for key in bars), self._folder)
            for key, content in known:
                self._write(key, content, counted, dry_run=dry_run)
            done.files, done.bytes = done.files + counted.files, done.bytes + counted.bytes
            done.written_files += counted.written_files
            done.written_bytes += counted.written_bytes
            return
        raise StoreBusy(f"cannot export {series}: a run is changing it; run the export again")

    def _has_changed(self, series: Series) -> bool:
        """Return whether others have changed files of bars of a series since this was called last, for whatever series."""
        records = self._history.catch_up() if self._history is not None else ()
        folder = f"{series_folder(series)}/"
        return any(entry.key.startswith(folder) for record in records for entry in record.entries)

    def _withdraw(self, known: Iterable[tuple[str, bytes | None]]) -> bool:
        """Remove the coverage of the folder that differs, before bars change below it; return whether it has not all of it."""
        stale = False
        for key, content in known:
            path = self._path(key)
            there = path.read_bytes() if path.is_file() else None
            stale = stale or there != content
            if there != content:
                remove(path)
        return stale

    def _write(self, key: str, content: bytes | None, done: Written, *, dry_run: bool) -> None:
        if content is None:
            return
        done.files, done.bytes = done.files + 1, done.bytes + len(content)
        path = self._path(key)
        if (not path.is_file() or path.read_bytes() != content) if dry_run else write_whole(path, content):
            done.written_files, done.written_bytes = done.written_files + 1, done.written_bytes + len(content)

    def _path(self, key: str) -> Path:
        return self._folder.joinpath(*key.split("/"))

    # ------------------------------------------------------------------------------------------------------- which files

    def _bar_keys(self, series: Series) -> Iterator[str]:
        span = self._call.span
        for one in self._store.partitions(series.dataset, series.symbol):
            if span is None or one.period.span.intersect(span):
                yield one.key

    def _keys_of(self, series: Series) -> list[str]:
        """Return the paths of what is known of a series; it must not claim bars that are left out."""
        if self._call.span is not None:
            return []
        return [coverage_file.key(series), conflict_file(self._store.files, series).key]

    def _shared_keys(self) -> Iterator[str]:
        files, symbols = self._store.files, self._call.symbols
        yield from files.list(_LISTS)
        if symbols is None:
            yield from files.list(_ACTIONS)
        else:
            names = {name for symbol in symbols for name in (symbol, ticker_of(symbol))}
            keys = sorted(symbol_actions.key(name) for name in names)
            yield from (key for key in keys if files.size(key) is not None)
        if self._call.is_everything:
            yield from files.list(requested.FOLDER)

    def _check_folder(self, keys: set[str]) -> list[Path]:
        """Return what an interrupted export left.

        Raises:
            InputError: If the folder has other files: two states must not mix.
        """
        folder = self._folder
        if folder.exists() and not folder.is_dir():
            raise InputError(f"cannot export to {self._call.folder}: it is a file; pass a folder")
        found = [path for path in sorted(folder.rglob("*")) if not path.is_dir()] if folder.is_dir() else []
        drafts = [path for path in found if is_draft(path)]
        names = (path.relative_to(folder).as_posix() for path in found if not is_draft(path))
        if others := [name for name in names if name not in keys]:
            raise InputError(
                f"cannot export to {self._call.folder}: it has {plural(len(others), 'file')} that this export does not have "
                f"({and_more(others, 3)}); remove them, or pass another folder"
            )
        return drafts

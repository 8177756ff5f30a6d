"""Recognize bar files of the legacy pipeline in a store, such as ``symbol=AAPL/year=2024/month=1/data_0.parquet``.

Only the folders of the series at hand are listed, and at most the first few series of a dataset: never a whole store.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from data_engine.errors import ForeignFiles
from data_engine.market.series import Dataset, Series
from data_engine.market.wording import and_more, plural
from data_engine.store.file_store import FileStore
from data_engine.store.partitions import encode_symbol, series_folder

_KEY = re.compile(
    r"(?P<dataset>equities_[^/]+)/symbol=(?P<symbol>[^/]+)/year=(?P<year>\d{1,4})/"
    r"month=(?P<month>[1-9]|1[0-2])/data_?\d+\.parquet"
)

JOURNALS = "metadata/import/journal"
"""The folder with one journal per series whose import in place is under way, or was killed."""

REMEDY = "run `data-engine import --in-place`"

_LOOKED_AT = 20  # series of a dataset: a store that only the legacy pipeline wrote shows in the first one

_MOST_COUNTED = 5_000  # files whose bars are counted for a message


def is_legacy(key: str) -> bool:
    """Tell whether a key is the path of a bar file of the legacy pipeline."""
    return _KEY.fullmatch(key) is not None


def legacy_keys(files: FileStore, folder: str) -> Iterator[str]:
    """Yield the legacy files in the folder of one series (``equities_1min/symbol=AAPL``), in order of their paths.

    Of the months that data-engine writes, January to September have other names, so that their folders are not listed.
    """
    if files.folder is None:  # a bucket: one request for all
        yield from (key for key in files.list(folder) if is_legacy(key))
        return
    for year in files.folders(folder):
        for month in files.folders(f"{folder}/{year}"):
            place = f"{folder}/{year}/{month}"
            if is_legacy(f"{place}/data_0.parquet"):
                yield from (key for key in files.list(place) if is_legacy(key))


def has_legacy(files: FileStore, folder: str) -> bool:
    """Tell whether `legacy_keys` would yield a file; of October to December, only the first file's name is looked for.

    Of a series with ten years this takes two thirds of the time, and every update does it for each series.
    """
    if files.folder is None:
        return next(legacy_keys(files, folder), None) is not None
    for year in files.folders(folder):
        for month in files.folders(f"{folder}/{year}"):
            place = f"{folder}/{year}/{month}"
            if len(month) == len("month=1"):
                if next((key for key in files.list(place) if is_legacy(key)), None) is not None:
                    return True
            elif is_legacy(f"{place}/data_0.parquet") and files.size(f"{place}/data_0.parquet") is not None:
                return True
    return False


def journal_key(dataset: str, symbol_folder: str) -> str:
    """Return the path of the journal of an import in place.

    Args:
        dataset: The name of the dataset's folder.
        symbol_folder: The name of the series' folder, ``symbol=AAPL``.
    """
    return f"{JOURNALS}/{dataset}/{symbol_folder}.json"


def _remedy(files: FileStore) -> str:
    return REMEDY if files.folder is not None else f"copy the store to a folder, and {REMEDY} there"


def foreign_files(files: FileStore, series: Series, *, known: bool = False) -> str | None:
    """Return why a series must not be written, or None: its folder has legacy files, or their import was not finished.

    Args:
        files: The files of the store.
        series: The series.
        known: Whether the store has bars of the series. In a bucket, where a listing is a request, its folder is not listed then.
    """
    if files.folder is None and known:
        return None
    folder = series_folder(series)
    if files.size(journal_key(series.dataset.name, f"symbol={encode_symbol(series.symbol)}")) is not None:
        return f"cannot write {series}: its import in place is not finished; {REMEDY} to go on"
    if not has_legacy(files, folder):
        return None
    found = list(islice(legacy_keys(files, folder), 1_000))
    count = plural(len(found), "file")
    return (
        f"cannot write {series}: its folder has {count} of the legacy pipeline ({files.location}/{found[0]}), "
        f"so that readers would see bars twice; {_remedy(files)}"
    )


def refuse_foreign(files: FileStore, series: Series) -> None:
    """Raise `ForeignFiles` if a series must not be written."""
    if (reason := foreign_files(files, series)) is not None:
        raise ForeignFiles(reason)


def legacy_datasets(files: FileStore) -> Iterator[tuple[Dataset, str]]:
    """Yield the datasets with a legacy file in one of their first series, and that file."""
    for name in files.folders(""):
        with suppress(ValueError):
            dataset = Dataset.from_name(name)
            series = islice((one for one in files.folders(name) if one.startswith("symbol=")), _LOOKED_AT)
            first = next((key for one in series for key in legacy_keys(files, f"{name}/{one}")), None)
            if first is not None:
                yield dataset, first


def legacy_symbols(files: FileStore, names: Iterable[str]) -> list[str]:
    """Return the symbols of which a folder has bar files of the legacy pipeline, in the order given."""
    datasets = [name for name in files.folders("") if name.startswith("equities_")]
    return [name for name in names if any(has_legacy(files, f"{one}/symbol={encode_symbol(name)}") for one in datasets)]


def refuse_legacy_symbols(files: FileStore, names: Iterable[str]) -> None:
    """Raise `ForeignFiles` if there are bars of some symbols, which the store does not know, in files of the legacy pipeline."""
    if found := legacy_symbols(files, names):
        raise ForeignFiles(
            f"no stored series of {and_more(found, 10)}: {files.location} has bars of {plural(len(found), 'symbol')} "
            f"as the legacy pipeline writes them; {_remedy(files)}"
        )


def is_legacy_store(files: FileStore) -> bool:
    """Tell whether a folder has bar files of the legacy pipeline and no coverage: data-engine has never written to it."""
    if files.folders("metadata/coverage") or next(iter(files.list("metadata/wanted")), None) is not None:
        return False
    return next(legacy_datasets(files), None) is not None


def refuse_legacy_store(files: FileStore) -> None:
    """Raise `ForeignFiles` for a folder that only the legacy pipeline wrote."""
    if is_legacy_store(files):
        raise ForeignFiles(f"{files.location} has {survey(files)}; {_remedy(files)}")


@dataclass(frozen=True, slots=True)
class LegacySurvey:
    """What a folder has of the legacy pipeline.

    Attributes:
        symbols: The number of symbols.
        files: The number of bar files.
        bars: The number of bars in them. If None, there are too many files to count them.
    """

    symbols: int
    files: int
    bars: int | None

    def __str__(self) -> str:
        what = plural(self.files, "file") if self.bars is None else plural(self.bars, "bar")
        more = "more than " if self.files > _MOST_COUNTED else ""
        return f"{more}{what} of {plural(self.symbols, 'symbol')} as the legacy pipeline writes them"


def survey(files: FileStore, *, known: frozenset[str] = frozenset()) -> LegacySurvey:
    """Count the legacy files of a folder, and their bars if they are at most 5,000 files.

    Args:
        files: The files.
        known: The folders of series (``equities_1min/symbol=AAPL``) to leave out.
    """
    symbols: set[str] = set()
    keys: list[str] = []
    for folder in legacy_folders(files):
        if len(keys) > _MOST_COUNTED:
            symbols.add(folder)
        elif folder not in known and (found := list(legacy_keys(files, folder))):
            symbols.add(folder)
            keys += found
    bars = _count_bars(files, keys) if len(keys) <= _MOST_COUNTED else None
    return LegacySurvey(len({folder.partition("/")[2] for folder in symbols}), len(keys), bars)


def legacy_folders(files: FileStore) -> Iterator[str]:
    """Yield the folders of all series, by path; legacy files can be in each."""
    for name in files.folders(""):
        with suppress(ValueError):
            Dataset.from_name(name)
            yield from (f"{name}/{one}" for one in files.folders(name) if one.startswith("symbol="))


def _count_bars(files: FileStore, keys: list[str]) -> int | None:
    """Return the number of rows by the files' footers; None if one cannot be read, or they are in a bucket."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if files.folder is None or not all(map(files.size, keys)):  # a pipe would block, and has no size
        return None
    try:
        return sum(int(pq.read_metadata(files.folder / key).num_rows) for key in keys)
    except (OSError, pa.ArrowException):
        return None

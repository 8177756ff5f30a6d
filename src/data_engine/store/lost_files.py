"""Which counted files are gone: `lost_files`. Coverage says what was stored; only a look at the files tells what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import lru_cache, partial

from data_engine.errors import StoreError
from data_engine.market.series import Series
from data_engine.market.time_range import TimeRange
from data_engine.store.coverage import Coverage
from data_engine.store.file_store import FileStore
from data_engine.store.partitions import Period, file_keys, series_folder

_MANY = 20
"""From so many series of a dataset on, a bucket is listed by the dataset: 1,000 names a request."""


def lost_files(
    files: FileStore, known: Iterable[Coverage], ranges: Mapping[str, Iterable[TimeRange]]
) -> tuple[dict[Series, frozenset[Period]], dict[Series, StoreError]]:
    """Return the files of series that their coverage counts, and that are not there; and why some series cannot be looked into.

    On a disk each counted file is looked for; a bucket is listed, by series or by dataset.

    Args:
        files: The files of the store.
        known: The coverage of series of one dataset.
        ranges: By symbol: only files of these ranges are looked for.

    Raises:
        StoreError: If a bucket cannot be listed.
    """
    within = lru_cache(maxsize=None)(_months)  # most series have the same ranges
    counted = {one.series: _counted(one, within(tuple(ranges[one.series.symbol]))) for one in known}
    counted = {series: periods for series, periods in counted.items() if periods}
    is_there: Callable[[str], bool] = partial(_is_there, files)
    if files.location.startswith("s3://"):
        is_there = set(_listed(files, list(counted))).__contains__
    gone: dict[Series, frozenset[Period]] = {}
    failed: dict[Series, StoreError] = {}
    for series, periods in counted.items():
        try:
            keys = file_keys(series, periods)
            gone[series] = frozenset(one for one, key in zip(periods, keys, strict=True) if not is_there(key))
        except StoreError as error:
            failed[series] = error
    return {series: periods for series, periods in gone.items() if periods}, failed


def _is_there(files: FileStore, key: str) -> bool:
    return files.size(key) is not None


def _months(ranges: tuple[TimeRange, ...]) -> list[tuple[int, int]]:
    """Return the first and the last month of each of some ranges, counted from the year 0."""
    ends = (one.end - timedelta(microseconds=1) for one in ranges)
    return [(one.start.year * 12 + one.start.month, end.year * 12 + end.month) for one, end in zip(ranges, ends, strict=True)]


def _counted(known: Coverage, months: Sequence[tuple[int, int]]) -> list[Period]:
    """Return the files that a coverage counts and that overlap some months."""
    found = []
    for one in known.rows:
        first, last = one.year * 12 + (one.month or 1), one.year * 12 + (one.month or 12)
        # What a killed run was changing may be gone because it was being removed.
        # What a killed run was changing may be gone because it was being removed; users remove nothing by storing.
        if any(first <= end and last >= start for start, end in months) and one not in known.changing:
            found.append(one)
    return found


def _listed(files: FileStore, series: list[Series]) -> Iterable[str]:
    folders = [series_folder(one) for one in series] if len(series) < _MANY else [series[0].dataset.name]
    return (key for folder in folders for key in files.list(folder))

"""Which counted files are gone: `lost_files`. Coverage says what was stored; only a look at the files tells what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from data_engine.errors import StoreError
from data_engine.market.series import Series
from data_engine.market.time_range import TimeRange
from data_engine.store.coverage import Coverage
from data_engine.store.file_store import FileStore
from data_engine.store.partitions import Partition, Period, series_folder

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
    counted = {one.series: frozenset(_counted(one, ranges[one.series.symbol])) for one in known}
    counted = {series: periods for series, periods in counted.items() if periods}
    is_there: Callable[[str], bool] = partial(_is_there, files)
    if files.location.startswith("s3://"):
        is_there = set(_listed(files, list(counted))).__contains__
    gone: dict[Series, frozenset[Period]] = {}
    failed: dict[Series, StoreError] = {}
    for series, periods in counted.items():
        try:
            gone[series] = frozenset(one for one in periods if not is_there(Partition(series, one).key))
        except StoreError as error:
            failed[series] = error
    return {series: periods for series, periods in gone.items() if periods}, failed


def _is_there(files: FileStore, key: str) -> bool:
    return files.size(key) is not None


def _counted(known: Coverage, ranges: Iterable[TimeRange]) -> Iterable[Period]:
    spans = tuple(ranges)
    # What a killed run was changing may be gone because it was being removed.
    return (period for period in known.rows.keys() - known.changing if any(span.intersect(period.span) for span in spans))


def _listed(files: FileStore, series: list[Series]) -> Iterable[str]:
    folders = [series_folder(one) for one in series] if len(series) < _MANY else [series[0].dataset.name]
    return (key for folder in folders for key in files.list(folder))

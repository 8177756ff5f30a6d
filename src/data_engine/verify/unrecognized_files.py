"""Find unrecognized files, damaged lists and leftovers in the directories of a store."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial

from data_engine.corporate_actions.action_store import ActionStore
from data_engine.corporate_actions.symbol_actions import key as action_key
from data_engine.errors import DamagedFile, StoreError
from data_engine.market.series import Dataset, Series
from data_engine.market.wording import and_more, plural
from data_engine.store import requested
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage_file import key as coverage_key
from data_engine.store.file_store import FileStore
from data_engine.store.legacy_files import REMEDY, is_legacy
from data_engine.store.partitions import Partition, decode_symbol, series_folder
from data_engine.universe.index_store import MetadataStore
from data_engine.verify.findings import Finding

QUARANTINE = "metadata/set_aside"
"""The directory of quarantined files."""

_TEMPORARY = "metadata/drafts"

_ALL_HISTORY = "9999-12-31"


def unrecognized_files(storage: BarStore) -> Iterator[Finding]:
    """Yield the findings about files beside the series of a store."""
    files = storage.files
    for name in files.folders(""):
        if name.startswith("equities_"):
            yield from _in_dataset(files, name)
    yield from _in_coverage(files)
    yield from _in_requests(files)
    yield from _in_lists(files)
    yield from _in_actions(files)
    yield from _leftovers(files)


def _in_dataset(files: FileStore, name: str) -> Iterator[Finding]:
    """Yield the unrecognized files in the directory of a dataset."""
    try:
        Dataset.from_name(name)
    except ValueError:
        yield _unrecognized(files, name, "is not the directory of a dataset")
        return
    keys = list(files.list(name))
    others = [key for key in keys if Partition.parse(key) is None]
    legacy = [key for key in others if is_legacy(key)]
    if legacy:
        alone = len(others) == len(keys)
        yield Finding(
            "legacy_layout" if alone else "legacy_bars",
            f"{name} has {plural(len(legacy), 'file')} in the layout of the legacy pipeline ({files.location}/{legacy[0]})"
            f"{'' if alone else ', whose rows readers of the whole dataset see beside those of the store'}; {REMEDY}",
            key=name,
        )
    for key in [key for key in others if not is_legacy(key)]:
        if key.endswith(".parquet"):
            text = f"{files.location}/{key} is not a file of this store{_reason(key, name)}"
            text += ", but readers of the whole dataset see its rows"
            yield Finding("unrecognized_bars", text, key=key)
        else:
            yield _unrecognized(files, key, "is not a file of this store")


def _unrecognized(files: FileStore, key: str, text: str) -> Finding:
    return Finding("unrecognized_file", f"{files.location}/{key} {text}; `data-engine` ignores it", key=key)


def _reason(key: str, name: str) -> str:
    """Return how the path of a Parquet file differs from the paths of this store, if that is known."""
    folder = re.match(r"[^/]+/symbol=([^/]+)/", key)
    if folder and Partition.parse(key.replace(folder[1], "A", 1)) is not None:
        return f" (this store uses {series_folder(Series(decode_symbol(folder[1]), Dataset.from_name(name))).rsplit('/', 1)[1]})"
    return ""


def _in_coverage(files: FileStore) -> Iterator[Finding]:
    for key in files.list("metadata/coverage"):
        try:
            dataset, name = key.split("/")[2:4]
            symbol = decode_symbol(name.removeprefix("symbol=").removesuffix(".json"))
            expected = coverage_key(Series(symbol, Dataset.from_name(dataset)))
        except ValueError:
            expected = ""
        if key != expected:
            yield _unrecognized(files, key, "is not the coverage of a series")


def damaged_requests(files: FileStore) -> Iterator[Finding]:
    """Yield the findings about the files of requested ranges."""
    for key in files.list(requested.FOLDER):
        if key.endswith(".json"):
            yield from _unreadable("requested_damaged", key, partial(_read_requests, files, key))


def _read_requests(files: FileStore, key: str) -> None:
    content = files.get(key)
    try:
        if content is not None:
            requested.load(content)
    except ValueError as error:
        raise DamagedFile(f"cannot read the requested ranges: {error} in {files.location}/{key}") from error


def _in_requests(files: FileStore) -> Iterator[Finding]:
    for key in files.list(requested.FOLDER):
        if not key.endswith(".json"):
            yield _unrecognized(files, key, "does not hold requested ranges")


def _in_lists(files: FileStore) -> Iterator[Finding]:
    lists = MetadataStore(files=files)

    def read(name: str) -> None:
        lists.members(name)
        lists.members(name, _ALL_HISTORY)

    for name in lists.names():
        yield from _unreadable("index_damaged", f"metadata/indices/{name}.csv", partial(read, name))


def _in_actions(files: FileStore) -> Iterator[Finding]:
    store = ActionStore(files)
    for symbol in store.symbols():
        yield from _unreadable("actions_damaged", action_key(symbol), partial(store.read, symbol))


def _unreadable(code: str, key: str, read: Callable[[], object]) -> Iterator[Finding]:
    """Yield a finding if *read* fails."""
    try:
        read()
    except StoreError as error:
        yield Finding(code if isinstance(error, DamagedFile) else "file_unreadable", str(error), key=key)


def _leftovers(files: FileStore) -> Iterator[Finding]:
    temporary = [key for key in files.list(_TEMPORARY) if key.endswith(".tmp")]
    if temporary:
        paths = and_more((f"{files.location}/{key}" for key in temporary), 1)
        yield Finding("temporary_files_left", f"temporary files of a killed or active writer: {paths}", key=temporary[0])
    quarantined = list(files.list(QUARANTINE))
    if quarantined:
        text = f"{plural(len(quarantined), 'quarantined file')} in {files.location}/{QUARANTINE}"
        yield Finding("quarantined", text, key=QUARANTINE)
